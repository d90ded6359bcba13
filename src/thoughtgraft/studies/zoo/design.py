"""The zoo: what it can be asked, and what is measured of each model and kept.

A `Run` of it is a `Runs`. Its parts, by the models' folder names, are the resampling runs of those models that are fed
something, below `runs/`; its spec and records are the first one's, and a zoo of models without thoughts has none. What
else is measured of each model lies below `measured/`, so that the page can be made again without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from thoughtgraft.edits.donors import check_donors
from thoughtgraft.studies import checks
from thoughtgraft.studies.options import Flags, Problems, RunOptions
from thoughtgraft.studies.options import Options as AnyOptions
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.study import Design, Door, Start, Study, make, open_model
from thoughtgraft.studies.zoo.cards import display_names, folder_names

if TYPE_CHECKING:
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.records.certificate import Certificate
    from thoughtgraft.report.render import ReportPaths
    from thoughtgraft.studies.run import Run
    from thoughtgraft.studies.sample import Sample
    from thoughtgraft.studies.zoo.analysis import ZooResult
    from thoughtgraft.studies.zoo.evidence import Measured
    from thoughtgraft.tasks.problem import ProblemSet


class ZooOptions(AnyOptions):
    """What the study can be asked."""

    models: Annotated[
        tuple[str, ...],
        BeforeValidator(checks.carded),
        Flags(),
        Field(description="Embedded models or folders with a card; default: the embedded five."),
    ] = ()
    problems: Problems = "arithmetic:test"
    limit: Annotated[int | None, Field(ge=10, description="Only the first so many problems.")] = None
    hosts: Annotated[int, Field(ge=2, description="Problems of the resampling study.")] = 100
    donors: Annotated[int, Field(ge=1, description="Donors of each of them.")] = 10

    @property
    def names(self) -> tuple[str, ...]:
        """The models."""
        from thoughtgraft.models.names import EMBEDDED

        return self.models or tuple(EMBEDDED)


@dataclass(frozen=True)
class Drawn:
    """The problems of a zoo: those for accuracies, lens and probes, and those of the resampling study."""

    asked: ProblemSet
    sample: Sample


class Zoo(Study[ZooOptions, Drawn, "ZooResult"]):
    """Put models that think beside controls of the same base, data, steps and seed that do not.

    Every model answers the same problems: accuracies with paired tests, fewer and spoiled thoughts, the resampling
    study, lens and probes, and a page that says which findings the controls show too.
    """

    name = "zoo"
    seeds_its_analysis = True
    Options = ZooOptions
    ruled = False

    def check(self, options: ZooOptions, door: Door) -> None:
        """Each model's run has a folder of its own."""
        from thoughtgraft.studies.zoo.evidence import RUNS

        checks.writable_folder(door.out)
        for place in folder_names(options.names):
            super().check(options, replace(door, out=door.out / RUNS / place))

    def draw(self, options: ZooOptions, door: Door) -> Drawn:
        """The problems in their order, and hosts from their seeded permutation."""
        from thoughtgraft.studies.sample import draw_sample
        from thoughtgraft.tasks.load import load_problems

        check_donors(options.donors, options.hosts)
        problems = door.asked(options.problems)
        sample = draw_sample(problems, first=0, n=options.hosts, seed=options.seed)
        return Drawn(load_problems(problems, n=options.limit), sample)

    def design(self, model: LatentReasoner, options: ZooOptions, drawn: Drawn) -> Design:
        """The core of the resampling study with one model."""
        from thoughtgraft.readouts.vocabulary import largest_number
        from thoughtgraft.studies.resampling.design import resampling_plan

        plan = resampling_plan(model.num_latents, options.donors, options.seed, full=False)
        facts: dict[str, Any] = {"preset": "zoo", "available_hosts": drawn.sample.left}
        facts["largest_number"] = largest_number(model)
        return Design(drawn.sample.problems, plan, facts)

    def carry_out(self, options: ZooOptions, door: Door) -> None:
        """One model after another, then all of them side by side."""
        drawn, names = self.draw(options, door), options.names
        hosts = drawn.sample.problems
        facts = {
            "problems": f"{len(drawn.asked):,} of {drawn.asked.name}",
            "resampling": f"{len(hosts)} hosts x {options.donors} donors of {hosts.name}",
            "seed": str(options.seed),
        }
        if door.rehearsal:
            door.said.line(f"{', '.join(display_names(names))}: {facts['problems']}; {facts['resampling']}")
            return
        from thoughtgraft.records.spec import StudySpec
        from thoughtgraft.studies.zoo.evidence import RUNS, AskedZoo

        places = folder_names(names)
        runs = []
        for name, short, place in zip(names, display_names(names), places, strict=True):
            door.said.line(short)
            if self.measure(name, short, options, drawn, replace(door, out=door.out / place)):
                runs.append(f"{RUNS}/{place}")
        AskedZoo(places, facts).write(door.out, drawn.asked)
        StudySpec(study=self.name, options=options.stored(), parts=tuple(runs)).write(door.out)
        self.conclude(load_run(door.out), door.said)

    def measure(self, name: str, short: str, options: ZooOptions, drawn: Drawn, door: Door) -> bool:
        """Measure one model and keep what was found.

        Args:
            name: The model.
            short: What it is called.
            options: As asked.
            drawn: The problems.
            door: The study's, with the model's own name as the last part of its folder.

        Returns:
            Whether there is a run of it.
        """
        from thoughtgraft.models.names import model_folder
        from thoughtgraft.studies.zoo.evidence import MEASURED, RUNS
        from thoughtgraft.training.card import read_card

        card = read_card(model_folder(name))
        model = open_model(options, door.said, model=name)
        model.name = short
        certificate = certify(model, drawn.asked)
        found = measured(model, card, drawn.asked, certificate, options, door.progress)
        found.write(door.out.parent / MEASURED / door.out.name)
        if not model.num_latents:
            return False
        asked = RunOptions.of({"seed": options.seed, "batch_size": options.batch_size})
        begun = Start("resampling", asked, certificate, door.executor, part=True)
        place = replace(door, out=door.out.parent / RUNS / door.out.name)
        make(model, self.design(model, options, drawn), begun, place)
        return True

    def analyse(self, run: Run) -> ZooResult:
        """Accuracies, pairs, effects, lens, probes, and which findings the control shows too."""
        from thoughtgraft.records.shards import read_frame
        from thoughtgraft.records.spec import PROBLEMS_FILE
        from thoughtgraft.studies.zoo.analysis import analyse_zoo
        from thoughtgraft.studies.zoo.evidence import read_models
        from thoughtgraft.tasks.files import problems_from_table

        labels = read_frame(run.path / PROBLEMS_FILE)
        problems = problems_from_table(labels, "the zoo's problems")
        labels["n_steps"] = labels["n_steps"].where(labels["n_steps"] > 0, None)
        return analyse_zoo(read_models(run), list(problems), labels, run.seed)

    def report(self, run: Run, analysis: ZooResult, *, force: bool = False) -> ReportPaths:
        """The page, its figures and tables; it says which certificates failed, and nothing is forced."""
        from thoughtgraft.studies.zoo.evidence import AskedZoo
        from thoughtgraft.studies.zoo.report import write_zoo

        return write_zoo(analysis, AskedZoo.read(run.path).facts, run.path)


