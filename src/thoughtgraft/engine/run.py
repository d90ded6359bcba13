"""Run a plan: think once, expand to cells, run what is not stored yet, grade, store."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from thoughtgraft.engine.cells import Work
from thoughtgraft.engine.collect import collect_thoughts, encode
from thoughtgraft.engine.edits import check_sites
from thoughtgraft.engine.executors import Executor, LocalExecutor
from thoughtgraft.errors import PlanError, RunError
from thoughtgraft.interventions.plan import Cell, Plan
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.problems import ProblemSet
from thoughtgraft.problems.table import problem_table
from thoughtgraft.records import RunSpec, RunStore, arm_key, rows_to_table
from thoughtgraft.records.atomic import write_atomic
from thoughtgraft.records.frames import table_to_frame
from thoughtgraft.records.layout import DECISION_FILE, PROBLEMS_FILE, THOUGHTS_FILE
from thoughtgraft.records.provenance import collect_provenance
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd


def run(
    model: LatentReasoner,
    problems: ProblemSet,
    plan: Plan,
    out: str | Path | None = None,
    *,
    study: str = "custom",
    batch_size: int | str = "auto",
    max_new_tokens: int | None = None,
    keep_logits: bool = False,
    progress: bool = True,
    facts: Mapping[str, Any] | None = None,
    design: Mapping[str, Any] | None = None,
    rule: str | None = None,
    executor: Executor | None = None,
    watch: Callable[[], None] | None = None,
) -> pd.DataFrame:
    """Run every cell of a plan and return its records.

    Args:
        model: The model.
        problems: Hosts and donors.
        plan: What to run.
        out: The run's folder; the same call continues it. None keeps everything in memory.
        study: What the run is called in run.json.
        batch_size: Rows at once, or `auto`; it does not change results.
        max_new_tokens: The longest answer; None takes the model's.
        keep_logits: Add a column `first_logits`, the first answer token's logits [V] as numpy arrays; in memory only.
        progress: Show progress bars.
        facts: More facts for run.json's provenance.
        design: More facts about the design, put beside the plan in run.json; not part of the plan's hash.
        rule: The decision rule as text, fixed before the run: it is kept as decision.json and its hash in run.json.
        executor: Where the cells run; None is this process. It does not change results.
        watch: Called now and then while the run's folder grows, to look at it.

    Returns:
        One row per cell in the plan's order, with the columns of `records.RECORD_SCHEMA`; a generation whose donor
        serves two strata has a row for each.

    Raises:
        PlanError: A slot, donor or host that does not exist, or no problems.
        RunError: The folder holds another run or cannot be written.
        ModelError: A question does not fit the model's context.
    """
    if len(problems) == 0:
        raise PlanError("there are no problems to run", fix="load at least one problem")
    if keep_logits and out is not None:
        raise PlanError("logits are not stored in run folders", fix="use keep_logits=True without out")
    check_sites(model, plan.arms)
    prompts = encode(model, problems)
    pads = [p.pad for p in prompts] if model.protocol.pads_visible else None

    def think() -> Thoughts:
        return _think(
            model, problems, None if out is None else Path(out) / THOUGHTS_FILE, batch_size, max_new_tokens, progress
        )

    # Which problems are hosts may hang on the clean answers; then they come before the plan.
    before = think() if plan.only_correct else None
    cells = plan.cells(problems, model.identity, pads, None if before is None else before.correct)
    spec = make_spec(model, problems, plan, cells, study=study, facts=facts, design=design, rule=rule)
    store = None if out is None else RunStore.create(out, spec)
    with store or nullcontext():
        thoughts = think() if before is None else before
        if store:
            _keep(store, thoughts, problems, rule)
            if watch:
                watch()
        stored = store.stored_cells() if store else set()
        todo = [cell for cell in cells if cell.record not in stored]
        work = Work(
            problems=problems,
            prompts=prompts,
            thoughts=thoughts,
            run_id=spec.run_id,
            seed=plan.seed,
            batch_size=batch_size,
            max_new_tokens=model.max_new_tokens if max_new_tokens is None else max_new_tokens,
            keep_logits=keep_logits,
        )
        kept: list[dict[str, Any]] = []
        logits: dict[str, Any] = {}
        bar = tqdm(
            total=len(cells), initial=len(cells) - len(todo), desc="interventions", unit="cell", disable=not progress
        )
        with bar, closing((executor or LocalExecutor()).run(model, work, todo)) as parts:
            for part in parts:
                done = len(part.cells)
                if store:
                    for unit, members in _units(part.cells, part.rows):
                        store.write_unit(unit, members)
                    store.heartbeat(bar.n + done, len(cells), "interventions")
                kept += [] if store else part.rows
                if part.logits is not None:
                    logits.update(zip((c.key for c in part.cells), part.logits.float().numpy(), strict=True))
                bar.update(done)
                if watch and store:
                    watch()
        if store:
            store.heartbeat(len(cells), len(cells), "finished")
        frame = store.frame() if store else table_to_frame(rows_to_table(kept))
    place = {record: i for i, record in enumerate(dict.fromkeys(cell.record for cell in cells))}
    strata = frame["donor_stratum"].astype(object).where(frame["donor_stratum"].notna(), None)
    order = sorted(range(len(frame)), key=[place[r] for r in zip(frame["cell"], strata, strict=True)].__getitem__)
    frame = frame.iloc[order].reset_index(drop=True)
    if keep_logits:
        frame["first_logits"] = frame["cell"].map(logits)
    return frame


def make_spec(
    model: LatentReasoner,
    problems: ProblemSet,
    plan: Plan,
    cells: Sequence[Cell],
    *,
    study: str = "custom",
    facts: Mapping[str, Any] | None = None,
    design: Mapping[str, Any] | None = None,
    rule: str | None = None,
) -> RunSpec:
    """What run.json says of a run."""
    provenance = collect_provenance() | dict(facts or {})
    counts = Counter(
        arm_key(cell.arm.name, cell.arm.slots, cell.arm.downstream if cell.arm.slots else None, cell.stratum)
        for cell in cells
    )
    flaw = {"protocol_flaw": model.protocol.flaw} if model.protocol.flaw else {}
    return RunSpec(
        study=study,
        model=model.name,
        model_hash=model.model_hash,
        protocol=model.protocol.name,
        num_latents=model.num_latents,
        problems=problems.name,
        problem_hash=problems.content_hash,
        plan_hash=plan.plan_hash,
        plan=plan.describe() | {"cells_per_arm": dict(counts)} | flaw | dict(design or {}),
        seed=plan.seed,
        dtype=model.dtype_name,
        device=model.device.type,
        n_hosts=len({cell.host for cell in cells}),
        n_donors=plan.n_donors,
        n_cells=len(cells),
        decision_hash=None if rule is None else hashlib.sha256(rule.encode()).hexdigest()[:16],
        versions=provenance.pop("versions", {}),
        provenance=provenance,
    )


def _think(
    model: LatentReasoner,
    problems: ProblemSet,
    path: Path | None,
    batch_size: int | str,
    max_new_tokens: int | None,
    progress: bool,
) -> Thoughts:
    """The clean thoughts: those that the run keeps, or new ones."""
    if path is not None and path.exists():
        return Thoughts.load(path, identity=model.identity, problem_hash=problems.content_hash)
    return collect_thoughts(model, problems, batch_size=batch_size, max_new_tokens=max_new_tokens, progress=progress)


def _keep(store: RunStore, thoughts: Thoughts, problems: ProblemSet, rule: str | None) -> None:
    """Put what the cells rest on into the run's folder, before the first of them."""
    if not (store.path / THOUGHTS_FILE).exists():
        thoughts.save(store.path / THOUGHTS_FILE)
    if not (store.path / PROBLEMS_FILE).exists():
        store.write_table(PROBLEMS_FILE, problem_table(problems))
    file = store.path / DECISION_FILE
    if rule is not None and not file.exists():
        write_atomic(file, rule.encode())
    elif rule is not None and file.read_bytes() != rule.encode():
        raise RunError(
            f"{file} is not the rule that the run began with",
            got="another text",
            expected=f"the rule with the hash {store.spec.decision_hash}",
            fix="restore it, or delete it to have it written again",
        )


def _units(cells: Sequence[Cell], rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """One unit for each host: its records, named by a hash of what they are known by."""
    by_host: dict[int, list[dict[str, Any]]] = {}
    for cell, row in zip(cells, rows, strict=True):
        by_host.setdefault(cell.host, []).append(row)
    for members in by_host.values():
        names = sorted(f"{m['cell']} {m.get('donor_stratum') or ''}" for m in members)
        yield hashlib.sha256("\n".join(names).encode()).hexdigest()[:20], members
