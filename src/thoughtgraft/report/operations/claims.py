"""The first section of an operations report: at which positions a label can be read, and every condition of it."""

from __future__ import annotations

from typing import Any

from thoughtgraft.analysis.probing.verdict import EVERY
from thoughtgraft.analysis.verdicts import Verdict
from thoughtgraft.report.document import Block, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import UNDEFINED, estimate, judged, number, p_value, sentence_list
from thoughtgraft.report.operations.data import OperationsData, TargetData

HEADER = (
    "position", "verdict", "effect", "simultaneous", "layers", "shown: layer", "score [alone]", "question's words",
    "gain over them [alone]", "p (Holm)", "selectivity [alone]", "p (Holm) ", "p max-T", "n", "notes",
)  # fmt: skip
EARLIER = (
    "These verdicts were made by an earlier version, from p-values; they are shown as they are stored. "
    "`thoughtgraft analyze RUN` judges the run by simultaneous intervals."
)


def section(data: OperationsData) -> Section:
    """A sentence per target, then its table."""
    if data.refused:
        text = "The certificate failed, so no result is stated in this report: no score, no figure."
        return Section("claims", "Claims and verdicts", (Prose(text, "warn"),))
    blocks: list[Block] = []
    for place, target in enumerate(data.targets):
        also = "" if place == 0 else " (a further target: exploratory)"
        blocks.append(Prose(headline(target) + also, "lead"))
        if target.note:
            blocks.append(Prose(f"{target.note[0].upper()}{target.note[1:]}.", "note"))
    for target in data.targets:
        blocks.append(table(target, data.summary["settings"]))
    return Section("claims", "Claims and verdicts", tuple(blocks))


def headline(target: TargetData) -> str:
    """What was found of one target, in a sentence."""
    rows = records_of(target.table("claims"))
    if rows and "sim_low" not in rows[0]:
        return EARLIER
    if rows and rows[0]["subject"] == EVERY:
        return f"Whether {target.name!r} can be read from the thoughts is not judged: {rows[0]['note']}."
    parts = []
    for word in Verdict:
        found = [row for row in rows if row["verdict"] == word]
        if found:
            says = word.says(f"{found[0]['margin']:g}")
            parts.append(f"{word} ({says}) at {sentence_list([_subject(row, word) for row in found])}")
    return f"{target.name!r}, read beyond the question's words and a control task: {'; '.join(parts)}."


def _subject(row: dict[str, Any], word: Verdict) -> str:
    if word.tone != "found" or not row["layers"]:
        return str(row["subject"])
    several = "s" if "," in row["layers"] else ""
    return f"{row['subject']} (layer{several} {row['layers']}; effect {number(row['excess'], 2)})"


def table(target: TargetData, settings: dict[str, Any]) -> Table:
    """The claim table of one target."""
    notes, rows = Notes(), []
    for row in records_of(target.table("claims")):
        rows.append(
            (
                str(row["subject"]),
                str(row["verdict"]),
                number(row.get("excess"), 2),
                judged(row.get("sim_low"), row.get("sim_high"), settings["margin"], 2),
                row["layers"] or "–",
                _layer(row["layer"]),
                estimate(row["score"], row["ci_low"], row["ci_high"], 2),
                number(row["text"], 2),
                estimate(row["delta_vs_text"], row["delta_ci_low"], row["delta_ci_high"], 2),
                p_value(row["p_delta_holm"]),
                estimate(row["selectivity"], row["selectivity_ci_low"], row["selectivity_ci_high"], 2),
                p_value(row["p_selectivity_holm"]),
                p_value(row["p_maxT"]),
                number(row["n"], 0),
                notes.mark(row["note"]),
            )
        )
    alpha = settings["alpha"]
    reading = (
        f"Score: {target.score[1]} of the linear probe (chance {number(target.chance, 2)}), at the layer whose "
        "interval begins highest. Effect: the smaller of the gain over the question's words and the selectivity over "
        f"the control task, at that layer. Simultaneous: at level {100 * (1 - alpha):g}% for all cells of the map "
        f"together, of the layer where the effect is largest; where p max-T is {alpha:g} or more it reaches to 0. "
        f"Verdict: where it lies beside 0 and {settings['margin']:g}. Alone: 95%, corrected resampled t. Layers: those "
        "whose own simultaneous interval lies above 0. The Holm p-values decide nothing. The words' baseline learns "
        "from the same problems: with few of them it may not have learnt what it could (see the learning curve)."
    )
    numeric = frozenset({2, 3, *range(5, 14)})
    return Table(HEADER, tuple(rows), reading, numeric, 1, notes.pairs, f"{target.name}: the claim by position")


def _layer(value: Any) -> str:
    shown = number(value, 0)
    return "–" if shown == UNDEFINED else shown
