"""The drift study: what it can be asked, its plan, and a run of it under each protocol.

A `Run` of it is a `Runs`: its parts are the protocols' runs by name, each an ordinary resampling run in a folder of its
own; its spec and records are the standard's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.donors import check_donors
from thoughtgraft.edits.plan import Plan
from thoughtgraft.errors import PlanError
from thoughtgraft.studies import checks
from thoughtgraft.studies.options import (
    Base,
    Dtype,
    LoraAlpha,
    MaxNewTokens,
    Model,
    NumThoughts,
    Problems,
    PromptSuffix,
    RunOptions,
    Tokenizer,
)
from thoughtgraft.studies.options import Options as AnyOptions
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.study import Design, Door, Said, Study, make, start

if TYPE_CHECKING:
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.report.render import ReportPaths
    from thoughtgraft.studies.drift.report import Drifted
    from thoughtgraft.studies.run import Run
    from thoughtgraft.studies.sample import Sample

STANDARD = "official"
PROTOCOLS = (STANDARD, "cot-exploration-original", "cot-exploration-fixed")
"""What is compared unless said otherwise; the first is what the others are measured against."""


def drift_plan(num_latents: int, n_donors: int, seed: int) -> Plan:
    """Baseline and noop; self and swap at every slot and at all of them.

    Swap is what the procedures report. Self is the check that tells whether they report what they say: a problem's own
    thought, put back, may change nothing.

    Args:
        num_latents: Slots, K >= 1.
        n_donors: Donors of each host, D.
        seed: Seeds the donors.

    Raises:
        PlanError: There is no slot.
    """
    if num_latents == 0:
        raise PlanError("the model is fed no thought, so there is nothing to swap", fix="use num_latents of 1 or more")
    every = tuple(range(num_latents))
    slots = [*((k,) for k in every), *([every] if num_latents > 1 else [])]
    arms = [Arm("baseline"), Arm("noop"), *(Arm(method, s) for method in ("self", "swap") for s in slots)]
    return Plan(tuple(arms), n_donors=n_donors, seed=seed)


class DriftOptions(AnyOptions):
    """What the study can be asked."""

    protocols: Annotated[
        str | None,
        BeforeValidator(checks.each_of("protocol", "models.protocols:PROTOCOLS")),
        Field(description="Names with commas between; default: official and CoT_Exploration's two. official is added."),
    ] = None
    hosts: Annotated[int, Field(ge=2, description="Problems; each is a host and may donate.")] = 100
    donors: Annotated[int, Field(ge=1, description="Donors of each host.")] = 10
    model: Model = "tiny-codi"
    problems: Problems = "arithmetic:test"
    base: Base = None
    tokenizer: Tokenizer = None
    num_latents: NumThoughts = None
    lora_alpha: LoraAlpha = None
    prompt_suffix: PromptSuffix = None
    dtype: Dtype = None
    max_new_tokens: MaxNewTokens = None

    @property
    def names(self) -> list[str]:
        """The protocols, the standard first."""
        asked = PROTOCOLS if self.protocols is None else [name.strip() for name in self.protocols.split(",")]
        return list(dict.fromkeys([STANDARD, *asked]))


class Drift(Study[DriftOptions, "Sample", "Drifted"]):
    """Run the same swaps under several protocols: what would each procedure have reported, and what is true?

    Each protocol's run is an ordinary one, in its own folder under --out. A problem's own thought is put back too: a
    procedure that this moves does not measure what it says.

    Example: thoughtgraft drift --model zen-E/CODI-gpt2 --problems gsm8k:test --out runs/drift
    """

    name = "drift"
    seeds_its_analysis = True
    Options = DriftOptions
    ruled = False

    def check(self, options: DriftOptions, door: Door) -> None:
        """Each protocol's run has a folder of its own."""
        for name in options.names:
            super().check(options, replace(door, out=door.out / name))

    def draw(self, options: DriftOptions, door: Door) -> Sample:
        """The first so many problems of the seeded permutation."""
        from thoughtgraft.studies.sample import draw_sample

        check_donors(options.donors, options.hosts)
        return draw_sample(door.asked(options.problems), first=0, n=options.hosts, seed=options.seed)

    def design(self, model: LatentReasoner, options: DriftOptions, drawn: Sample) -> Design:
        """The run under one protocol, the model's."""
        from thoughtgraft.effects.gates import RULE
        from thoughtgraft.readouts.vocabulary import largest_number

        plan = drift_plan(model.num_latents, options.donors, options.seed)
        facts: dict[str, Any] = {"preset": "drift", "available_hosts": drawn.left}
        facts["largest_number"] = largest_number(model)
        return Design(drawn.problems, plan, facts, RULE.to_json())

    def carry_out(self, options: DriftOptions, door: Door) -> None:
        """One run after another, then all of them beside the standard."""
        drawn = self.draw(options, door)

        # What needs torch comes after everything that can be refused without it.
        from thoughtgraft.records.spec import StudySpec
        from thoughtgraft.studies.resampling.design import decode

        loaded = self.model(options, drawn, door)
        # All of them before the first run: a protocol that does not fit this model is refused at once.
        models = [loaded.under(name) for name in options.names]
        designs = [self.design(model, options, drawn) for model in models]
        if door.rehearsal:
            for model, design in zip(models, designs, strict=True):
                self.rehearse(model, options, drawn, design, door)
            return
        asked = {name: getattr(options, name) for name in ("seed", "device", "batch_size", "max_new_tokens")}
        for model, design in zip(models, designs, strict=True):
            place = replace(door, out=door.out / model.protocol.name)
            begun = start("resampling", model, design, RunOptions.of(asked), place)
            make(model, design, replace(begun, part=True, executor=door.executor), place)
            decode(model, load_run(place.out))
        StudySpec(study=self.name, options=options.stored(), parts=tuple(options.names)).write(door.out)
        self.conclude(load_run(door.out), door.said)

    def rehearse(self, model: LatentReasoner, options: DriftOptions, drawn: Sample, design: Design, door: Door) -> None:
        """Say how large one protocol's run is."""
        size = f"{len(design.plan.arms)} arms on {options.hosts} hosts of {design.problems.name}"
        door.said.line(f"{model.protocol.name}: {size}, {options.donors} donors each, seed {options.seed}")

    def analyse(self, run: Run) -> Drifted:
        """What each protocol reports, and its difference to the standard's."""
        from thoughtgraft.studies.drift.report import compared

        return compared(run)

    def report(self, run: Run, analysis: Drifted, *, force: bool = False) -> ReportPaths:
        """The page with its table and figure, which says of each protocol whether it is valid; nothing is forced."""
        from thoughtgraft.studies.drift.report import write_drift

        return write_drift(run.path, analysis, run.spec)

    def tell(self, run: Run, analysis: Drifted, said: Said) -> None:
        """The protocols, then what each reports slot by slot."""
        from thoughtgraft.studies.drift.report import effects_summaries, sides_in_words

        for line, valid in sides_in_words(analysis):
            said.line(line, "good" if valid else "bad")
        for table in effects_summaries(analysis):
            said.show(table)
