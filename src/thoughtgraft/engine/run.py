"""Run a plan: think once, expand to cells, run what is not stored yet, store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from thoughtgraft.arguments import answers_for_calls, need, path_of, with_fields_of
from thoughtgraft.edits.plan import Cell, Plan
from thoughtgraft.engine.cells import Finished, Work, try_edits
from thoughtgraft.engine.collect import answer_identity, answer_limit, encode, think_clean_runs
from thoughtgraft.engine.executors import LocalExecutor
from thoughtgraft.engine.rows import check_sites
from thoughtgraft.engine.setup import Setup, make_spec, roles, tell_looks, with_looks
from thoughtgraft.errors import PlanError, RunError
from thoughtgraft.files import write_atomic
from thoughtgraft.models.live import admitted
from thoughtgraft.models.reasoner import LatentReasoner, as_model
from thoughtgraft.records.schema import rows_to_table
from thoughtgraft.records.shards import read_frame, table_to_frame
from thoughtgraft.records.spec import CERTIFICATE_FILE, DECISION_FILE, PROBLEMS_FILE, SPEC_FILE, THOUGHTS_FILE
from thoughtgraft.records.store import RunStore, check_folder
from thoughtgraft.tasks.files import problem_table
from thoughtgraft.tasks.load import as_problems
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd


@answers_for_calls(PlanError)
@with_fields_of(Setup)
def run(
    model: LatentReasoner,
    problems: ProblemSet,
    plan: Plan,
    out: str | Path | None = None,
    *,
    batch_size: int | str = "auto",
    max_new_tokens: int | None = None,
    progress: bool = True,
    **setup: Any,
) -> pd.DataFrame:
    """Run every cell of a plan and return its records.

    Args:
        model: The model.
        problems: Hosts and donors.
        plan: What to run.
        out: The run's folder; the same call continues it. None keeps everything in memory.
        batch_size: Rows at once, or `auto`; it does not change results.
        max_new_tokens: The longest answer; None takes the model's.
        progress: Show progress bars.
        setup: What else can be said, each by its name: `identity` of an edited model, `thoughts` that were collected
            before, `keep_logits`, `executor`, `study`, `rule` ... (all of `engine.setup.Setup`).

    Returns:
        One row per cell in the plan's order, with the columns of `records.RECORD_SCHEMA`; a generation whose donor
        serves two strata has a row for each. A cell whose edit fails on it (it raises, gives NaN or infinity, or needs
        a mean of others where there are none) has `error` and no outcome; so has one whose edit makes the model
        overflow. A continued run does not run it again.

    Raises:
        PlanError: A slot, donor or host that does not exist, no problems, an edit of your own that fails wherever it is
            tried, or one without an identity where its cells are stored.
        RunError: The folder holds another run or cannot be written, or `thoughts` are of another model or set.
        ModelError: A question does not fit the model's context, or the model is not as it was loaded and no name is
            given.
    """
    model, problems = as_model(model), as_problems(problems)
    fix = "Plan([Arm('baseline'), Arm('swap', [2])], n_donors=5), for example"
    plan = need(plan, Plan, "the plan", PlanError, expected="a Plan", fix=fix)
    folder = None if out is None else path_of(out, "the run's folder")
    if folder is not None:
        plan.require_identities()
        check_folder(folder)
    limit, how = answer_limit(model, max_new_tokens), Setup(**setup)
    if len(problems) == 0:
        raise PlanError("there are no problems to run", fix="load at least one problem")
    if how.keep_logits and folder is not None:
        raise PlanError("logits are not stored in run folders", fix="use keep_logits=True without out")
    model = admitted(model, how.identity)
    check_sites(model, plan.arms)
    return _Job(model, problems, plan, folder, batch_size, limit, progress, how).run()


@dataclass
class _Job:
    """One call of `run`, its arguments checked.

    Attributes:
        kept: The rows of cells that are kept in memory.
        logits: The first answer token's, by cell.
    """

    model: LatentReasoner
    problems: ProblemSet
    plan: Plan
    folder: Path | None
    batch_size: int | str
    limit: int
    progress: bool
    how: Setup
    kept: list[Mapping[str, Any]] = field(default_factory=list)
    logits: dict[str, Any] = field(default_factory=dict)

    def run(self) -> pd.DataFrame:
        """The records of all cells, in the plan's order."""
        model, problems, plan, folder = self.model, self.problems, self.plan, self.folder
        made_by = answer_identity(model, self.limit, problems.grader)
        prompts = encode(model, problems)
        pads = [p.pad for p in prompts] if model.protocol.pads_visible else None
        if self.how.thoughts is not None:
            self.how.thoughts.require(made_by, problems.content_hash)
        # Which problems are hosts may hang on the clean answers; then they come before the plan.
        before = self.think(made_by) if plan.only_correct else None
        cells = plan.cells(problems, made_by, pads, None if before is None else before.correct)
        if folder is None or not (folder / SPEC_FILE).exists():  # else they worked when the run began
            try_edits(model, problems, prompts, cells)
        spec = make_spec(model, problems, plan, cells, self.limit, self.how)
        if folder is not None:
            spec = with_looks(spec, folder, *roles(problems, cells), self.how.beside)
        store = None if folder is None else RunStore.create(folder, spec)
        with store or nullcontext():
            if store:
                if self.progress:
                    tell_looks(store.spec)
                store.heartbeat(0, len(problems), "clean thoughts")
            clean = self.think(made_by) if before is None else before
            if store:
                _keep(store, clean, problems, self.how)
                if self.how.watch:
                    self.how.watch()
            work = Work(
                problems=problems,
                prompts=prompts,
                thoughts=clean,
                run_id=spec.run_id,
                seed=plan.seed,
                batch_size=self.batch_size,
                max_new_tokens=self.limit,
                keep_logits=self.how.keep_logits,
            )
            self.generate(work, cells, store)
            frame = store.frame() if store else table_to_frame(rows_to_table(self.kept))
        frame = _in_order(frame, cells)
        if self.how.keep_logits:
            frame["first_logits"] = frame["cell"].map(self.logits)
        return frame

    def think(self, made_by: Mapping[str, Any]) -> Thoughts:
        """The clean run: as it was given, as the folder holds it, or made now."""
        file = None if self.folder is None else self.folder / THOUGHTS_FILE
        if self.how.thoughts is None and file is not None and file.exists():
            return Thoughts.load(file, identity=made_by, problem_hash=self.problems.content_hash)
        return self.how.thoughts or think_clean_runs(
            self.model,
            self.problems,
            self.limit,
            batch_size=self.batch_size,
            progress=self.progress,
            stop=self.how.stop,
        )

    def generate(self, work: Work, cells: Sequence[Cell], store: RunStore | None) -> None:
        """Run every cell that is not stored, and store or keep what comes.

        Raises:
            KeyboardInterrupt: `stop` said so; everything that came before is stored.
        """
        stored = store.stored_cells() if store else set()
        done = sum(cell.record in stored for cell in cells)
        bar = tqdm(total=len(cells), initial=done, desc="interventions", unit="cell", disable=not self.progress)
        parts = (self.how.executor or LocalExecutor()).run(self.model, work, cells, stored)
        with bar, closing(parts):
            for part in chain([Finished([], [])], parts):
                done += len(part.cells)
                if store:
                    if part.cells:
                        store.write_unit(_unit_name(part.cells), part.rows)
                    store.heartbeat(done, len(cells), "interventions")
                else:
                    self.kept += part.rows
                self.keep_logits(part)
                bar.update(len(part.cells))
                if self.how.watch and store:
                    self.how.watch()
                if self.how.stop is not None and self.how.stop():
                    raise KeyboardInterrupt
        if store:
            store.heartbeat(len(cells), len(cells), "finished")

    def keep_logits(self, part: Finished) -> None:
        """Keep the logits of what is finished, of failed cells none."""
        if part.logits is None:
            return
        wide = torch.promote_types(part.logits.dtype, torch.float32)
        numbers = zip(part.cells, part.rows, part.logits.to(wide).numpy(), strict=True)
        self.logits.update({cell.key: found for cell, row, found in numbers if row.get("error") is None})


