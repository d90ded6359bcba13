"""What is measured of each model: answers with fewer and spoiled thoughts, resampling, lens, states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.studies.zoo.analysis import Measured
    from thoughtgraft.tasks.problem import ProblemSet


@dataclass(frozen=True)
class Job:
    """What every model is asked.

    Attributes:
        asked: Problems for accuracies, lens and probes.
        hosts: Problems of the resampling study; each is a host and may donate.
        donors: Donors of each host.
        seed: Of donors.
        device: Where to run.
        batch_size: Rows at once.
    """

    asked: ProblemSet
    hosts: ProblemSet
    donors: int
    seed: int
    device: str = "auto"
    batch_size: str = "auto"


def measure_zoo(names: Sequence[str], out: Path, job: Job) -> Path:
    """Measure the models one after another and write the page, its figures and its tables; returns the page."""
    from thoughtgraft.studies.zoo.analysis import analyse_zoo
    from thoughtgraft.studies.zoo.report import write_zoo
    from thoughtgraft.tasks.files import problem_table

    console, shown = Console(), display_names(names)
    measured = []
    for name, short in zip(names, shown, strict=True):
        console.print(f"{short}", markup=False, highlight=False)
        measured.append(measure_model(name, short, job))
    labels = problem_table(job.asked)
    labels["n_steps"] = labels["n_steps"].where(labels["n_steps"] > 0, None)
    with console.status("analysing and drawing"):
        result = analyse_zoo(measured, list(job.asked), labels, job.seed)
        facts = {
            "problems": f"{len(job.asked):,} of {job.asked.name}",
            "resampling": f"{len(job.hosts)} hosts x {job.donors} donors of {job.hosts.name}",
            "seed": str(job.seed),
        }
        return write_zoo(result, facts, out)


def display_names(names: Sequence[str]) -> list[str]:
    """What models are called: the last part of a path, or all of it where that is not enough."""
    short = [Path(name).name for name in names]
    return [name if short.count(part) > 1 else part for name, part in zip(names, short, strict=True)]


def measure_model(name: str, short: str, job: Job) -> Measured:
    """Measure one model."""
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.engine.evaluate import evaluate
    from thoughtgraft.engine.run import run
    from thoughtgraft.models.names import model_folder
    from thoughtgraft.readouts.readout import decode_thoughts
    from thoughtgraft.studies.resampling.design import resampling_plan
    from thoughtgraft.studies.zoo.analysis import Measured
    from thoughtgraft.training.card import read_card

    card = read_card(model_folder(name))
    model = open_model(name, device=job.device)
    model.name = short
    found = evaluate(model, job.asked, batch_size=job.batch_size, seed=job.seed)
    records = decoded = None
    if model.num_latents:
        plan = resampling_plan(model.num_latents, job.donors, job.seed, full=False)
        records = run(model, job.hosts, plan, batch_size=job.batch_size)
        decoded = decode_thoughts(model, found.thoughts, top=1)
    return Measured(
        name=short,
        method=model.family,
        num_latents=model.num_latents,
        card=card | {"weight_hash": model.weight_hash, "assumed": model.origin["assumed"]},
        main=found.main,
        correct=found.answers().reset_index(),
        certificate=certify(model, job.asked),
        records=records,
        decoded=decoded,
        states=found.thoughts.hidden.float().numpy(),
        why_no_slots="" if model.num_latents else model.without_thoughts,
    )


def certify(model: LatentReasoner, problems: ProblemSet) -> dict[str, Any] | None:
    """The model's certificate; None where its kind has none."""
    from thoughtgraft.engine.verify.suite import verify
    from thoughtgraft.errors import PlanError

    try:
        return verify(model, problems[:6]).to_json()
    except PlanError:
        return None
