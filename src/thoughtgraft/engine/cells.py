"""From cells to records: run cells in packs of whole hosts and grade what they gave, in whichever process this is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.context import NothingToTake
from thoughtgraft.edits.plan import Cell
from thoughtgraft.edits.site import slots_label
from thoughtgraft.engine.answer import answer_tail, make_draft
from thoughtgraft.engine.batching import packs, plan_budget, surviving
from thoughtgraft.engine.rollout import RolloutResult, rollout
from thoughtgraft.engine.rows import Edited, Row, Source, ends_the_run, in_words
from thoughtgraft.engine.states import states_of
from thoughtgraft.errors import PlanError
from thoughtgraft.models.reasoner import LatentReasoner, Prompt
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

_TRIED, _CAPTURED = 8, 32  # cells, and problems at a time
Record = tuple[str, str | None]
"""What a record is known by: its cell's key and stratum."""


@dataclass(frozen=True)
class Finished:
    """Cells that have been run: row i of `rows`, and of `logits` [cells, V] where they are kept, is cell i's record."""

    cells: list[Cell]
    rows: list[dict[str, Any]]
    logits: Tensor | None = None


@dataclass(frozen=True)
class Work:
    """What all cells of a run share beside the model: with it, any process makes the same records.

    Attributes:
        sharers: How many processes plan with the same free memory.
    """

    problems: ProblemSet
    prompts: Sequence[Prompt]
    thoughts: Thoughts
    run_id: str
    seed: int
    batch_size: int | str
    max_new_tokens: int
    keep_logits: bool = False
    sharers: int = 1

    def run(
        self, model: LatentReasoner, cells: Sequence[Cell], stored: Collection[Record] = ()
    ) -> Generator[Finished, None, None]:
        """Run cells with the same model as the thoughts'; yields each pack as it finishes."""
        recorder = Recorder(model, self.problems, self.thoughts, self.prompts, self.run_id, self.seed)
        for done, result in self.outcomes(model, cells, stored):
            yield Finished(done, recorder.rows(done, result), result.answers.first_logits if self.keep_logits else None)

    def outcomes(
        self, model: LatentReasoner, cells: Sequence[Cell], stored: Collection[Record] = ()
    ) -> Iterator[tuple[list[Cell], RolloutResult]]:
        """Run cells in packs of whole hosts; yields each pack's cells with their results, as it finishes.

        Cells of one key (a donor that serves two strata) are generated once, `stored` ones not at all. They still count
        when packs are made: a run that is continued makes the same packs, and so the same roundings.
        """
        # First what stays in memory, then what is left of it.
        generating = _Generating(self, model, [cell for cell in cells if cell.record not in stored])
        budget = plan_budget(model, self.batch_size, max(map(len, self.prompts)), self.sharers)
        groups: dict[int, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(cell.host, []).append(cell)
        # A host with more cells than may run at once is cut; its parts share nothing but the question.
        pieces = []
        for host, group in groups.items():
            size = budget.variants(len(self.prompts[host]))
            pieces += [group[i : i + size] for i in range(0, len(group), size)]
        packed = packs(pieces, len, lambda piece: len(self.prompts[piece[0].host]), budget)
        packed = [[[c for c in piece if c.record not in stored] for piece in pack] for pack in packed]
        packed = [[piece for piece in pack if piece] for pack in packed]
        packed = [pack for pack in packed if pack]
        for part in surviving(generating.once, packed, len, halved, model.device):
            yield [cell for piece in part for cell in piece], generating.results.pop()


class _Generating:
    """Generates packs of pieces, each of one host's cells; the result of the last pack is the last of `results`."""

    def __init__(self, work: Work, model: LatentReasoner, cells: Sequence[Cell]) -> None:
        thoughts, problems = work.thoughts, work.problems
        self.work, self.model, self.results = work, model, list[RolloutResult]()
        streams = _streams(model, work.prompts, [cell.arm for cell in cells])
        self.source = Source.from_fed(thoughts.fed.to(model.device), [problem.id for problem in problems], streams)
        self.drafts = {
            h: make_draft(model, thoughts.token_ids[h], thoughts.stopped[h], problems[h].gold, problems.grader)
            for h in sorted({cell.host for cell in cells})
        }
        self.tail = functools.cache(self._tail)

    def once(self, part: list[list[Cell]]) -> None:
        """Generate one pack."""
        hosts = [piece[0].host for piece in part]
        wanted = [(at, cell) for at, piece in enumerate(part) for cell in piece]
        once_each = {(at, cell.key): cell for at, cell in wanted}
        result = rollout(
            self.model,
            [self.work.prompts[h] for h in hosts],
            [_row(self.model, cell, at, self.work.thoughts, self.tail) for (at, _), cell in once_each.items()],
            self.source,
            drafts=[self.drafts[h] for h in hosts],
            max_new_tokens=self.work.max_new_tokens,
            keep_logits=self.work.keep_logits,
        )
        row_of = {name: row for row, name in enumerate(once_each)}
        self.results.append(result.at(torch.tensor([row_of[at, cell.key] for at, cell in wanted], dtype=torch.long)))

    def _tail(self, host: int, answer: str) -> tuple[int, ...]:
        """An answer and the end as tokens, as they would stand in the host's clean answer."""
        at, ids = self.drafts[host].number_at, self.work.thoughts.token_ids[host]
        return () if at is None else answer_tail(self.model, ids, at, answer, self.work.problems.grader)


def halved(cells: list[Cell]) -> list[list[Cell]]:
    """One host's cells in two parts; a single one alone."""
    middle = len(cells) // 2
    return [cells[:middle], cells[middle:]] if middle else [cells]


def _row(
    model: LatentReasoner, cell: Cell, at: int, thoughts: Thoughts, tail: Callable[[int, str], tuple[int, ...]]
) -> Row:
    donor_pred = None if cell.donor is None else thoughts.pred[cell.donor]
    return Row(
        problem=at,
        actions=schedule(cell.arm, model.num_latents, model.loop.step_of),
        edit=cell.arm.edit,
        host=cell.host,
        donor=cell.donor,
        key=cell.key,
        donor_tail=() if donor_pred is None else tail(cell.host, donor_pred),
        layer=cell.arm.layer,
    )


def _streams(
    model: LatentReasoner, prompts: Sequence[Prompt], arms: Sequence[Arm], *, trying: bool = False
) -> dict[int | None, Tensor]:
    """By block, the clean residual streams of N problems that arms read, or are tried on [N, K, d]."""
    layers = sorted({arm.layer for arm in arms if arm.layer is not None and (trying or arm.change.reads)})
    if not layers or not model.loop.aligned:  # else positions are no slots', and there are none
        return {}
    parts = [states_of(model, prompts[i : i + _CAPTURED], layers)[0] for i in range(0, len(prompts), _CAPTURED)]
    streams = torch.cat(parts)[:, 1:]  # [N, K + 1, L, d] without begin-of-thought
    return {layer: streams[:, :, i] for i, layer in enumerate(layers)}


@torch.inference_mode()
def try_edits(model: LatentReasoner, problems: ProblemSet, prompts: Sequence[Prompt], cells: Sequence[Cell]) -> None:
    """Call each edit of one's own, at each of its slots, on clean vectors of a few cells: does it work on any of them?

    One that works on some cells and not on others is no mistake of the plan: those others are failed cells of the run.

    Args:
        model: The model.
        problems: Every problem.
        prompts: The same, encoded.
        cells: What is about to be run.

    Raises:
        PlanError: An edit raises, or gives no vectors, on every cell that it was tried on.
    """
    by_arm: dict[int, list[Cell]] = {}
    for cell in cells:
        if cell.arm.edit is not None and cell.arm.change.own:
            by_arm.setdefault(id(cell.arm), []).append(cell)
    if not by_arm:
        return
    few = [group[:: -(-len(group) // _TRIED)] for group in by_arm.values()]
    seen = {at for group in few for cell in group for at in (cell.host, cell.donor) if at is not None}
    # Two problems at least where there are two: then the mean of the others exists as it will in the run.
    used = sorted(seen | set(range(min(2, len(prompts)))))
    place = {problem: i for i, problem in enumerate(used)}
    asked = [prompts[i] for i in used]
    streams = _streams(model, asked, [group[0].arm for group in few], trying=True)
    source = Source.from_fed(rollout(model, asked, []).fed, [problems[i].id for i in used], streams)
    live = {None: source.fed, **streams}
    for group in few:
        arm = group[0].arm
        donors = [None if cell.donor is None else place[cell.donor] for cell in group]
        rows = [
            Row(0, (), arm.edit, place[c.host], d, c.key, layer=arm.layer) for c, d in zip(group, donors, strict=True)
        ]
        edited = Edited.of(range(len(rows)), rows, range(len(rows)), model.device)
        vectors = live.get(arm.layer)
        for slot in arm.slots:
            if vectors is not None and model.loop.step_of(slot) < model.num_latents:
                _try_edit(arm.label, edited, vectors[edited.hosts, slot], slot, source)


def _try_edit(name: str, edited: Edited, live: Tensor, slot: int, source: Source) -> None:
    n = len(live)
    for rows in (slice(0, n), *(slice(i, i + 1) for i in range(n))):
        try:
            edited.vectors(live[rows].clone(), slot, source, rows)
            return
        except Exception as error:
            if ends_the_run(error):
                raise
            last = error
    if isinstance(last, NothingToTake) and not source.has_others:
        return
    raise PlanError(
        f"the edit of {name} fails on every cell that it was tried on",
        got=f"{in_words(last)} (at {slots_label((slot,))}, {n} cells)",
        expected="vectors, or a failure on some cells only: those are then counted as failed",
        fix="mend the edit; nothing was run",
    ) from last


@dataclass(frozen=True)
class Recorder:
    """Everything that stays the same over a run's records."""

    model: LatentReasoner
    problems: ProblemSet
    thoughts: Thoughts
    prompts: Sequence[Prompt]
    run_id: str
    seed: int

    def rows(self, cells: Sequence[Cell], result: RolloutResult) -> list[dict[str, Any]]:
        """One record for each cell, in order; row i of `result` is cell i."""
        return [
            self._row(cell, result, i) if reason is None else self.failed(cell, reason)
            for i, (cell, reason) in enumerate(zip(cells, result.failed, strict=True))
        ]

    def failed(self, cell: Cell, reason: str) -> dict[str, Any]:
        """The record of a cell that has no outcome: what it is, and what went wrong. It is never a wrong answer."""
        return self._what(cell) | {"error": reason}

    def _what(self, cell: Cell) -> dict[str, Any]:
        problem, arm, base = self.problems[cell.host], cell.arm, self.thoughts
        record: dict[str, Any] = {
            "run_id": self.run_id,
            "cell": cell.key,
            "arm": arm.label,
            **arm_of(cell).columns,
            "protocol": self.model.protocol.name,
            "num_latents": self.model.num_latents,
            "model_edit": None if self.model.edit is None else self.model.edit.name,
            "problem_id": problem.id,
            "split": problem.split,
            "n_steps": len(problem.steps) or None,
            "operation": problem.operation,
            "gold": problem.gold,
            "base_pred": base.pred[cell.host],
            "base_correct": base.correct[cell.host],
            "pad": self.prompts[cell.host].pad,
            "seed": self.seed if cell.draw is not None or arm.change.own else None,
        }
        if cell.donor is not None:
            record |= {
                "donor_id": self.problems[cell.donor].id,
                "donor_pred": base.pred[cell.donor],
                "donor_correct": base.correct[cell.donor],
            }
        return record

    def _row(self, cell: Cell, result: RolloutResult, i: int) -> dict[str, Any]:
        record, grader = self._what(cell), self.problems.grader
        ids = result.answers.token_ids[i]
        text = self.model.text(ids)
        pred, base, gold = grader.parse(text), record["base_pred"], record["gold"]
        record |= {
            "text": text,
            "token_ids": list(ids),
            "stop_reason": "eos" if result.answers.stopped[i] else "length",
            "n_tokens": len(ids),
            "pred": pred,
            "valid": pred is not None,
            "correct": grader.same(pred, gold),
            # Two texts without an answer do not give the same one, but nothing changed between them either.
            "changed": not (pred is None and base is None) and not grader.same(pred, base),
            "fed_norm": _defined(result.edit_norm[i].item()),
        }
        if cell.donor is not None:
            donor = record["donor_pred"]
            eligible = donor is not None and not grader.same(donor, base) and not grader.same(donor, gold)
            record["adopted"] = grader.same(pred, donor) if eligible else None
            record["donor_cos"] = _defined(result.edit_cosine[i].item())
        if result.scores is not None:
            record["logp_gold"] = _defined(result.scores.logp_gold[i].item())
            record["logp_donor"] = _defined(result.scores.logp_donor[i].item())
            record["kl"] = _defined(result.scores.kl[i].item())
            clean = result.scores.clean_logp_gold[i].item()
            record["dlogp_gold"] = _defined(result.scores.logp_gold[i].item() - clean)
        return record


def arm_of(cell: Cell) -> ArmKey:
    """The arm that a cell's record is of; a problem put into itself is no donor drawn as the arm says."""
    arm = cell.arm
    return ArmKey(arm.change.name, arm.site, arm.after if arm.site else "", cell.stratum or "")


def _defined(value: float) -> float | None:
    return None if isnan(value) else value
