"""The first section: the answers to the run's questions, in sentences and as the table that they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thoughtgraft.analysis.agreement import AT_LEAST_1
from thoughtgraft.analysis.rule import VERSION, ClaimRule
from thoughtgraft.analysis.verdicts import INVALID, Agreement, Verdict
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import UNDEFINED, interval, is_number, judged, number, p_value, sentence_list, size

ORDER = (*dict.fromkeys([*map(str, Verdict), *map(str, Agreement)]), INVALID)
SUMMARY = ("question", "asked", "verdict", "which says", "for")
HEADER = ("question", "about", "verdict", "estimate", "interval alone", "simultaneous", "n", "p (Holm)", "notes")
OLD = ("claim", "about", "verdict of rule 1", "estimate", "95% interval", "n", "p (Holm)", "notes")
_LISTED = 8
N = "n: hosts × distinct donors (generations)."
WRONG_WITH_RULE_1 = (
    "This run was begun under rule 1, and these are the words that it was given. They cannot be taken at face value. "
    "SUPPORTED and REFUTED could both follow from a small effect, depending on the number of hosts alone: in "
    "simulation, H4 came out REFUTED in 83% of runs of 50 hosts whose true adoption was 1.6 pp above chance, and "
    "SUPPORTED in 94% of runs of 100. REFUTED rested on intervals that were not adjusted for several slots: 18 to 36% "
    "of runs refuted an H1 that was just true. H1's words did not name its margin. An equivalence test that failed at "
    "80% power was taken for a difference: false in 21% of slots at a true 3 pp. CONVERGENT did not ask whether the "
    "sizes agree, and counted hosts but not donors. Estimates and intervals are right, and are shown below without "
    "those words."
)


def section(context: Context) -> Section:
    """The verdicts, then every number that they rest on; the stored words of a run that an older rule judged."""
    blocks: list[Block] = []
    if context.broken:
        blocks.append(Prose(_refusal(context), "warn"))
    if context.old is not None:
        return Section("claims", "Claims and verdicts", (*blocks, *_old(context)))
    if context.run.plan("preset") == "pilot":
        pilot = context.analysis.decision.pilot
        blocks.append(Prose(f"Verdict of this pilot: {pilot.verdict}. {pilot.reason}.", "lead"))
    if not context.basis.fixed_before:
        blocks.append(Prose(_afterwards(context), "warn"))
    blocks.append(summary(context))
    if context.unproven:
        names = sentence_list(context.unproven)
        blocks.append(Prose(f"Every verdict is conditional on the gates that this run has no evidence for: {names}."))
    return Section("claims", "Claims and verdicts", (*blocks, table(context)))


def verdicts(context: Context) -> list[tuple[ClaimRule, str, list[dict[str, Any]]]]:
    """Questions of the rule in order, each once per verdict given and what that says.

    "not asked", no rows where its arms were not run.
    """
    found = records_of(context.analysis.decision.claims)
    out: list[tuple[ClaimRule, str, list[dict[str, Any]]]] = []
    for claim in context.analysis.decision.rule.claims:
        rows = [row for row in found if row["claim"] == claim.name]
        said = dict.fromkeys((row["verdict"], row["says"]) for row in rows)
        for word, says in sorted(said, key=lambda pair: ORDER.index(pair[0])):
            out.append((claim, word, [row for row in rows if (row["verdict"], row["says"]) == (word, says)]))
        out += [] if rows else [(claim, "not asked", [])]
    return out


def headlines(context: Context) -> list[str]:
    """One sentence per question and verdict; where an older rule judged, that it did."""
    if context.old is not None:
        return [_anew(context)]
    rule = context.analysis.decision.rule
    return [
        f"{claim.name} ({rule.question(claim)}) {word}{' for' if rows else ':'} {_about(claim, rows)}."
        for claim, word, rows in verdicts(context)
    ]


def _about(claim: ClaimRule, rows: list[dict[str, Any]]) -> str:
    """The subjects of a verdict with their estimates; many as their number and the range of these."""
    values = [float(row["estimate"]) for row in rows if is_number(row["estimate"])]
    if len(rows) > _LISTED and values:
        least, most = (_value(rows[0] | {"estimate": end}) for end in (min(values), max(values)))
        return f"{len(rows)} subjects ({least} to {most})"
    return sentence_list([_subject(row) for row in rows]) if rows else f"it needs {claim.needs}"


def _subject(row: dict[str, Any]) -> str:
    subject = "all slots" if row["subject"] == "all" else str(row["subject"])
    return f"{subject} ({_value(row)})" if is_number(row["estimate"]) else subject


def _value(row: Mapping[str, Any]) -> str:
    if row["unit"] != "pp" and AT_LEAST_1 in str(row["note"]):
        return "at least 1"
    return f"{number(row['estimate'], 1)} pp" if row["unit"] == "pp" else number(row["estimate"], 2)


def summary(context: Context) -> Table:
    """One row per question and verdict given."""
    rule, rows, last = context.analysis.decision.rule, [], ""
    for claim, word, found in verdicts(context):
        texts = ("", "") if claim.name == last else (claim.name, rule.question(claim))
        says = found[0]["says"] if found else "–"
        rows.append((*texts, word, says, _about(claim, found)))
        last = claim.name
    reading = (
        f"The rule (version {rule.version}, hash {rule.hash}): margin {rule.margin_pp:g} pp, alpha {rule.alpha:g}, bar "
        f"for the correlation {rule.agreement_bar:g}. A verdict says where an effect's simultaneous interval lies "
        "beside 0 and the margin, and nothing else: the intervals are in the next table. In brackets the estimate, in "
        "percentage points (pp) or as a correlation (H3)."
    )
    return Table(SUMMARY, tuple(rows), reading, tones=2)


def table(context: Context) -> Table:
    """The claim table: one row per question and subject."""
    notes, rows, rule = Notes(), [], context.analysis.decision.rule
    for row in records_of(context.analysis.decision.claims):
        digits = 1 if row["unit"] == "pp" else 2
        rows.append(
            (
                row["claim"],
                f"{'all slots' if row['subject'] == 'all' else row['subject']}: {row['estimand']}",
                row["verdict"],
                _value(row) if is_number(row["estimate"]) else UNDEFINED,
                interval(row["ci_low"], row["ci_high"], digits),
                judged(row["sim_low"], row["sim_high"], row["margin"], digits),
                size(row["n_hosts"], row["n_donors"], row["n_gen"]),
                p_value(row["p_holm"]) if is_number(row["p_holm"]) else "–",
                notes.mark(row["note"]),
            )
        )
    families = "; ".join(f"{claim.name}: {claim.family}" for claim in rule.claims)
    reading = (
        f"Interval alone: {rule.level}, clustered over hosts and donors. Simultaneous: the intervals of a family hold "
        f"all together in {rule.level} of runs ({families}); a verdict is made from it, and enough digits are shown to "
        "see on which side of 0 and of the margin it ends. p (Holm): of no effect, adjusted over the same family (H1: "
        "of the impact on all hosts); it decides nothing. H3 has no p-value, since six points cannot carry one: its "
        f"interval resamples hosts and donors. {N}"
    )
    return Table(HEADER, tuple(rows), reading, frozenset({3, 4, 5, 6, 7}), 2, notes.pairs, "The claims in numbers")


def _refusal(context: Context) -> str:
    if context.force:
        return "A gate failed. Figures are shown because they were asked for by force; no claim is judged."
    return (
        "A gate failed, so no effect is stated in this report: no position table, no figure. Repair the cause and run "
        "again, or write the report by force to look at the numbers all the same."
    )


def _afterwards(context: Context) -> str:
    rule = context.analysis.decision.rule
    return (
        f"Rule {rule.version} was chosen after this run: that its margin and level were fixed before the records were "
        "seen is not on record."
    )


def _anew(context: Context) -> str:
    return (
        f"Judged by rule {context.basis.old_version}, whose words are on its page with what was wrong with them; "
        f"`thoughtgraft analyze --rule {VERSION} RUN` judges the records anew."
    )


def _old(context: Context) -> list[Block]:
    """What the folder holds of an older rule's verdicts, as data."""
    assert context.old is not None
    blocks: list[Block] = [Prose(WRONG_WITH_RULE_1, "warn"), Prose(_anew(context))]
    if not context.old:
        blocks.append(Prose("The run's folder holds no verdicts: it was never analysed under its rule.", "note"))
        return blocks
    notes, rows = Notes(), []
    for row in context.old:
        digits = 1 if row["unit"] == "pp" else 2
        rows.append(
            (
                str(row["claim"]),
                f"{'all slots' if row['subject'] == 'all' else row['subject']}: {row['statement']}",
                str(row["verdict"]),
                _value(row) if is_number(row["estimate"]) else UNDEFINED,
                interval(row["ci_low"], row["ci_high"], digits),
                size(row["n_hosts"], row["n_donors"], row["n_gen"]),
                p_value(row["p_holm"]) if is_number(row["p_holm"]) else "–",
                notes.mark(row["note"]),
            )
        )
    reading = f"As stored in the run's folder when it was analysed; nothing of it is computed anew. {N}"
    return [*blocks, Table(OLD, tuple(rows), reading, frozenset({3, 4, 5, 6}), -1, notes.pairs, "The stored words")]
