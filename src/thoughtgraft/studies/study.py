"""What a study is: which question it asks of which cells, how they are read, and how it is carried out from a door.

A study is one folder of this one, and adding a folder adds the study. Its `__init__.py` says in one line what it asks
(the docstring: the help of `thoughtgraft run`) and where its class is: `STUDY = "design:Counting"`. The class, in
`design.py`, names its `Options` (see `studies/options.py`; the command line is generated from them) and says

    draw(options, door)              what is asked, and everything that can be refused without a model (no torch)
    design(model, options, drawn)    the `Design`: problems, a plan or states to keep, what run.json says of both
    finish(model, design, run)       what still needs the model when the cells are done (default: nothing)
    analyse(run)                     the estimates, from the records alone (no torch)
    report(run, analysis)            the pages and tables, written into the run's folder (no torch)

and, where there is more to say, `rehearse` (a dry run), `group` (for trackers), `stored` (where an analysis takes
minutes) and `tell` (the terminal's last words). `carry_out` runs these in order; a study of several runs, or of none,
writes its own, and keeps what it was asked in `study.json` (`studies.run.Runs`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.executors import check_engine, make_executor
from thoughtgraft.errors import AnalysisError, RunError
from thoughtgraft.studies.options import EngineOptions, RunOptions
from thoughtgraft.studies.options import Options as AnyOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thoughtgraft.engine.executors import Executor
    from thoughtgraft.engine.features import Keep
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.records.certificate import Certificate
    from thoughtgraft.report.render import ReportPaths
    from thoughtgraft.studies.run import Run
    from thoughtgraft.tasks.problem import ProblemSet

Tone = Literal["plain", "good", "warn", "bad"]


class Said:
    """Who is told what a study does. This one keeps silent, as Python's door does; the command line has its own."""

    def line(self, text: str, tone: Tone = "plain") -> None:
        """A sentence on its way."""

    def note(self, text: str) -> None:
        """What people should know beside the results: an assumption, a warning."""

    def show(self, found: Any) -> None:
        """A table of results, as rich prints them."""

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """Say that something takes a while, as long as it does."""
        return nullcontext()


@dataclass(frozen=True)
class Door:
    """From where a study is carried out, and into which folder.

    Attributes:
        out: The run's folder.
        said: Who is told.
        progress: Show progress bars.
        command: How it was asked for, which run.json keeps.
        rehearsal: Say what would be run, and stop.
        model: The model, where the caller has it at hand; None loads the one that the options name.
        problems: The problems, likewise.
        executor: Where the cells run, likewise.
        identity: What the caller calls the edits of the model at hand.
    """

    out: Path
    said: Said = field(default_factory=Said)
    progress: bool = True
    command: str = ""
    rehearsal: bool = False
    model: LatentReasoner | None = None
    problems: ProblemSet | None = None
    executor: Executor | None = None
    identity: str | None = None

    def asked(self, problems: str) -> str | ProblemSet:
        """The problems at hand, or the name of those that the options say: what `load_problems` takes."""
        return problems if self.problems is None else self.problems


@dataclass(frozen=True)
class Design:
    """What a study runs, ready to start.

    Attributes:
        problems: Hosts and donors.
        work: The cells to generate, or the states to keep.
        facts: What run.json says of the design beside the plan; not part of the plan's hash.
        rule: The decision rule as text, fixed before the run; None where no rule judges it.
        lines: What is said of it before it starts.
        kept: What the study needs of its making when the cells are done.
    """

    problems: ProblemSet
    work: Plan | Keep
    facts: Mapping[str, Any] = field(default_factory=dict)
    rule: str | None = None
    lines: Sequence[str] = ()
    kept: Any = None

    @property
    def plan(self) -> Plan:
        """The cells to generate."""
        if not isinstance(self.work, Plan):
            raise TypeError("this design keeps states and generates no cells")
        return self.work


Asked = TypeVar("Asked", bound=AnyOptions)
Drawn = TypeVar("Drawn")
Analysis = TypeVar("Analysis")


