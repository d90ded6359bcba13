"""A dry run of the resampling study: cells by arm, and how long they take, as measured on a few of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from thoughtgraft.edits.plan import Cell, Plan
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.records.schema import Family
    from thoughtgraft.studies.options import RunOptions
    from thoughtgraft.studies.sample import Sizing
    from thoughtgraft.studies.study import Design, Door
    from thoughtgraft.tasks.problem import ProblemSet


def rehearse(model: LatentReasoner, options: RunOptions, design: Design, door: Door, sizing: Sizing) -> None:
    """Say how many cells the design has by arm, how long they take, what they could find, and who was seen before."""
    from thoughtgraft.engine.collect import answer_identity, encode
    from thoughtgraft.engine.setup import Setup, make_spec, roles, with_looks

    problems, plan = design.problems, design.plan
    prompts = encode(model, problems)
    pads = [prompt.pad for prompt in prompts] if model.protocol.pads_visible else None
    # Who is right is not known yet: all problems stand in for those that will be.
    made_by = answer_identity(model, options.max_new_tokens, problems.grader)
    cells = plan.cells(problems, made_by, pads, [True] * len(problems))
    distinct = len({cell.key for cell in cells})
    n_hosts = len(problems) if plan.hosts is None else min(len(problems), plan.hosts)
    door.said.show(cell_table(cells))
    timing = measure(model, problems, plan, options.batch_size, options.max_new_tokens)
    most = "at most " if plan.only_correct else ""
    again = "" if distinct == len(cells) else f" ({distinct:,} of them distinct)"
    lines = [
        f"{most}{len(cells):,} generations{again}: {n_hosts} hosts of {problems.name}, {plan.n_donors} donors each, "
        f"seed {plan.seed}",
        f"about {duration(timing.total(len(problems), distinct))} on this machine ({model.device.type}, "
        f"{model.dtype_name}): measured on {timing.n_cells} generations, {1e3 * timing.cell:.2g} ms each; "
        "verification, analysis and report come on top",
        sizing.line(n_hosts, plan.n_donors),
        *design.lines,
    ]
    if plan.only_correct:
        lines.append("--only-correct: fewer hosts, as many as are right without an edit")
    limit = options.max_new_tokens
    spec = make_spec(model, problems, plan, cells, limit, Setup(study="resampling", rule=design.rule))
    spec = with_looks(spec, door.out, *roles(problems, cells), options.beside)
    for line in [*lines, *(spec.looks.lines(spec.run_id) if spec.looks else [])]:
        door.said.line(line)


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
    from thoughtgraft.engine.cells import Work
    from thoughtgraft.engine.collect import answer_identity, answer_limit, collect_thoughts, encode

    few = problems[:_SAMPLE_PROBLEMS]
    small = replace(plan, n_donors=min(plan.n_donors, len(few) - 1), hosts=None, only_correct=False)
    prompts = encode(model, few)
    pads = [prompt.pad for prompt in prompts] if model.protocol.pads_visible else None
    cells = small.cells(few, answer_identity(model, max_new_tokens, few.grader), pads)
    start = time.perf_counter()
    thoughts = collect_thoughts(model, few, batch_size=batch_size, max_new_tokens=max_new_tokens, progress=False)
    clean = (time.perf_counter() - start) / len(few)
    work = Work(few, prompts, thoughts, "", plan.seed, batch_size, answer_limit(model, max_new_tokens))
    n = min(_WARM_UP, len(cells))
    while True:
        chosen = [cells[i * len(cells) // n] for i in range(n)]
        start = time.perf_counter()
        for _ in work.outcomes(model, chosen):
            pass
        took = time.perf_counter() - start
        enough = _LONG_ENOUGH_S if n > _WARM_UP else _TOO_LONG_S
        if took > enough or n == len(cells):
            return Timing(clean, took / n, n)
        n = min(4 * n, len(cells))


def cell_table(cells: Sequence[Cell]) -> Table:
    """Cells per arm; the slots of one edit, rule and stratum in one row."""
    from thoughtgraft.engine.cells import arm_of

    table = Table(title="generations by arm", title_style="dim")
    for name in ("edit", "later thoughts", "donors", "single slots", "several", "all"):
        table.add_column(name, justify="left" if name in ("edit", "later thoughts", "donors") else "right")
    most = max((len(cell.arm.slots) for cell in cells), default=0)
    counts: dict[Family, Counter[str]] = {}
    for arm, n in Counter(map(arm_of, cells)).items():
        span = arm.span(most)
        counts.setdefault(arm.family, Counter())["one" if span == "none" else span] += n
    for family, by_span in counts.items():
        sizes = (f"{by_span[span]:,}" if by_span[span] else "" for span in ("one", "some", "all"))
        table.add_row(family.name, family.after or "-", family.donors or "-", *sizes)
    return table


def duration(seconds: float) -> str:
    """Seconds in words: `40 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
