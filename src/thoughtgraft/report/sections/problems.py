"""Section: which problems are sensitive to their thoughts, the most and the least, with their texts."""

from __future__ import annotations

from typing import Any

from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Prose, Section, Table, records_of
from thoughtgraft.report.formats import estimate, number, percent, plural

SHOWN = 5
HEADER = (
    "problem",
    "question",
    "gold",
    "clean answer",
    "answer changed",
    "sensitivity, % [95%]",
    "impact, pp",
    "most sensitive to",
)


def section(context: Context) -> Section:
    """Heat map, distribution, and the two ends of the ranking."""
    found = context.analysis.per_problem
    if not len(found.table):
        return Section("problems", "Problem by problem", (Prose(f"Not shown: {found.note}.", "note"),))
    rows = records_of(found.table)
    shown = min(SHOWN, (len(rows) + 1) // 2)
    reliability = (
        f"The ranking's reliability (split-half over donors, stepped up) is {number(found.reliability, 2)}: "
        "1 = another draw of donors would rank the problems alike, 0 = the ranking is noise."
        if found.reliability == found.reliability
        else f"The ranking's reliability is undefined: {found.note}."
    )
    blocks: list[Block] = [*context.figure("problems_by_slot"), *context.figure("distribution"), Prose(reliability)]
    if rows[0]["note"]:
        blocks.append(Prose(f"Note: {rows[0]['note']}.", "note"))
    blocks.append(_table(context, rows[:shown], f"The {plural(shown, 'problem')} most sensitive to their thoughts"))
    rest = rows[::-1][: min(shown, len(rows) - shown)]
    if rest:
        blocks.append(_table(context, rest, f"The {plural(len(rest), 'problem')} least sensitive"))
    return Section("problems", "Problem by problem", tuple(blocks))


def _table(context: Context, rows: list[dict[str, Any]], title: str) -> Table:
    base = context.run.records.drop_duplicates("problem_id").set_index("problem_id")
    cells = []
    for row in rows:
        known = base.loc[row["problem_id"]]
        clean = "none parsed" if known.get("base_pred") is None else str(known.get("base_pred"))
        mark = "" if row["base_correct"] else " (wrong)"
        cells.append(
            (
                str(row["problem_id"]),
                context.run.question(str(row["problem_id"])),
                str(known.get("gold")),
                clean + mark,
                f"{row['changed']} of {row['n_gen']} ({percent(row['rate'], 0)})",
                estimate(100 * row["sensitivity"], 100 * row["ci_low"], 100 * row["ci_high"], 0),
                number(row["impact_pp"]),
                str(row["most_sensitive_slot"]),
            )
        )
    reading = (
        "Share of single-slot swaps that changed the answer, and the sensitivity: that share shrunken towards the "
        "other problems' (beta-binomial), with its 95% credible interval. Extremes of a ranking are partly luck; the "
        "interval and the reliability say how much. n in the table."
    )
    return Table(HEADER, tuple(cells), reading, frozenset({2, 3, 4, 5, 6}), title=title)