class Study(ABC, Generic[Asked, Drawn, Analysis]):
    """A question, the runs that answer it, and what is made of them.

    Attributes:
        name: What it is called: in `run_study`, on the command line, in run.json, in this folder.
        Options: What it can be asked.
        ruled: Whether the decision rule judges it, so that its records can be judged by another version.
        where: Why its analysis can only be made where it is carried out; empty where it can be made anew anywhere.
        seeds_its_analysis: Whether the analysis resamples by the seed that the study was asked with; else by 0.
    """

    name: ClassVar[str]
    Options: ClassVar[type[AnyOptions]]
    ruled: ClassVar[bool] = True
    where: ClassVar[str] = ""
    seeds_its_analysis: ClassVar[bool] = False

    def check(self, options: Asked, door: Door) -> None:
        """Refuse a folder in which nothing can be begun or continued.

        Raises:
            RunError: It holds other things, or cannot be written.
        """
        from thoughtgraft.records.store import check_folder

        check_folder(door.out)

    @abstractmethod
    def draw(self, options: Asked, door: Door) -> Drawn:
        """What is asked, and whatever can be refused before a model is loaded. Imports no torch."""

    @abstractmethod
    def design(self, model: LatentReasoner, options: Asked, drawn: Drawn) -> Design:
        """What is run of it with this model."""

    def options(self, stored: Mapping[str, Any]) -> AnyOptions:
        """What a run was asked, from its run.json."""
        return self.Options.of_stored(stored)

    def finish(self, model: LatentReasoner, design: Design, run: Run) -> None:
        """Make and store what still needs the model when the cells are done."""
        return

    @abstractmethod
    def analyse(self, run: Run) -> Analysis:
        """The estimates and verdicts, from what lies in the folder. Imports no torch."""

    def stored(self, run: Run) -> Analysis:
        """The analysis that lies in the folder, where making it takes minutes; else it is made anew."""
        return self.analyse(run)

    def seed(self, options: AnyOptions | None) -> int:
        """Seeds the analysis of a run that was asked so, unless another seed is asked for."""
        return options.seed if options is not None and self.seeds_its_analysis else 0

    @abstractmethod
    def report(self, run: Run, analysis: Analysis, *, force: bool = False) -> ReportPaths:
        """Write the pages. Imports no torch.

        Args:
            run: The run.
            analysis: What `analyse` found.
            force: State effects although a check or a gate failed; every page then says so.
        """

    def tell(self, run: Run, analysis: Analysis, said: Said) -> None:
        """Say what was found."""
        return

    def rehearse(self, model: LatentReasoner, options: Asked, drawn: Drawn, design: Design, door: Door) -> None:
        """Say what would be run; the folder is not made."""
        for line in design.lines:
            door.said.line(line)

    def figure(self, run: Run, name: str, *, force: bool = False) -> Figure:
        """A figure of the report by name.

        Raises:
            AnalysisError: There is no such figure, or this run cannot have it, and why.
        """
        raise AnalysisError(f"a study of {self.name} has no figures by name", fix="its report shows those that it has")

    def group(self, options: Asked) -> str:
        """What trackers call runs of one kind, such as the preset."""
        return self.name

    def model(self, options: Asked, drawn: Drawn, door: Door) -> LatentReasoner:
        """The model, as the options say, or as the caller has it at hand.

        Raises:
            ModelError: It is fed no thought.
        """
        from thoughtgraft.models.reasoner import require_thoughts

        found = door.model or open_model(options, door.said)
        require_thoughts(found)
        return found

    def carry_out(self, options: Asked, door: Door) -> None:
        """Draw, verify, run into the folder or continue what is there, analyse and report."""
        from thoughtgraft.studies.run import Reading, Run

        if isinstance(options, EngineOptions):
            check_engine(**options.workplace)
        drawn = self.draw(options, door)

        # What needs torch comes after everything that can be refused without it.
        from thoughtgraft.readouts.vocabulary import warn_of_unseen
        from thoughtgraft.tracking.tracking import open_tracking

        executor = door.executor or executor_of(options)
        tracker = options.tracker if isinstance(options, RunOptions) else "none"
        tracking = open_tracking(tracker, door.out, study=self.name, group=self.group(options))
        model = self.model(options, drawn, door)
        design = self.design(model, options, drawn)
        if warning := warn_of_unseen(model, design.problems):
            door.said.note(f"warning: {warning}")
        if door.rehearsal:
            self.rehearse(model, options, drawn, design, door)
            return
        with tracking:
            begun = start(self.name, model, design, options, door)
            make(model, design, replace(begun, executor=executor, watch=tracking.watch), door)
            run = Run.open(door.out, self, Reading(options=options, progress=door.progress))
            self.finish(model, design, run)
            self.conclude(run, door.said)

    def conclude(self, run: Run, said: Said) -> None:
        """Analyse a run, write its pages, and say what was found."""
        with self.waiting(said):
            analysis = self.analyse(run)
            paths = self.report(run, analysis)
        self.tell(run, analysis, said)
        said.line(f"\nThe report: {paths.page.resolve()}")

    def waiting(self, said: Said) -> AbstractContextManager[Any]:
        """What is shown while a run is analysed."""
        return said.busy("analysing and drawing")


