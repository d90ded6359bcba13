"""A resampling run from model to report: verify, run, decode, report. Used by `demo` and `run resampling`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thoughtgraft.cli.console import run_summary
from thoughtgraft.effects.gates import RULE, Rule

if TYPE_CHECKING:
    from thoughtgraft.edits.plan import Cell, Plan
    from thoughtgraft.engine.executors import Executor
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.records.spec import PilotFacts
    from thoughtgraft.studies.resampling.run import Run
    from thoughtgraft.studies.sample import Pilot, Sample
    from thoughtgraft.tasks.problem import ProblemSet

STUDY = "resampling"


@dataclass(frozen=True)
class Job:
    """One resampling study, ready to start."""

    model: LatentReasoner
    sample: Sample
    plan: Plan
    preset: str
    pilot: Pilot | None = None
    batch_size: str = "auto"
    max_new_tokens: int | None = None
    beside: tuple[Path, ...] = ()
    rule: Rule = RULE

    @property
    def n_hosts(self) -> int:
        """Hosts, as far as they are known before the run."""
        n = len(self.sample.problems)
        return n if self.plan.hosts is None else min(n, self.plan.hosts)

    @cached_property
    def pilot_facts(self) -> PilotFacts | None:
        """What its pilot says of a run of this size."""
        return None if self.pilot is None else self.pilot.facts(self.n_hosts, self.plan.n_donors)

    @property
    def warnings(self) -> list[str]:
        """What is said of its size before it starts: less than its pilot asks for, too little for any verdict."""
        from thoughtgraft.edits.arms import draw_donors
        from thoughtgraft.stats.power import too_small

        drawn = draw_donors(self.sample.problems, self.plan.n_donors, self.plan.seed)
        donors = {donor for host in range(self.n_hosts) for donor in drawn[host]}
        short = "" if self.pilot_facts is None else self.pilot_facts.shortfall(self.n_hosts)
        return [line for line in (short, too_small(self.n_hosts, len(donors))) if line]


def carry_out(
    job: Job,
    out: Path,
    console: Console,
    *,
    certify: str = "auto",
    executor: Executor | None = None,
    watch: Callable[[], None] | None = None,
) -> Run:
    """Verify, run into `out` or continue what is there, and decode the thoughts.

    `executor` and `watch` as `run` has them.
    """
    from thoughtgraft.cli.certify import certified, start_facts
    from thoughtgraft.engine.run import run
    from thoughtgraft.readouts.lens import decode_thoughts
    from thoughtgraft.records.store import RunStore
    from thoughtgraft.signals import current
    from thoughtgraft.studies.resampling.run import load_run

    model, problems = job.model, job.sample.problems
    if model.protocol.flaw:
        console.print(f"protocol {model.protocol.name}: {model.protocol.flaw}", soft_wrap=True, highlight=False)
    for line in job.warnings:
        console.print(line, soft_wrap=True, highlight=False)
    certificate = certified(model, problems, out, certify, console, job.plan)
    with current().held():
        run(
            model,
            problems,
            job.plan,
            out,
            study=STUDY,
            batch_size=job.batch_size,
            max_new_tokens=job.max_new_tokens,
            facts=start_facts(certify) | ({"engine": executor.describe()} if executor else {}),
            design=design(job),
            rule=job.rule.to_json(),
            certificate=certificate,
            executor=executor,
            watch=watch,
            stop=current().asked,
            beside=job.beside,
        )
    store = RunStore.open(out)
    opened = load_run(out)
    if not (out / "decoded.parquet").exists():
        store.write_table("decoded.parquet", decode_thoughts(model, opened.thoughts()))
    return opened


def resampling(
    job: Job,
    out: Path,
    *,
    certify: str = "auto",
    executor: Executor | None = None,
    watch: Callable[[], None] | None = None,
) -> None:
    """Run the study into `out`, write its report and print its main table; `executor` and `watch` as `run` has them."""
    from thoughtgraft.records.store import RunStore
    from thoughtgraft.studies.resampling.report import write_report

    console = Console()
    opened = carry_out(job, out, console, certify=certify, executor=executor, watch=watch)
    with console.status("analysing and drawing"):
        paths = write_report(out, problems=opened.problem_set(), largest=opened.largest_number)
    console.print(run_summary(out))
    if job.preset == "pilot":
        verdict = RunStore.open(out).read_json("analysis/decision.json")["pilot"]
        console.print(f"\nThe pilot's verdict: [bold]{verdict['verdict']}[/bold]. {verdict['reason']}.", soft_wrap=True)
    console.print(f"\nThe report: [bold]{escape(str(paths.html.resolve()))}[/bold]", soft_wrap=True)


def design(job: Job) -> dict[str, Any]:
    """What run.json says of the design beside the plan."""
    from thoughtgraft.readouts.lens import largest_number

    found: dict[str, Any] = {"preset": job.preset, "available_hosts": job.sample.left}
    found["largest_number"] = largest_number(job.model)
    if job.pilot_facts is not None:
        found["pilot"] = asdict(job.pilot_facts)
    return found


def dry_run(job: Job, out: Path) -> None:
    """Print cells by arm, their time as measured on a few of them, the smallest effect, and who was seen before."""
    from thoughtgraft.engine.collect import answer_identity, encode
    from thoughtgraft.engine.run import make_spec, roles, with_looks
    from thoughtgraft.studies.resampling.measure import cell_table, duration, measure
    from thoughtgraft.studies.sample import planned

    console, model, problems = Console(), job.model, job.sample.problems
    prompts = encode(model, problems)
    pads = [prompt.pad for prompt in prompts] if model.protocol.pads_visible else None
    # Who is right is not known yet: all problems stand in for those that will be.
    made_by = answer_identity(model, job.max_new_tokens, problems.grader)
    cells = job.plan.cells(problems, made_by, pads, [True] * len(problems))
    distinct = len({cell.key for cell in cells})
    console.print(cell_table(cells))
    timing = measure(model, problems, job.plan, job.batch_size, job.max_new_tokens)
    most = "at most " if job.plan.only_correct else ""
    again = "" if distinct == len(cells) else f" ({distinct:,} of them distinct)"
    lines = [
        f"{most}{len(cells):,} generations{again}: {job.n_hosts} hosts of {problems.name}, {job.plan.n_donors} donors "
        f"each, seed {job.plan.seed}",
        f"about {duration(timing.total(len(problems), distinct))} on this machine ({model.device.type}, "
        f"{model.dtype_name}): measured on {timing.n_cells} generations, {1e3 * timing.cell:.2g} ms each; "
        "verification, analysis and report come on top",
    ]
    sizing = job.pilot.sizing(job.n_hosts, job.plan.n_donors) if job.pilot else planned(job.n_hosts, job.rule)
    lines.append(sizing.line(job.n_hosts, job.plan.n_donors))
    lines += job.warnings
    if job.plan.only_correct:
        lines.append("--only-correct: fewer hosts, as many as are right without an edit")
    spec = make_spec(
        model,
        problems,
        job.plan,
        cells,
        study=STUDY,
        max_new_tokens=job.max_new_tokens,
        rule=job.rule.to_json(),
    )
    spec = with_looks(spec, out, *roles(problems, cells), job.beside)
    lines += spec.looks.lines(spec.run_id) if spec.looks else []
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


_SAMPLE_PROBLEMS = 6
_WARM_UP = 16
_LONG_ENOUGH_S, _TOO_LONG_S = 4.0, 60.0


@dataclass(frozen=True)
class Timing:
    """What a few cells took, in seconds: `clean` for one clean run, `cell` for one generation of `n_cells`."""

    clean: float
    cell: float
    n_cells: int

    def total(self, n_problems: int, n_cells: int) -> float:
        """Seconds that a whole run would take, analysis and report not counted."""
        return self.clean * n_problems + self.cell * n_cells


def measure(
    model: LatentReasoner, problems: ProblemSet, plan: Plan, batch_size: int | str, max_new_tokens: int | None
) -> Timing:
    """Run a few cells of the plan, evenly taken from its arms: in growing packs, until one takes a few seconds.

    The first pack warms up; it counts only if it alone took long.
    """
    from thoughtgraft.engine.cells import run_cells
    from thoughtgraft.engine.collect import answer_identity, collect_thoughts, encode

    few = problems[:_SAMPLE_PROBLEMS]
    small = replace(plan, n_donors=min(plan.n_donors, len(few) - 1), hosts=None, only_correct=False)
    prompts = encode(model, few)
    pads = [prompt.pad for prompt in prompts] if model.protocol.pads_visible else None
    cells = small.cells(few, answer_identity(model, max_new_tokens, few.grader), pads)
    start = time.perf_counter()
    thoughts = collect_thoughts(model, few, batch_size=batch_size, max_new_tokens=max_new_tokens, progress=False)
    clean = (time.perf_counter() - start) / len(few)
    n = min(_WARM_UP, len(cells))
    while True:
        chosen = [cells[i * len(cells) // n] for i in range(n)]
        start = time.perf_counter()
        for _ in run_cells(model, prompts, chosen, thoughts, few, batch_size, max_new_tokens, False):
            pass
        took = time.perf_counter() - start
        enough = _LONG_ENOUGH_S if n > _WARM_UP else _TOO_LONG_S
        if took > enough or n == len(cells):
            return Timing(clean, took / n, n)
        n = min(4 * n, len(cells))


def cell_table(cells: Sequence[Cell]) -> Table:
    """Cells per arm; the slots of one method, rule and stratum in one row."""
    table = Table(title="generations by arm", title_style="dim")
    for name in ("edit", "later thoughts", "donors", "single slots", "several", "all"):
        table.add_column(name, justify="left" if name in ("edit", "later thoughts", "donors") else "right")
    most = max((len(cell.arm.slots) for cell in cells), default=0)
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for cell in cells:
        arm = cell.arm
        size = "single" if len(arm.slots) <= 1 else "all" if len(arm.slots) == most else "several"
        key = (arm.method, arm.downstream if arm.slots else "", arm.stratum if arm.needs_donor else "")
        counts.setdefault(key, Counter())[size] += 1
    for key, by_size in counts.items():
        table.add_row(*(x or "-" for x in key), *(f"{by_size[s]:,}" if by_size[s] else "" for s in SIZES))
    return table


SIZES = ("single", "several", "all")


def duration(seconds: float) -> str:
    """Seconds in words: `40 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
