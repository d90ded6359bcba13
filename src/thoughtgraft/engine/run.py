"""Run a plan: think once, expand to cells, run what is not stored yet, grade, store."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from thoughtgraft.engine.batching import packs, plan_budget, surviving
from thoughtgraft.engine.collect import collect_thoughts, encode
from thoughtgraft.engine.drafts import Draft, make_draft, number_tail
from thoughtgraft.engine.grading import Grader
from thoughtgraft.engine.grid import Row
from thoughtgraft.engine.rollout import RolloutResult, Source, rollout
from thoughtgraft.errors import PlanError, RunError
from thoughtgraft.interventions.ops import OPS
from thoughtgraft.interventions.plan import Cell, Plan
from thoughtgraft.interventions.schedule import schedule
from thoughtgraft.models.reasoner import LatentReasoner, Prompt
from thoughtgraft.problems import ProblemSet
from thoughtgraft.problems.table import problem_table
from thoughtgraft.records import RunSpec, RunStore, arm_key, rows_to_table
from thoughtgraft.records.atomic import write_atomic
from thoughtgraft.records.frames import table_to_frame
from thoughtgraft.records.layout import CERTIFICATE_FILE, DECISION_FILE, PROBLEMS_FILE, THOUGHTS_FILE
from thoughtgraft.records.provenance import collect_provenance, without_home
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
    certificate: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] | None = None,
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
        certificate: What `verify` found, kept as certificate.json before the first cell.
        stop: Asked before each pack of cells, when all earlier ones are stored: whether to end with KeyboardInterrupt.

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
    prompts = encode(model, problems)
    pads = [p.pad for p in prompts] if model.protocol.pads_visible else None

    def think() -> Thoughts:
        path = None if out is None else Path(out) / THOUGHTS_FILE
        return _think(model, problems, path, batch_size, max_new_tokens, progress, stop)

    # Which problems are hosts may hang on the clean answers; then they come before the plan.
    before = think() if plan.only_correct else None
    cells = plan.cells(problems, model.identity, pads, None if before is None else before.correct)
    spec = make_spec(model, problems, plan, cells, study=study, facts=facts, design=design, rule=rule)
    store = None if out is None else RunStore.create(out, spec)
    with store or nullcontext():
        if store:
            store.heartbeat(0, len(problems), "clean thoughts")
        thoughts = think() if before is None else before
        if store:
            _keep(store, thoughts, problems, rule)
            if certificate is not None:
                store.write_json(CERTIFICATE_FILE, certificate)
        grader = Grader(model, problems, thoughts, prompts, spec.run_id, plan.seed)
        stored = store.stored_cells() if store else set()
        before_now = sum(cell.record in stored for cell in cells)
        kept: list[dict[str, Any]] = []
        logits: dict[str, Any] = {}
        bar = tqdm(total=len(cells), initial=before_now, desc="interventions", unit="cell", disable=not progress)
        with bar:
            for done, result in run_cells(
                model, prompts, cells, thoughts, problems, batch_size, max_new_tokens, keep_logits, stored, stop
            ):
                rows = grader.rows(done, result)
                if store:
                    store.write_unit(_unit_name(done), rows)
                    store.heartbeat(bar.n + len(done), len(cells), "interventions")
                kept += [] if store else rows
                if keep_logits and result.answers.first_logits is not None:
                    logits.update(zip((c.key for c in done), result.answers.first_logits.float().numpy(), strict=True))
                bar.update(len(done))
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


def run_cells(
    model: LatentReasoner,
    prompts: Sequence[Prompt],
    cells: Sequence[Cell],
    thoughts: Thoughts,
    problems: ProblemSet,
    batch_size: int | str,
    max_new_tokens: int | None,
    keep_logits: bool,
    stored: Collection[tuple[str, str | None]] = (),
    stop: Callable[[], bool] | None = None,
) -> Iterator[tuple[list[Cell], RolloutResult]]:
    """Run cells in packs of whole hosts; yields each pack's cells with their results, as it finishes.

    Cells of one key (a donor that serves two strata) are generated once, `stored` ones not at all. They still count
    when packs are made: a run that is continued makes the same packs, and so the same roundings. `stop`, asked before
    each pack, ends all with KeyboardInterrupt.
    """
    source = Source.from_fed(thoughts.fed.to(model.device))
    drafts = {
        host: make_draft(model, thoughts.token_ids[host], thoughts.stopped[host], problems[host].answer)
        for host in sorted({cell.host for cell in cells if cell.record not in stored})
    }
    budget = plan_budget(model, batch_size, max(map(len, prompts)))
    groups: dict[int, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.host, []).append(cell)
    # A host with more cells than may run at once is cut; its parts share nothing but the question.
    pieces = []
    for host, group in groups.items():
        size = budget.variants(len(prompts[host]))
        pieces += [group[i : i + size] for i in range(0, len(group), size)]
    results: list[RolloutResult] = []

    def once(part: list[list[Cell]]) -> None:
        hosts = [piece[0].host for piece in part]
        wanted = [(at, cell) for at, piece in enumerate(part) for cell in piece]
        once_each = {(at, cell.key): cell for at, cell in wanted}
        result = rollout(
            model,
            [prompts[h] for h in hosts],
            [_row(model, cell, at, thoughts, drafts[cell.host]) for (at, _), cell in once_each.items()],
            source,
            drafts=[drafts[h] for h in hosts],
            max_new_tokens=max_new_tokens,
            keep_logits=keep_logits,
        )
        row_of = {name: row for row, name in enumerate(once_each)}
        results.append(_rows(result, [row_of[at, cell.key] for at, cell in wanted]))

    packed = packs(pieces, len, lambda piece: len(prompts[piece[0].host]), budget)
    packed = [[[c for c in piece if c.record not in stored] for piece in pack] for pack in packed]
    packed = [[piece for piece in pack if piece] for pack in packed]
    packed = [pack for pack in packed if pack]
    for part in surviving(once, packed, len, halved, model.device, stop):
        yield [cell for piece in part for cell in piece], results.pop()


def halved(cells: list[Cell]) -> list[list[Cell]]:
    """One host's cells in two parts; a single one alone."""
    middle = len(cells) // 2
    return [cells[:middle], cells[middle:]] if middle else [cells]


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
    provenance = collect_provenance() | {"threads": torch.get_num_threads()} | dict(facts or {})
    if model.device.type == "cuda":
        provenance["accelerator"] = torch.cuda.get_device_name(model.device)
    counts = Counter(
        arm_key(cell.arm.method, cell.arm.slots, cell.arm.downstream if cell.arm.slots else None, cell.stratum)
        for cell in cells
    )
    return RunSpec(
        study=study,
        model=without_home(model.name),
        model_hash=model.model_hash,
        protocol=model.protocol.name,
        num_latents=model.num_latents,
        problems=without_home(problems.name),
        problem_hash=problems.content_hash,
        plan_hash=plan.plan_hash,
        plan=plan.describe() | {"cells_per_arm": dict(counts)} | dict(design or {}),
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
    stop: Callable[[], bool] | None,
) -> Thoughts:
    """The clean thoughts: those that the run keeps, or new ones."""
    if path is not None and path.exists():
        return Thoughts.load(path, identity=model.identity, problem_hash=problems.content_hash)
    return collect_thoughts(
        model, problems, batch_size=batch_size, max_new_tokens=max_new_tokens, progress=progress, stop=stop
    )


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


