"""journal.md: the run in one paragraph, for a lab notebook."""

from __future__ import annotations

from thoughtgraft.report.claims import headlines
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Report
from thoughtgraft.report.formats import markdown


def write_journal(context: Context, report: Report) -> str:
    """One paragraph: what was run, the verdicts, and what they are conditional on."""
    facts = "; ".join(f"{name} {value}" for name, value in report.facts)
    parts = [f"{report.title}: {facts}.", f"{report.badge[1][0].upper()}{report.badge[1][1:]}.", *headlines(context)]
    if context.unproven:
        parts.append(f"Gates without evidence: {', '.join(context.unproven)}.")
    if report.banner is not None:
        parts.append(report.banner.text)
    parts.append("Figures, intervals and n: report.html.")
    started = str(context.run.starts[0].get("started_utc", ""))[:10] if context.run.starts else ""
    text = markdown(" ".join(parts))
    return f"**{started}** {text}\n" if started else f"{text}\n"
