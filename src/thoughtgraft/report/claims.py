"""The verdicts: a sentence per claim, and the claim table that everything else in the report supports."""

from __future__ import annotations

from typing import Any

from thoughtgraft.analysis.rule import ClaimRule
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import UNDEFINED, interval, is_number, number, p_value, sentence_list, size

VERDICTS = ("SUPPORTED", "REFUTED", "UNDERPOWERED", "INVALID")
# What a claim needs that a run may lack.
NEEDS = {
    "H0": "swaps of all slots at once",
    "H1": "swaps of single slots",
    "H2": "swaps of single slots",
    "H3": "swaps and an ablation (mean, zero, skip or noise) at three slots or more",
    "H4": "swaps",
}
_OF_SINGLE_SLOTS = ("H1", "H2")
SUMMARY = ("claim", "statement", "verdict", "for", "what would refute it")
HEADER = ("claim", "about", "verdict", "estimate", "95% interval", "n", "p (Holm)", "notes")
N = "n: hosts × distinct donors (generations)."


def section(context: Context) -> Section:
    """The first section: the verdicts, then every number that they rest on."""
    blocks: list[Block] = []
    if context.broken:
        blocks.append(Prose(_refusal(context), "warn"))
    if context.run.plan("preset") == "pilot":
        pilot = context.analysis.decision.pilot
        blocks.append(Prose(f"Verdict of this pilot: {pilot.verdict}. {pilot.reason}.", "lead"))
    blocks.append(summary(context))
    if context.unproven:
        names = sentence_list(context.unproven)
        blocks.append(Prose(f"Every verdict is conditional on the gates that this run has no evidence for: {names}."))
    return Section("claims", "Claims and verdicts", (*blocks, table(context)))


def verdicts(context: Context) -> list[tuple[ClaimRule, str, list[dict[str, Any]]]]:
    """Claims of the rule in order, each once per verdict given; ("not judged", no rows) where its arms were not run."""
    found = records_of(context.analysis.decision.claims)
    out: list[tuple[ClaimRule, str, list[dict[str, Any]]]] = []
    for claim in context.analysis.decision.rule.claims:
        rows = [row for row in found if row["claim"] == claim.name]
        split = [(claim, word, [row for row in rows if row["verdict"] == word]) for word in VERDICTS]
        out += [item for item in split if item[2]] or [(claim, "not judged", [])]
    return out


def headlines(context: Context) -> list[str]:
    """One sentence per claim and verdict."""
    return [
        f"{claim.name} ({claim.statement}): {word}{' for' if rows else ';'} {_about(context, claim, rows)}."
        for claim, word, rows in verdicts(context)
    ]


def _about(context: Context, claim: ClaimRule, rows: list[dict[str, Any]]) -> str:
    if not rows:
        needs = NEEDS.get(claim.name, "arms")
        if claim.name in _OF_SINGLE_SLOTS and context.analysis.frame.singles(*_primary(context)):
            return f"it needs {needs} that can have an effect; here they have none by construction"
        return f"it needs {needs}, which this run does not have"
    return sentence_list([_subject(row) for row in rows])


def _primary(context: Context) -> tuple[str, str, str]:
    return (*context.analysis.decision.rule.primary, context.analysis.frame.primary_stratum())


def _subject(row: dict[str, Any]) -> str:
    subject = "all slots" if row["subject"] == "all" else str(row["subject"])
    return f"{subject} ({_value(row)})" if is_number(row["estimate"]) else subject


def _value(row: dict[str, Any]) -> str:
    return f"{number(row['estimate'], 1)} pp" if row["unit"] == "pp" else number(row["estimate"], 2)


def summary(context: Context) -> Table:
    """One row per claim and verdict given."""
    rule, rows, last = context.analysis.decision.rule, [], ""
    for claim, word, found in verdicts(context):
        again = claim.name == last
        texts = ("", "") if again else (claim.name, claim.statement)
        rows.append((*texts, word, _about(context, claim, found), "" if again else claim.refuted))
        last = claim.name
    reading = (
        f"The rule (version {rule.version}, hash {rule.hash}): margin {100 * rule.margin:g} pp, alpha {rule.alpha:g}, "
        f"bar for agreement {rule.agreement_bar:g}, adoption margin {100 * rule.adoption_margin:g} pp. In brackets "
        "the estimate, in percentage points (pp; H1: of answers right unedited) or as a correlation (H3); intervals "
        "and n are in the next table. UNDERPOWERED: neither supported nor refuted; this run cannot tell."
    )
    return Table(SUMMARY, tuple(rows), reading, tones=2)


def table(context: Context) -> Table:
    """The claim table: one row per claim and subject."""
    notes, rows = Notes(), []
    for row in records_of(context.analysis.decision.claims):
        rows.append(
            (
                row["claim"],
                f"{'all slots' if row['subject'] == 'all' else row['subject']}: {row['estimand']}",
                row["verdict"],
                _value(row) if is_number(row["estimate"]) else UNDEFINED,
                interval(row["ci_low"], row["ci_high"], 1 if row["unit"] == "pp" else 2),
                size(row["n_hosts"], row["n_donors"], row["n_gen"]),
                p_value(row["p_holm"]) if row["claim"] in ("H1", "H2", "H4") else "–",
                notes.mark(row["note"]),
            )
        )
    supported = "; ".join(f"{c.name}: {c.supported}" for c in context.analysis.decision.rule.claims)
    reading = (
        "Intervals are 95%, two-way clustered over hosts and donors and not adjusted for several slots; the "
        "adjustment is in the Holm p (H1: no impact; H2: an impact of at least the margin; H4: no excess). H3 has no "
        f"p-value, since six points cannot carry one: its interval resamples hosts. {N} Supported if: {supported}."
    )
    return Table(HEADER, tuple(rows), reading, frozenset({3, 4, 5, 6}), 2, notes.pairs, "The claims in numbers")


def _refusal(context: Context) -> str:
    if context.force:
        return "A gate failed. Figures are shown because they were asked for by force; no claim is judged."
    return (
        "A gate failed, so no effect is stated in this report: no position table, no figure. Repair the cause and run "
        "again, or write the report by force to look at the numbers all the same."
    )