def _in_order(frame: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
    """The records in the order of the plan's cells, whatever the order in which they came."""
    place = {record: i for i, record in enumerate(dict.fromkeys(cell.record for cell in cells))}
    strata = frame["donor_stratum"].astype(object).where(frame["donor_stratum"].notna(), None)
    order = sorted(range(len(frame)), key=[place[r] for r in zip(frame["cell"], strata, strict=True)].__getitem__)
    return frame.iloc[order].reset_index(drop=True)


def _keep(store: RunStore, thoughts: Thoughts, problems: ProblemSet, how: Setup) -> None:
    """Put what the cells rest on into the run's folder, before the first of them."""
    if not (store.path / THOUGHTS_FILE).exists():
        thoughts.save(store.path / THOUGHTS_FILE)
    if not (store.path / PROBLEMS_FILE).exists():
        store.write_table(PROBLEMS_FILE, problem_table(problems))
    elif (stored := list(read_frame(store.path / PROBLEMS_FILE)["id"])) != [problem.id for problem in problems]:
        now, then = next(pair for pair in zip((p.id for p in problems), stored, strict=False) if pair[0] != pair[1])
        raise RunError(
            f"the problems of {store.path} have other ids there, so that one problem would count as two",
            got=repr(now),
            expected=repr(then),
            fix="give the file of problems its old ids, or use --out another folder",
        )
    _keep_rule(store, how.rule)
    if how.certificate is not None:
        store.write_json(CERTIFICATE_FILE, how.certificate)


def _keep_rule(store: RunStore, rule: str | None) -> None:
    """Write the decision rule, or find that it is the one that the run began with."""
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


def _unit_name(cells: Sequence[Cell]) -> str:
    """A pack's name: a hash of what its records are known by."""
    names = sorted(f"{cell.key} {cell.stratum or ''}" for cell in cells)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:20]
