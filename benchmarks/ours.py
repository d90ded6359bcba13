"""The engine on the same work, scheduled as in a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.workload import Workload, rows_of, source_of
from thoughtgraft.engine import latents as clean
from thoughtgraft.engine import rollout as engine
from thoughtgraft.engine.answer import Draft
from thoughtgraft.engine.batching import Budget, packs, plan_budget
from thoughtgraft.engine.collect import CPU_ROWS, GPU_ROWS
from thoughtgraft.models.attention import ColumnCache
from thoughtgraft.models.reasoner import LatentReasoner

_TAIL = 3  # tokens of a number and the end behind it


@dataclass(frozen=True)
class Sweep:
    """Runs all cells; `scored` verifies drafts and scores two numbers for each cell as well."""

    model: LatentReasoner
    work: Workload
    scored: bool = False

    def __call__(self) -> list[tuple[int, ...]]:
        """The answers of all cells, host by host."""
        work, model = self.work, self.model
        budget: Budget = plan_budget(model, "auto", max(map(len, work.prompts)))
        if not work.swaps:
            budget = replace(budget, rows=min(CPU_ROWS if model.device.type == "cpu" else GPU_ROWS, budget.rows))
        variants = max(1, len(work.swaps) // len(work.prompts))
        groups = packs(range(len(work.prompts)), lambda h: variants, lambda h: len(work.prompts[h]), budget)
        answers: dict[int, list[tuple[int, ...]]] = {}
        for hosts in groups:
            rows = rows_of(model, work, hosts)
            drafts = None
            if self.scored:
                drafts = [self._draft(h) for h in hosts]
                rows = [replace(r, donor_tail=self._tail(r.donor or 0, 1)) for r in rows]
            prompts = [work.prompts[h] for h in hosts]
            out = engine.rollout(model, prompts, rows, source_of(work), drafts=drafts, max_new_tokens=work.answer)
            for row, ids in zip(rows, out.answers.token_ids, strict=True):
                answers.setdefault(hosts[row.problem], []).append(ids)
        return [ids for host in range(len(work.prompts)) for ids in answers[host]]

    def _draft(self, host: int) -> Draft:
        assert self.work.clean is not None, "scores need the clean answers"
        return Draft(self.work.clean[host], self.work.answer - _TAIL, self._tail(host, 0))

    def _tail(self, seed: int, salt: int) -> tuple[int, ...]:
        words = self.model.pad_id
        return tuple((7919 * (seed + 1) + 31 * i + salt) % words for i in range(_TAIL))


def cache_bytes(sweep: Sweep) -> int:
    """Bytes of keys and values that the sweep held at once."""
    held: list[ColumnCache] = []

    class Recorded(ColumnCache):
        def __init__(self, rows: int, columns: int, *, by_column: bool = False) -> None:
            super().__init__(rows, columns, by_column=by_column)
            held.append(self)

    for module in (engine, clean):
        module.ColumnCache = Recorded  # type: ignore[attr-defined]
    try:
        sweep()
    finally:
        for module in (engine, clean):
            module.ColumnCache = ColumnCache  # type: ignore[attr-defined]
    return sum(cache.nbytes for cache in held)
