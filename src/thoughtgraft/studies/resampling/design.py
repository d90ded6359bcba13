"""The resampling study: what it can be asked, the arms and sizes of its presets, and how it is drawn and made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.donors import STRATA, check_donors, draw_donors
from thoughtgraft.edits.plan import Plan
from thoughtgraft.errors import PlanError
from thoughtgraft.studies import checks
from thoughtgraft.studies.options import Alpha, EngineOptions, Hosts, Margin, ModelOptions
from thoughtgraft.studies.study import Design, Door, Said, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thoughtgraft.effects.gates import Rule
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.records.spec import PilotFacts
    from thoughtgraft.report.render import ReportPaths
    from thoughtgraft.studies.resampling.context import Context
    from thoughtgraft.studies.run import Run
    from thoughtgraft.studies.sample import Pilot, Sample, Sizing


@dataclass(frozen=True)
class Preset:
    """How large a study is.

    Attributes:
        n_hosts: Problems; each is a host and may be a donor.
        n_donors: Donors of each host.
        first: Where the block begins in the seeded permutation of the split.
        full: Whether the whole design runs, or its core.
    """

    n_hosts: int
    n_donors: int
    first: int = 0
    full: bool = True


PRESETS = {
    "demo": Preset(100, 10, full=False),
    "pilot": Preset(20, 5),
    "full": Preset(100, 10, first=20),
}
"""Pilot = positions 0..19 of the permutation, full = positions 20..119: they share no problem."""

_WHOLE = ("self", "swap", "mean", "zero", "noise", "shuffle")
_FREEZES = ("freeze_input", "freeze_kv")
_FROZEN = ("swap", "mean", "zero")


def resampling_plan(num_latents: int, n_donors: int, seed: int, *, full: bool = True, hosts: int | None = None) -> Plan:
    """The plan of the study.

    The core: baseline, noop, and self, swap, mean, zero, skip at every slot, the first four also at all slots. The
    full design adds noise and shuffle, every method at 0..k and k..K-1, both freezes of swap, mean and zero at single
    slots (after all slots nothing follows that could be frozen), and swaps of the other donor strata at single slots
    and all.

    Args:
        num_latents: Thoughts that the model is fed, K >= 1.
        n_donors: Donors of each host, D.
        seed: Seeds donors and random edits.
        full: The full design, or the core.
        hosts: Only the first so many problems are hosts.

    Raises:
        PlanError: The model is fed no thought.
    """
    if num_latents == 0:
        raise PlanError("the model is fed no thought, so there is nothing to swap", fix="use num_latents of 1 or more")
    every = tuple(range(num_latents))
    single = [(k,) for k in every]
    whole = [every] if num_latents > 1 else []
    doses = [every[: k + 1] for k in every[1:-1]] + [every[k:] for k in every[1:-1]]
    arms = [Arm("baseline"), Arm("noop")]
    if not full:
        arms += [Arm(method, slots) for method in ("self", "swap", "mean", "zero", "skip") for slots in single]
        arms += [Arm(method, slots) for method in ("self", "swap", "mean", "zero") for slots in whole]
        return Plan(tuple(arms), n_donors=n_donors, seed=seed, hosts=hosts)
    # With one slot, there is no other to shuffle from.
    methods = [method for method in _WHOLE if method != "shuffle" or num_latents > 1]
    arms += [Arm(method, slots) for method in methods for slots in (*single, *doses, *whole)]
    arms += [Arm("skip", slots) for slots in single]
    arms += [Arm(method, slots, freeze) for method in _FROZEN for freeze in _FREEZES for slots in single]
    strata = [name for name in STRATA if name != "random"]
    arms += [Arm("swap", slots, stratum=name) for name in strata for slots in (*single, *whole)]
    return Plan(tuple(arms), n_donors=n_donors, seed=seed, hosts=hosts)


class ResamplingOptions(ModelOptions, EngineOptions):
    """What the study can be asked."""

    preset: Annotated[
        str,
        BeforeValidator(checks.one_of("preset", tuple(PRESETS))),
        Field(description="pilot (20 problems x 5 donors), full (the next 100 x 10), or demo."),
    ] = "pilot"
    hosts: Hosts = None
    donors: Annotated[int | None, Field(ge=1, description="Donors of each host, instead of the preset's.")] = None
    limit: Annotated[int | None, Field(ge=1, description="Only the first so many of them are hosts.")] = None
    only_correct: Annotated[
        bool, Field(description="Only problems that the unedited model answers right are hosts.")
    ] = False
    pilot: Annotated[
        Path | None,
        BeforeValidator(checks.run),
        Field(description="A pilot's folder: its problems are left out, and with --hosts auto it sizes the run."),
    ] = None
    margin: Margin = None
    alpha: Alpha = None


@dataclass(frozen=True)
class Drawn:
    """The problems of one study, and what is known before its model is loaded.

    Attributes:
        sample: Its problems.
        n_donors: Donors of each host.
        rule: By which it will be judged.
        pilot: The pilot that prepares it, if one does.
    """

    sample: Sample
    n_donors: int
    rule: Rule
    pilot: Pilot | None = None

    def n_hosts(self, limit: int | None) -> int:
        """Hosts, as far as they are known before the run."""
        n = len(self.sample.problems)
        return n if limit is None else min(n, limit)

    def pilot_facts(self, limit: int | None) -> PilotFacts | None:
        """What its pilot says of a run of this size."""
        return None if self.pilot is None else self.pilot.facts(self.n_hosts(limit), self.n_donors)

    def sizing(self, limit: int | None) -> Sizing:
        """What a run of this size can detect: by the pilot's variances, or by assumption."""
        from thoughtgraft.studies.sample import planned

        n = self.n_hosts(limit)
        return self.pilot.sizing(n, self.n_donors) if self.pilot else planned(n, self.rule)

    def warnings(self, plan: Plan) -> list[str]:
        """What is said of its size before it starts: less than its pilot asks for, too little for any verdict."""
        from thoughtgraft.stats.power import too_small

        n, facts = self.n_hosts(plan.hosts), self.pilot_facts(plan.hosts)
        drawn = draw_donors(self.sample.problems, plan.n_donors, plan.seed)
        donors = {donor for host in range(n) for donor in drawn[host]}
        short = "" if facts is None else facts.shortfall(n)
        return [line for line in (short, too_small(n, len(donors))) if line]