def certify(model: LatentReasoner, problems: ProblemSet) -> Certificate | None:
    """The model's certificate; None where its kind has none."""
    from thoughtgraft.engine.verify.suite import verify
    from thoughtgraft.errors import PlanError

    try:
        return verify(model, problems[:6])
    except PlanError:
        return None


def measured(
    model: LatentReasoner,
    card: Mapping[str, Any],
    problems: ProblemSet,
    certificate: Certificate | None,
    options: ZooOptions,
    progress: bool,
) -> Measured:
    """All that is measured of one model but its resampling run: answers, lens, states."""
    from thoughtgraft.engine.evaluate import evaluate
    from thoughtgraft.readouts.readout import decode_thoughts
    from thoughtgraft.studies.zoo.evidence import Measured

    how: dict[str, Any] = {"batch_size": options.batch_size, "seed": options.seed, "progress": progress}
    found = evaluate(model, problems, **how)
    return Measured(
        name=model.name,
        method=model.family,
        num_latents=model.num_latents,
        card={**card, "weight_hash": model.weight_hash, "assumed": model.origin["assumed"]},
        main=found.main,
        correct=found.answers().reset_index(),
        certificate=None if certificate is None else certificate.to_json(),
        records=None,
        decoded=decode_thoughts(model, found.thoughts, top=1) if model.num_latents else None,
        states=found.thoughts.hidden.float().numpy(),
        why_no_slots="" if model.num_latents else model.without_thoughts,
    )
