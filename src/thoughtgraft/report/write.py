"""`write_report`: a run folder in, its analysis, figures and report out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from thoughtgraft.analysis import analyse
from thoughtgraft.arguments import answers_for_calls
from thoughtgraft.errors import RunError
from thoughtgraft.records.atomic import write_atomic
from thoughtgraft.report.build import build
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Picture
from thoughtgraft.report.figures import make_figures
from thoughtgraft.report.inventory import write_inventory
from thoughtgraft.report.journal import write_journal
from thoughtgraft.report.paths import ReportPaths
from thoughtgraft.report.render import to_html, to_markdown
from thoughtgraft.report.run import basis_of_run, load, old_decision
from thoughtgraft.report.tables_out import write_tables


def analysed(
    run: Path | str,
    *,
    seed: int = 0,
    force: bool = False,
    problems: Iterable[Any] | None = None,
    largest: int | None = None,
    rule: int | None = None,
) -> Context:
    """A run with its analysis, and whether its effects may be stated; nothing is written. Arguments: `write_report`'s.

    Raises:
        RunError: The folder is not a run's, or a file in it is damaged.
        AnalysisError: The records cannot be analysed.
    """
    data = load(run)
    basis = basis_of_run(data.store, rule)
    analysis = analyse(
        data.records,
        problems,
        seed,
        certificate=data.certificate.gates,
        dead_slots=data.certificate.dead_slots,
        shared_slots=data.certificate.shared_slots,
        available_hosts=data.plan("available_hosts"),
        largest=largest,
        rule=basis.rule,
    )
    old = None
    if basis.old_version is not None:
        old = tuple((old_decision(data.store) or {"claims": ()})["claims"])
    return Context(data, analysis, force, {}, basis, old)


@answers_for_calls(RunError)
def write_report(
    run: Path | str,
    *,
    seed: int = 0,
    force: bool = False,
    problems: Iterable[Any] | None = None,
    largest: int | None = None,
    rule: int | None = None,
) -> ReportPaths:
    """Analyse a run and write everything that is said about it into its folder.

    Writes `analysis/*.parquet|json`, `figures/*.png|svg`, `report.md`, `report.html` (opens offline), `DATA.md` and
    `journal.md`. The same records, seed and versions give the same files. What the run's arms do not allow is left out,
    and the report says what and why.

    Args:
        run: The run's folder.
        seed: Seed of every resampling in the analysis.
        force: State effects although the certificate or a gate failed; every page then says so.
        problems: The run's problems with their steps, for the adoption of step values; None leaves that out.
        largest: Largest number that the model can say, if it has one.
        rule: The version of the rule to judge by; None takes the run's own. A run of rule 1 keeps its stored words,
            unless this is 2: then its records are judged anew, and every page says that the rule was chosen after it.

    Returns:
        The paths of the report.

    Raises:
        RunError: The folder is not a run's, a file in it is damaged, or the disk refuses.
        AnalysisError: The records cannot be analysed (none yet, or they contradict one another), or there is no such
            rule.
    """
    context = analysed(run, seed=seed, force=force, problems=problems, largest=largest, rule=rule)
    data, analysis = context.run, context.analysis
    write_tables(context)
    if not context.refused:
        context = replace(context, figures=make_figures(data, analysis, context.foot))
    report = build(context)
    texts = {
        "report.md": to_markdown(report),
        "report.html": to_html(report),
        "journal.md": write_journal(context, report),
    }
    for name, text in texts.items():
        write_atomic(data.path / name, text.encode())
    write_atomic(data.path / "DATA.md", write_inventory(data).encode())
    pictures = tuple(data.path / p.png for p in context.figures.values() if isinstance(p, Picture))
    return ReportPaths(data.path / "report.md", data.path / "report.html", pictures)