class Resampling(Study[ResamplingOptions, Drawn, "Context"]):
    """Swap each continuous thought for other problems', beside every ablation: which thoughts matter, and how.

    Example: thoughtgraft run resampling --model zen-E/CODI-gpt2 --problems gsm8k:test --out runs/gpt2-pilot
    """

    name = "resampling"
    Options = ResamplingOptions

    def draw(self, options: ResamplingOptions, door: Door) -> Drawn:
        """The preset's block of the seeded permutation, without the pilot's problems."""
        from thoughtgraft.effects.gates import Rule
        from thoughtgraft.studies.sample import Pilot, draw_sample

        rule, size, auto = Rule.of(options.margin, options.alpha), PRESETS[options.preset], options.hosts == "auto"
        n_donors = options.donors or size.n_donors
        n_hosts = size.n_hosts if options.hosts in (None, "auto") else int(options.hosts)
        if not auto:
            check_donors(n_donors, n_hosts)
        elif options.pilot is None:
            raise PlanError("--hosts auto takes what a pilot asks for", fix="add --pilot RUN, or give --hosts a number")
        pilot = None if options.pilot is None else Pilot.open(options.pilot, options.problems, rule)
        if pilot is not None and auto:
            n_hosts = pilot.hosts(n_donors)
        used = pilot.used if pilot else ()
        asked = door.asked(options.problems)
        sample = draw_sample(asked, first=size.first, n=n_hosts, seed=options.seed, used=used, at_most=auto)
        check_donors(n_donors, len(sample.problems))
        return Drawn(sample, n_donors, rule, pilot)

    def design(self, model: LatentReasoner, options: ResamplingOptions, drawn: Drawn) -> Design:
        """The preset's arms on these problems."""
        from thoughtgraft.readouts.vocabulary import largest_number

        if drawn.pilot is not None:
            drawn.pilot.check_model(model.identity)
        full = PRESETS[options.preset].full
        plan = resampling_plan(model.num_latents, drawn.n_donors, options.seed, full=full, hosts=options.limit)
        plan = replace(plan, only_correct=options.only_correct)
        facts: dict[str, Any] = {"preset": options.preset, "available_hosts": drawn.sample.left}
        facts["largest_number"] = largest_number(model)
        if (pilot := drawn.pilot_facts(options.limit)) is not None:
            facts["pilot"] = asdict(pilot)
        return Design(drawn.sample.problems, plan, facts, drawn.rule.to_json(), drawn.warnings(plan))

    def rehearse(
        self, model: LatentReasoner, options: ResamplingOptions, drawn: Drawn, design: Design, door: Door
    ) -> None:
        """Print cells by arm, their time as measured on a few of them, the smallest effect, who was seen before."""
        from thoughtgraft.studies.resampling.measure import rehearse

        rehearse(model, options, design, door, drawn.sizing(options.limit))

    def finish(self, model: LatentReasoner, design: Design, run: Run) -> None:
        """Keep what each clean thought decodes to."""
        decode(model, run)

    def analyse(self, run: Run) -> Context:
        """Every table and verdict, and whether effects may be stated."""
        from thoughtgraft.studies.resampling.report import analysed

        return analysed(run, problems=run.kept_problems(), largest=run.largest_number)

    def report(self, run: Run, analysis: Context, *, force: bool = False) -> ReportPaths:
        """The page, its figures and its tables."""
        from thoughtgraft.studies.resampling.report import write_pages

        return write_pages(replace(analysis, force=force))

    def figure(self, run: Run, name: str, *, force: bool = False) -> Figure:
        """A figure of the page by name."""
        from thoughtgraft.studies.resampling.report import draw_figure

        figure: Figure = draw_figure(replace(run.analysis(), force=force), name)
        return figure

    def tell(self, run: Run, analysis: Context, said: Said) -> None:
        """The main effects, and of a pilot its verdict."""
        from thoughtgraft.studies.resampling.summary import run_summary

        said.show(run_summary(run.path))
        if run.spec.plan.get("preset") == "pilot":
            verdict = analysis.analysis.decision.pilot
            said.line(f"\nThe pilot's verdict: {verdict.verdict}. {verdict.reason}.")

    def group(self, options: ResamplingOptions) -> str:
        """Runs of one preset go together."""
        return options.preset


def decode(model: LatentReasoner, run: Run) -> None:
    """Keep what each clean thought of a run decodes to, unless it is kept already."""
    from thoughtgraft.readouts.readout import decode_thoughts
    from thoughtgraft.records.spec import DECODED_FILE
    from thoughtgraft.records.store import RunStore

    if not run.holds(DECODED_FILE):
        RunStore.open(run.path).write_table(DECODED_FILE, decode_thoughts(model, run.thoughts()))