@dataclass(frozen=True)
class Start:
    """How a run is started, beside what it runs.

    Attributes:
        study: What it is called in run.json.
        options: As asked.
        certificate: What the checks found, where they were made.
        executor: Where its cells run; None is this process.
        watch: Called now and then while its folder grows.
        part: It is one of a study's several runs, whose folder says what was asked.
    """

    study: str
    options: AnyOptions
    certificate: Certificate | None = None
    executor: Executor | None = None
    watch: Callable[[], None] | None = None
    part: bool = False


_OF_LOADING = ("base", "tokenizer", "protocol", "device", "dtype", "num_latents", "lora_alpha", "prompt_suffix")


def open_model(options: AnyOptions, said: Said, **known: Any) -> LatentReasoner:
    """Load the model that the options name, and say what was passed over and what was taken for granted.

    Args:
        options: Where they lack an option of loading, `load_model` has its default.
        said: Who is told.
        known: What is known otherwise, in the place of options: `model`, and options of `load_model`.
    """
    from thoughtgraft.models.load import load_model

    names = [name for name in ("model", *_OF_LOADING) if name in type(options).model_fields]
    given = {name: getattr(options, name) for name in names} | known
    model = load_model(given.pop("model"), **given)
    tell_model(model, said)
    return model


def tell_model(model: LatentReasoner, said: Said) -> None:
    """Say of a loaded model what was passed over, and what was taken for granted since no file or option says it."""
    for note in model.read[1:]:  # which files, where they are the only ones, is no news
        said.note(f"note: {note}")
    for assumption in model.assumptions:
        said.note(f"assumed: {assumption}")


def executor_of(options: AnyOptions) -> Executor | None:
    """Where the cells run by a study's options; None where it has none for that."""
    return make_executor(**options.workplace) if isinstance(options, EngineOptions) else None


def start(study: str, model: LatentReasoner, design: Design, options: AnyOptions, door: Door) -> Start:
    """Say what the design is and what is wrong with it, and certify the run.

    Raises:
        RunError, ModelError, PlanError: As `certify`.
    """
    if model.protocol.flaw:
        door.said.line(f"protocol {model.protocol.name}: {model.protocol.flaw}")
    for line in design.lines:
        door.said.line(line)
    plan = design.work if isinstance(design.work, Plan) else None
    how = options.certify if isinstance(options, RunOptions) else "auto"
    return Start(study, options, certify(model, design.problems, plan, door.out, how, door.said))


def certify(
    model: LatentReasoner, problems: ProblemSet, plan: Plan | None, out: Path, how: str, said: Said
) -> Certificate | None:
    """The certificate that a run still needs, told; a run that could state no effect is not begun.

    Raises:
        RunError: The certificate failed under the official protocol. The others are there to replay what went wrong.
        PlanError: There is no such way to certify.
        ModelError: One of the problems, checked or not, does not fit the model's context.
    """
    from thoughtgraft.engine.verify.suite import certificate_for

    certificate = certificate_for(model, problems, out, how, plan)
    if certificate is None:
        return None
    tell_certificate(certificate, said)
    if not certificate.passed and model.protocol.name == "official":
        raise RunError(
            "the certificate failed, so a run could state no effect",
            got=", ".join(certificate.failed),
            fix="repair the cause; --certify off runs all the same, and every page of the report says so",
        )
    return certificate


def tell_certificate(certificate: Certificate, said: Said) -> None:
    """Say a certificate's outcome, its failed checks, and its notes."""
    for i, line in enumerate(certificate.lines()):
        said.line(line, "plain" if i > len(certificate.failed) else "good" if certificate.passed else "bad")


def make(model: LatentReasoner, design: Design, start: Start, door: Door) -> None:
    """Generate the design's cells, or keep its states, in the run's folder; what is there already stays."""
    from thoughtgraft.engine.features import run_features
    from thoughtgraft.engine.run import run
    from thoughtgraft.records.spec import without_home
    from thoughtgraft.signals import current

    options = start.options
    asked = options if isinstance(options, RunOptions) else RunOptions()
    facts: dict[str, Any] = {"command": without_home(door.command), "certify": asked.certify}
    if start.executor is not None:
        facts["engine"] = start.executor.describe()
    setup: dict[str, Any] = {
        "study": start.study,
        "options": None if start.part else options.stored(),
        "design": design.facts,
        "certificate": None if start.certificate is None else start.certificate.to_json(),
        "beside": asked.beside,
        "facts": facts,
    }
    how: dict[str, Any] = {"batch_size": options.batch_size, "max_new_tokens": asked.max_new_tokens}
    how["progress"] = door.progress
    if not isinstance(design.work, Plan):
        run_features(model, design.problems, design.work, door.out, **how, **setup)
        return
    with current().held():
        setup |= {"rule": design.rule, "executor": start.executor, "watch": start.watch, "stop": current().asked}
        run(model, design.problems, design.work, door.out, **how, **setup)
