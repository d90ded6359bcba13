"""The report as blocks, in the order in which it is read."""

from __future__ import annotations

from thoughtgraft.analysis.power import too_small
from thoughtgraft.report import claims
from thoughtgraft.report.context import Context, caveats, failed_caveat, seen_before
from thoughtgraft.report.document import Report, Section
from thoughtgraft.report.formats import count, percent, plural
from thoughtgraft.report.sections import (
    adoption,
    certificate,
    comparisons,
    definitions,
    design,
    deviations,
    positions,
    problems,
    provenance,
    thoughts,
)

BEFORE = (claims.section, design.section, certificate.section)
EFFECTS = (
    positions.section,
    comparisons.contrasts,
    comparisons.agreement,
    comparisons.mediation,
    adoption.section,
    comparisons.dose,
    problems.section,
    thoughts.section,
)
AFTER = (deviations.section, provenance.provenance, provenance.reproduce, definitions.section)


def build(context: Context) -> Report:
    """Write every section; effects only where they may be stated."""
    makers = (*BEFORE, *(() if context.refused else EFFECTS), *AFTER)
    sections: list[Section] = [make(context) for make in makers]
    spec, frame = context.run.spec, context.analysis.frame
    small = too_small(len(frame.hosts), len(frame.donors))
    return Report(
        title=f"{spec.study.capitalize()} study of {spec.model}",
        facts=tuple(facts(context)),
        badge=context.run.certificate.badge,
        banner=context.banner,
        sections=tuple(sections),
        caveats=(*caveats(spec), *([small] if small else []), *failed_caveat(frame.failures, frame.n_cells)),
    )


def facts(context: Context) -> list[tuple[str, str]]:
    """The few facts under the title."""
    spec, frame = context.run.spec, context.analysis.frame
    right = context.run.records.drop_duplicates("problem_id").base_correct
    started = str(context.run.starts[0].get("started_utc", ""))[:10] if context.run.starts else ""
    return [
        ("protocol", spec.protocol),
        ("problems", f"{plural(len(frame.hosts), 'host')} × {plural(spec.n_donors, 'donor')} of {spec.problems}"),
        ("generations", count(frame.n_rows)),
        ("failed", "not recorded" if frame.failures is None else count(frame.n_failed)),
        ("accuracy unedited", percent(right.mean())),
        seen_before(spec),
        ("run", f"{spec.run_id}{', ' + started if started else ''}"),
    ]
