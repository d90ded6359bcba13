"""The first section of an operations report: at which positions a label can be read, and every condition of it."""

from __future__ import annotations

from typing import Any

from thoughtgraft.report.document import Block, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import UNDEFINED, estimate, number, p_value, sentence_list
from thoughtgraft.report.operations.data import OperationsData, TargetData

HEADER = (
    "position", "verdict", "layers", "shown: layer", "score", "question's words", "gain over them", "p (Holm)",
    "selectivity", "p (Holm)", "p max-T", "n", "notes",
)  # fmt: skip


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
    if rows and rows[0]["verdict"] == "NOT JUDGED":
        return f"Whether {target.name!r} can be read from the thoughts is not judged: {rows[0]['note']}."
    parts = []
    for verdict in ("SUPPORTED", "REFUTED", "UNDERPOWERED"):
        found = [row for row in rows if row["verdict"] == verdict]
        if found:
            parts.append(f"{verdict} at {sentence_list([_subject(row) for row in found])}")
    return f"{target.name!r} can be read beyond the question's words: {'; '.join(parts)}."


def _subject(row: dict[str, Any]) -> str:
    if row["verdict"] != "SUPPORTED":
        return str(row["subject"])
    several = "s" if "," in row["layers"] else ""
    return f"{row['subject']} (layer{several} {row['layers']}; gain {number(row['delta_vs_text'], 2)})"


def table(target: TargetData, settings: dict[str, Any]) -> Table:
    """The claim table of one target."""
    notes, rows = Notes(), []
    found = records_of(target.table("claims"))
    for row in found:
        rows.append(
            (
                str(row["subject"]),
                str(row["verdict"]),
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
    supported, refuted = (found[0][name] for name in ("supported_if", "refuted_if")) if found else ("", "")
    reading = (
        f"Score: {target.score[1]} of the linear probe (chance {number(target.chance, 2)}), at the layer of largest "
        "gain among those that pass, or among all. Intervals are 95%, corrected resampled t, not adjusted for the map; "
        f"the p-values are. Supported if {supported}. Refuted if {refuted}; alpha {settings['alpha']:g}, margin "
        f"{settings['margin']:g}. UNDERPOWERED: neither; this run cannot tell. The words' baseline learns from the "
        "same problems: with few of them it may not have learnt what it could (see the learning curve)."
    )
    numeric = frozenset(range(3, 12))
    return Table(HEADER, tuple(rows), reading, numeric, 1, notes.pairs, f"{target.name}: the claim by position")


def _layer(value: Any) -> str:
    shown = number(value, 0)
    return "–" if shown == UNDEFINED else shown