def _rows(result: RolloutResult, rows: Sequence[int]) -> RolloutResult:
    """These rows of a result, in this order; a row may be asked for twice."""
    index = torch.tensor(rows, dtype=torch.long)
    return replace(
        result,
        answers=result.answers.at(index),
        edit_norm=result.edit_norm[index],
        edit_cosine=result.edit_cosine[index],
        scores=None if result.scores is None else result.scores.at(index),
    )


def _row(model: LatentReasoner, cell: Cell, at: int, thoughts: Thoughts, draft: Draft) -> Row:
    donor_pred = None if cell.donor is None else thoughts.pred[cell.donor]
    tail: tuple[int, ...] = ()
    if donor_pred is not None and draft.number_at is not None:
        tail = number_tail(model, thoughts.token_ids[cell.host], draft.number_at, donor_pred)
    return Row(
        problem=at,
        actions=schedule(cell.arm, model.num_latents),
        op=cell.arm.op or OPS.get(cell.arm.method),
        host=cell.host,
        donor=cell.donor,
        key=cell.key,
        donor_tail=tail,
    )


def _unit_name(cells: Sequence[Cell]) -> str:
    """A pack's name: a hash of what its records are known by."""
    names = sorted(f"{cell.key} {cell.stratum or ''}" for cell in cells)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:20]
