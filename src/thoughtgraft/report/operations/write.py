"""`write_operations_report`: a folder with an analysis in, its figures and report out."""

from __future__ import annotations

from pathlib import Path

from thoughtgraft.records.atomic import write_atomic
from thoughtgraft.report.context import caveats, seen_before
from thoughtgraft.report.document import Picture, Report, Section
from thoughtgraft.report.formats import count, plural
from thoughtgraft.report.operations import claims, definitions, sections
from thoughtgraft.report.operations.data import OperationsData, load
from thoughtgraft.report.operations.figures import make_figures
from thoughtgraft.report.paths import ReportPaths
from thoughtgraft.report.render import to_html, to_markdown
from thoughtgraft.report.sections.certificate import checks
from thoughtgraft.report.sections.provenance import provenance_blocks

_NOTE = (
    "The same features, labels and analysis seed give the same numbers. Every table of this report is in the folder "
    "analysis/ as parquet, and operations.json holds the settings."
)


def write_operations_report(folder: Path | str, *, force: bool = False) -> ReportPaths:
    """Write `report.md`, `report.html` (opens offline) and `figures/` from the tables of `analyze_operations`.

    Args:
        folder: Where the analysis was written: a run's folder, or any other for features from a file.
        force: State results although the certificate failed; every page then says so.

    Raises:
        RunError: There is no analysis, a file of it is damaged, or the disk refuses.
    """
    data = load(folder, force=force)
    figures = {} if data.refused else make_figures(data)
    parts = [claims.section(data), sections.design(data)]
    if data.spec is not None:
        parts.append(Section("certificate", "Certificate", checks(data.certificate)))
    if not data.refused:
        for target in data.targets:
            parts += [sections.reading(data, target, figures), sections.description(data, target, figures)]
    parts += [Section("provenance", "Provenance", provenance_blocks(data.spec, _NOTE)), definitions.section()]
    report = Report(
        title=f"Operations study of {data.model}",
        facts=tuple(_facts(data)),
        badge=data.badge,
        banner=data.banner,
        sections=tuple(parts),
        caveats=() if data.spec is None else caveats(data.spec),
    )
    for name, text in (("report.md", to_markdown(report)), ("report.html", to_html(report))):
        write_atomic(data.path / name, text.encode())
    pictures = tuple(data.path / p.png for p in figures.values() if isinstance(p, Picture))
    return ReportPaths(data.path / "report.md", data.path / "report.html", pictures)


def _facts(data: OperationsData) -> list[tuple[str, str]]:
    facts, main = data.summary["facts"], data.targets[0]
    out = [] if data.spec is None else [("protocol", data.spec.protocol)]
    out += [
        ("problems", f"{count(main.strata[0]['n'])} ({main.stratum}) of {count(facts['n_problems'])}"),
        ("cells", f"{plural(len(facts['positions']), 'position')} × {plural(len(facts['layers']), 'layer')}"),
        ("targets", ", ".join(target.name for target in data.targets)),
    ]
    return out if data.spec is None else [*out, seen_before(data.spec), ("run", data.spec.run_id)]
