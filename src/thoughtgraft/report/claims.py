"""The verdicts: a sentence per claim, and the claim table that everything else in the report supports."""

from __future__ import annotations

from typing import Any

from thoughtgraft.analysis.rule import ClaimRule
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Bullets, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import UNDEFINED, interval, is_number, number, p_value, sample, sentence_list

VERDICTS = ("SUPPORTED", "REFUTED", "UNDERPOWERED", "INVALID")
# What a claim needs that a run may lack.
NEEDS = {
    "H0": "swaps of all slots at once",
    "H1": "swaps of single slots",
    "H2": "swaps of single slots",
    "H3": "swaps and an ablation (mean, zero, skip or noise) at three slots or more",
    "H4": "swaps",
}
HEADER = ("claim", "about", "estimate", "95% interval", "n", "p (Holm)", "verdict", "notes")


def section(context: Context) -> Section:
    """The first section: verdicts in words, then in numbers."""
    blocks: list[Block] = [Bullets(tuple(headlines(context)))]
    if context.broken:
        blocks.append(Prose(_refusal(context), "warn"))
    if context.unproven:
        names = sentence_list(context.unproven)
        blocks.append(Prose(f"Every verdict is conditional on the gates that this run has no evidence for: {names}."))
    blocks += [table(context), _rules(context)]
    return Section("claims", "Claims and verdicts", tuple(blocks))


def headlines(context: Context) -> list[str]:
    """One sentence per claim of the rule, absent ones included."""
    found = records_of(context.analysis.decision.claims)
    lines = []
    for claim in context.analysis.decision.rule.claims:
        rows = [row for row in found if row["claim"] == claim.name]
        lines.append(_headline(claim, rows))
    return lines


def _headline(claim: ClaimRule, rows: list[dict[str, Any]]) -> str:
    start = f"{claim.name}, {claim.statement}: "
    if not rows:
        return f"{start}not judged; it needs {NEEDS.get(claim.name, 'arms')}, which this run does not have."
    parts = []
    for verdict in VERDICTS:
        subjects = [_subject(row) for row in rows if row["verdict"] == verdict]
        if subjects:
            parts.append(f"{verdict} for {sentence_list(subjects)}")
    return start + "; ".join(parts) + "."


def _subject(row: dict[str, Any]) -> str:
    subject = "all slots" if row["subject"] == "all" else str(row["subject"])
    if not is_number(row["estimate"]):
        return subject
    unit = f" {row['unit']}" if row["unit"] == "pp" else ""
    return f"{subject} ({number(row['estimate'], _digits(row))}{unit})"


def _digits(row: dict[str, Any]) -> int:
    return 1 if row["unit"] == "pp" else 2


def table(context: Context) -> Table:
    """The claim table: one row per claim and subject."""
    notes, rows = Notes(), []
    for row in records_of(context.analysis.decision.claims):
        digits = _digits(row)
        value = f"{number(row['estimate'], digits)} {row['unit']}" if is_number(row["estimate"]) else UNDEFINED
        rows.append(
            (
                row["claim"],
                f"{'all slots' if row['subject'] == 'all' else row['subject']}: {row['estimand']}",
                value,
                interval(row["ci_low"], row["ci_high"], digits),
                sample(row["n_hosts"], row["n_donors"], row["n_gen"]),
                p_value(row["p_holm"]) if row["claim"] in ("H1", "H2", "H4") else "–",
                row["verdict"],
                notes.mark(row["note"]),
            )
        )
    reading = (
        "One row per claim and what it is about. Intervals are 95%, two-way clustered over hosts and donors and not "
        "adjusted for several slots; the adjustment is in the Holm p (H1: no impact; H2: an impact of at least the margin; "
        "H4: no excess). H3 has no p-value, since six points cannot carry one: its interval resamples hosts. pp = "
        "percentage points."
    )
    return Table(HEADER, tuple(rows), reading, frozenset({2, 3, 5}), HEADER.index("verdict"), notes.pairs)


def _rules(context: Context) -> Table:
    rule = context.analysis.decision.rule
    rows = tuple((c.name, c.statement, c.supported, c.refuted) for c in rule.claims)
    reading = (
        f"The rule, fixed before the run (version {rule.version}, hash {rule.hash}): margin {100 * rule.margin:g} pp, alpha "
        f"{rule.alpha:g}, bar for agreement {rule.agreement_bar:g}, adoption margin {100 * rule.adoption_margin:g} pp. "
        "Neither supported nor refuted is UNDERPOWERED: this run cannot tell."
    )
    header = ("claim", "statement", "supported if", "what would refute it")
    return Table(header, rows, reading, title="What would support and what would refute each claim")


def _refusal(context: Context) -> str:
    if context.force:
        return "A gate failed. Figures are shown because they were asked for by force; no claim is judged."
    return (
        "A gate failed, so no effect is stated in this report: no position table, no figure. Repair the cause and run "
        "again, or write the report by force to look at the numbers all the same."
    )
