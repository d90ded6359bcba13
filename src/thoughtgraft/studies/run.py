"""`Run`: the one reader of a run folder, its tables as DataFrames; without torch until thoughts are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pandas as pd

from thoughtgraft.arguments import seed_of, shown
from thoughtgraft.effects.comparisons import agreement_table, contrast_table, dose_table, mediation_table
from thoughtgraft.effects.counterfactual import counterfactual_table
from thoughtgraft.effects.decision import Decision, PilotVerdict, Tables, decide
from thoughtgraft.effects.frame import Frame, build_frame
from thoughtgraft.effects.gates import FAIL, VERSION, Basis, Known, basis_of
from thoughtgraft.effects.per_problem import PerProblem, per_problem
from thoughtgraft.effects.positions import position_table
from thoughtgraft.errors import RunError
from thoughtgraft.files import DAMAGE_FIX
from thoughtgraft.records.certificate import Certificate, read_certificate
from thoughtgraft.records.export import load_records
from thoughtgraft.records.shards import AGAIN_FIX, read_frame
from thoughtgraft.records.spec import (
    DECISION_FILE,
    DECODED_FILE,
    FEATURES_FOLDER,
    PROBLEMS_FILE,
    STARTS_FILE,
    THOUGHTS_FILE,
    UNTRAINED_FOLDER,
    RunSpec,
)
from thoughtgraft.records.states import States, load_states
from thoughtgraft.records.store import RunStore
from thoughtgraft.report.document import shorten
from thoughtgraft.stats.verdicts import unjudged
from thoughtgraft.tasks.files import problems_from_table
from thoughtgraft.tasks.grading import NUMBER, Grader, grader
from thoughtgraft.tasks.problem import ProblemSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thoughtgraft.report.render import ReportPaths
    from thoughtgraft.studies.options import Options
    from thoughtgraft.thoughts import Thoughts


ANALYSIS_FILE = "analysis/decision.json"
OLD_DECISION_FILE = "analysis/decision-before.json"
"""The verdicts of an older rule, kept where the records are judged anew."""


class Reader(Protocol):
    """The part of a study that reads its runs (`studies.study.Study`)."""

    name: ClassVar[str]
    where: ClassVar[str]

    def conclude(self, run: Run, said: Any) -> None:
        """Analyse anew, report and tell."""

    def analyse(self, run: Run) -> Any:
        """The estimates and verdicts."""

    def stored(self, run: Run) -> Any:
        """The same where they lie in the folder."""

    def seed(self, options: Options | None) -> int:
        """Seeds the analysis unless another seed is asked for."""

    def report(self, run: Run, analysis: Any, *, force: bool = False) -> ReportPaths:
        """Write the pages."""

    def figure(self, run: Run, name: str, *, force: bool = False) -> Figure:
        """A figure by name."""

    def options(self, stored: Mapping[str, Any]) -> Options:
        """The options of run.json, typed."""


@dataclass(frozen=True)
class Reading:
    """How a run is read, where its run.json does not say it.

    Attributes:
        seed: Of the analysis; None takes the study's own.
        rule: The version of the rule to judge by; None takes the run's own.
        options: What is asked now; None takes what run.json says.
        progress: Show bars while an analysis takes minutes.
    """

    seed: int | None = None
    rule: int | None = None
    options: Options | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.seed is not None:
            seed_of(self.seed, RunError)


class Run:
    """A run, as it was when its records were first asked for. Each table is computed when asked for, then kept.

    The tables are those of `thoughtgraft.effects`: their functions document the columns. Shares are fractions,
    impacts percentage points, log-probabilities nats, slots 0-based.

    Attributes:
        path: The folder.
        study: What analyses and reports it.
        reading: How it is read, where its run.json does not say it.
    """

    def __init__(self, store: RunStore | None, path: Path, study: Reader, reading: Reading) -> None:
        self._opened, self.path, self.study, self.reading = store, path, study, reading

    @classmethod
    def open(cls, path: str | Path, study: Reader, reading: Reading | None = None) -> Run:
        """Open a folder; `load_run` does, and finds the study by its name.

        Raises:
            RunError: The folder is not a run's, or its `run.json` is damaged.
        """
        store = RunStore.open(path)
        return cls(store, store.path, study, reading or Reading())

    def __repr__(self) -> str:
        spec = self.spec
        return f"Run({str(self.path)!r}: {spec.study} of {spec.model}, {spec.n_hosts} hosts, {spec.n_cells:,} cells)"

    @property
    def store(self) -> RunStore:
        """The folder as it is written and read."""
        if self._opened is None:
            fix = "load_run of one of its parts, or of the run that it read"
            raise RunError(f"{self.path} is a study's folder and no run itself, so it has no records", fix=fix)
        return self._opened

    @property
    def spec(self) -> RunSpec:
        """What run.json says."""
        return self.store.spec

    def holds(self, name: str) -> bool:
        """Whether the folder has this file."""
        return (self.store.path / name).is_file()

    @cached_property
    def starts(self) -> tuple[Mapping[str, Any], ...]:
        """Each start of the run: when, where, with which packages."""
        found = self.store.read_json(STARTS_FILE) if self.holds(STARTS_FILE) else []
        if not isinstance(found, list) or not all(isinstance(start, dict) for start in found):
            where = self.path / STARTS_FILE
            raise RunError(f"{where} is damaged", got=shown(found), expected="a list of starts", fix=DAMAGE_FIX)
        return tuple(found)

    @property
    def started(self) -> str:
        """The day of its first start, 2026-11-28; empty where it is not known."""
        return str(self.starts[0].get("started_utc", ""))[:10] if self.starts else ""

    @property
    def missing(self) -> int:
        """Generations that the run has not made yet."""
        return max(self.spec.n_cells - len(self._records), 0)

    @cached_property
    def rows_of_problems(self) -> Mapping[str, Mapping[str, Any]]:
        """Id -> its row of the table of problems; empty where the folder does not hold them."""
        table = self.problems() if self.holds(PROBLEMS_FILE) else pd.DataFrame()
        rows = table.to_dict("records") if "id" in table else []
        return {str(row["id"]): {str(name): value for name, value in row.items()} for row in rows}

    def question(self, problem_id: str, limit: int = 400) -> str:
        """A problem's question on one line, cut off where it is long."""
        text = self.rows_of_problems.get(problem_id, {}).get("question")
        return shorten(text, limit) if isinstance(text, str) else "(its text is not in the run)"

    @property
    def options(self) -> Options | None:
        """What the study was asked; None where run.json does not say it."""
        if self.reading.options is not None:
            return self.reading.options
        return None if self.spec.options is None else self.study.options(self.spec.options)

    @property
    def seed(self) -> int:
        """Seed of every resampling of the analysis."""
        return self.study.seed(self.options) if self.reading.seed is None else self.reading.seed

    @property
    def rule(self) -> int | None:
        """The version of the rule that was asked for instead of the run's own; None for its own."""
        return self.reading.rule

    @cached_property
    def certificate(self) -> Certificate:
        """The outcome of the checks of model, protocol and engine; why there is none where there is none."""
        return read_certificate(self.store)

    def analysis(self) -> Any:
        """What the study makes of the run: estimates, tests, verdicts. Made once, or read where the study keeps it."""
        return self._analysis

    def report(self, *, force: bool = False) -> ReportPaths:
        """Write the run's pages, figures and tables anew.

        Args:
            force: State effects although a check or gate failed; every page then says so.
        """
        return self.study.report(self, self.analysis(), force=force)

    def records(self, where: str | None = None) -> pd.DataFrame:
        """One row per generation; `where` keeps some, for example `'method == "swap" and slots == "[3]"'`."""
        return self._records.copy() if where is None else load_records(self.store.path, where)

    def failed(self) -> pd.DataFrame:
        """The cells without an outcome, which are in no table: cell, arm, problem_id, donor_id and why (`error`)."""
        return pd.DataFrame(self.store.errors, columns=["cell", "arm", "problem_id", "donor_id", "error"])

    def problems(self) -> pd.DataFrame:
        """The problems: id, split, question, gold, solution, steps, n_steps, operation, template, graph.

        Raises:
            RunError: The folder does not hold them.
        """
        return read_frame(self.store.path / PROBLEMS_FILE)

    def problem_set(self) -> ProblemSet:
        """The problems with their steps, as they were asked."""
        return problems_from_table(self.problems(), self.spec.problems, self.grader)

    def kept_problems(self) -> ProblemSet | None:
        """The same; None where the folder holds none."""
        return self.problem_set() if self.holds(PROBLEMS_FILE) else None

    def positions(self) -> pd.DataFrame:
        """One row per edited arm: impact, intervals, tests, adoption, n (`analysis.position_table`)."""
        return self._judged(self._positions)

    def contrasts(self) -> pd.DataFrame:
        """Differences of impact between slots on the same pairs (`analysis.effects.contrast_table`)."""
        return contrast_table(self.frame)

    def mediation(self) -> pd.DataFrame:
        """Total, direct and indirect effects (`analysis.effects.mediation_table`)."""
        return mediation_table(self.frame)

    def dose(self) -> pd.DataFrame:
        """Accuracy against the number of edited slots (`analysis.effects.dose_table`)."""
        return dose_table(self.frame)

    def agreement(self) -> pd.DataFrame:
        """Swap against each ablation (`analysis.agreement.agreement_table`)."""
        return self._judged(self._agreement)

    def counterfactual(self) -> pd.DataFrame:
        """Adoption of step values, slot by step (`analysis.counterfactual.counterfactual_table`)."""
        self.problems()  # a folder without them is an error here
        return self._judged(self._steps)

    def per_problem(self) -> pd.DataFrame:
        """Sensitivity of each problem, shrunken, with its credible interval (`analysis.per_problem`)."""
        return self._per_problem.table.copy()

    def decision(self) -> pd.DataFrame:
        """One row per question and subject, with its verdict under the run's rule (`analysis.claims.claim_table`).

        Of a run that an older rule judged: the stored rows with that rule's words, as they are; `load_run(path,
        rule=2)` judges its records anew.
        """
        if self.basis.old_version is None:
            return self._decision.claims.copy()
        return pd.DataFrame((self.old_decision or {"claims": []})["claims"])

    def gates(self) -> pd.DataFrame:
        """One row per gate: name, statement, outcome (pass, fail, not run), figure, limit, detail."""
        return self._decision.gate_table

    def failed_gates(self) -> list[str]:
        """Names of the gates that the run fails."""
        return [gate.name for gate in self._decision.gates if gate.outcome == FAIL]

    def pilot(self) -> PilotVerdict:
        """The verdict that this run allows as a pilot: GO, NO-GO or INVALID, with the hosts needed."""
        return self._decision.pilot

    def decoded(self) -> pd.DataFrame:
        """What each clean thought decodes to: problem_id, slot, rank, token, prob (0..1).

        Raises:
            RunError: The thoughts were not decoded.
        """
        return read_frame(self.store.path / DECODED_FILE)

    def thoughts(self) -> Thoughts:
        """The clean thoughts as tensors: fed [problem, K, d] and hidden [problem, K + 1, d]. Imports torch.

        Raises:
            RunError: The file is missing or damaged.
        """
        from thoughtgraft.thoughts import Thoughts

        file = self.store.path / THOUGHTS_FILE
        if not file.is_file():
            raise RunError(f"{file} is missing", expected="a run that got as far as that", fix=AGAIN_FIX)
        return Thoughts.load(file, problem_hash=self.spec.problem_hash)

    def states(self, *, untrained: bool = False) -> States:
        """What the layers held at each latent position (`records.States`); without torch.

        Args:
            untrained: Those of the untrained model of the same shape.

        Raises:
            RunError: The run keeps none, or is unfinished.
        """
        return load_states(self.store.path, folder=UNTRAINED_FOLDER if untrained else FEATURES_FOLDER)

    def figure(self, name: str = "impact", *, force: bool = False) -> Figure:
        """A figure of the report, drawn from the records: a matplotlib Figure, which a notebook shows.

        Args:
            name: impact, agreement, mediation, adoption, dose, problems_by_slot, distribution or decoded_thoughts.
            force: Draw it although a gate failed; its foot line then says INVALID.

        Raises:
            AnalysisError: There is no such figure, this run cannot have it (and why), or a gate failed.
        """
        return self.study.figure(self, name, force=force)

    @property
    def largest_number(self) -> int | None:
        """The largest number that the model can write, if it has one."""
        return self.spec.plan.get("largest_number")

    @property
    def grader(self) -> Grader:
        """How its answers were read; runs from before there were others read numbers."""
        return grader(self.spec.task or NUMBER.name)

    @cached_property
    def frame(self) -> Frame:
        """The records as arrays, what every table is made from."""
        self.store.require_records()
        return build_frame(self._records, self.grader)

    @cached_property
    def _analysis(self) -> Any:
        return self.study.stored(self)

    @cached_property
    def basis(self) -> Basis:
        """By which rule the run is judged, and whether that was fixed before it.

        Raises:
            AnalysisError: Its rule is damaged, changed since the run began, missing, or unknown here.
        """
        text = (self.store.path / DECISION_FILE).read_text(errors="replace") if self.holds(DECISION_FILE) else None
        return basis_of(text, self.spec.decision_hash, self.rule)

    @property
    def old_decision(self) -> dict[str, Any] | None:
        """What an older rule said when the run was analysed under it; None where nothing of it is kept."""
        for name in (OLD_DECISION_FILE, ANALYSIS_FILE):
            if self.holds(name):
                found = self.store.read_json(name)
                if found["rule"]["version"] != VERSION:
                    return dict(found)
        return None

    def _judged(self, table: pd.DataFrame) -> pd.DataFrame:
        """A copy; without verdicts where an older rule's words stand in their place."""
        return table.copy() if self.basis.old_version is None else unjudged(table)

    @cached_property
    def known(self) -> Known:
        """What it is judged by beside its records."""
        return Known.of(self.certificate, self.basis.rule, self.spec.plan.get("available_hosts"))

    @cached_property
    def _steps(self) -> pd.DataFrame:
        return counterfactual_table(
            self.frame, self.kept_problems() or (), largest=self.largest_number, known=self.known
        )

    @cached_property
    def _records(self) -> pd.DataFrame:
        return self.store.frame()

    @cached_property
    def _positions(self) -> pd.DataFrame:
        return position_table(self.frame, seed=self.seed, known=self.known)

    @cached_property
    def _agreement(self) -> pd.DataFrame:
        return agreement_table(self.frame, seed=self.seed, known=self.known)

    @cached_property
    def _per_problem(self) -> PerProblem:
        return per_problem(self.frame, seed=self.seed)

    @cached_property
    def _decision(self) -> Decision:
        tables = Tables(self._positions, self._agreement, self._steps)
        return decide(self.frame, known=self.known, tables=tables, seed=self.seed)


class Runs(Run):
    """A study of several runs, such as one for each protocol or model; or of none, where it reads what lies elsewhere.

    Whatever a run says of itself (spec, records, certificate, thoughts) is said of the first part; the analysis and
    the report are of all parts together.

    Attributes:
        parts: The runs by name, each below the study's folder.
    """

    def __init__(self, path: Path, study: Reader, parts: Mapping[str, Run], reading: Reading) -> None:
        first = next(iter(parts.values()), None)
        super().__init__(None if first is None else first.store, path, study, reading)
        self.parts = parts

    def __repr__(self) -> str:
        return f"Runs({str(self.path)!r}: {self.study.name}, {', '.join(self.parts) or 'of what lies elsewhere'})"
