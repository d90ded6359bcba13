"""The sections after the claims: design, what each target's probes scored beside their controls, and descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from thoughtgraft.report.document import (
    UNDEFINED,
    Block,
    Notes,
    Picture,
    Prose,
    Section,
    Table,
    count,
    estimate,
    key_values,
    number,
    p_value,
    percent,
    records_of,
    sentence_list,
)
from thoughtgraft.studies.operations.figures import OperationsData, TargetData

Figures = Mapping[tuple[str, str], Picture | Prose]
PROBE_HEADER = (
    "position", "layer", "features", "probe", "score", "accuracy", "F1", "log-loss", "majority", "words", "BOT",
    "control", "gain over words", "selectivity", "p", "p max-T", "notes",
)  # fmt: skip
SIMILAR_HEADER = (
    "position", "layer", "view", "within", "between", "Mantel r", "p", "q (BH)", "pseudo-F", "R²", "p (F)",
    "CKA with labels",
)  # fmt: skip


def design(data: OperationsData) -> Section:
    """What was read, how, and every target with its strata."""
    facts, how, spec = data.summary["facts"], data.summary["settings"], data.spec
    pairs: list[tuple[str, Any]] = [("features", facts["source"] if spec is None else "of this run")]
    if spec is not None:
        pairs += [
            ("model", f"{spec.model} (identity {spec.model_hash})"),
            ("protocol", f"{spec.protocol}, {spec.num_latents} continuous thoughts"),
            ("problems", f"{spec.problems} (content {spec.problem_hash})"),
        ]
    pairs += [
        ("problems with features", count(facts["n_problems"])),
        ("layers", ", ".join(map(str, facts["layers"]))),
        ("positions", ", ".join(facts["positions"])),
        ("untrained model as a control", "yes" if facts["untrained"] else "no"),
        ("cross-validation", f"{how['folds']}-fold x {how['repeats']}, stratified, grouped by question"),
        ("label permutations", f"{how['permutations']}, equal questions together, within each split"),
        ("seed of the analysis", str(how["seed"])),
    ]
    rows = [
        (
            target.name,
            str(entry["stratum"]),
            count(entry["n"]),
            count(entry["n_questions"]),
            ", ".join(f"{name} {size}" for name, size in entry["classes"].items()) or "a number",
            entry["cv"],
            entry["control"],
            target.note or "–",
        )
        for target in data.targets
        for entry in target.strata
    ]
    header = ("target", "stratum", "n", "questions", "classes", "cross-validation", "control task", "left out")
    reading = (
        "Each label by stratum; claims are made on the first. The public models were trained on GSM8K's train split, "
        "so that only test problems show what a model does on a question it has not seen."
    )
    table = Table(header, tuple(rows), reading, frozenset({2, 3}), title="Targets")
    return Section("design", "Design", (key_values(pairs, "What was read, and how."), table))


def reading(data: OperationsData, target: TargetData, figures: Figures) -> Section:
    """The map, the probes beside their controls, the confusions and the learning curve of one target."""
    blocks: list[Block] = [figures[target.name, "map"], baselines(target)]
    probes, cells = target.probes(), target.cells()
    fitted = sorted(set(probes.probe) - {"linear", "ridge"})
    layers = sorted({int(x) for x in probes[(probes.probe != "linear") & probes.layer.notna()].layer})
    if layers:
        shown = probes[probes.layer.isin(layers) & (probes.features == "resid")]
        words = f"All probes at layers {sentence_list([str(x) for x in layers])}"
        blocks.append(probe_rows(target, shown.sort_values(["layer", "slot"], kind="stable"), words, folded=False))
    rest = [("The linear map in numbers", cells)]
    rest += [
        (words, probes[probes.features == features])
        for features, words in (
            ("mean", "The mean over thoughts"),
            ("layers", "All layers side by side"),
            ("hidden", "The final state at BOT"),
            ("untrained", "The untrained model's map"),
        )
    ]
    rest += [
        (f"The linear map in numbers, stratum {entry['stratum']}", target.cells(str(entry["stratum"])))
        for entry in target.strata[1:]
    ]
    blocks += [probe_rows(target, table, words, folded=True) for words, table in rest if len(table)]
    blocks += [figures[target.name, "confusion"], figures[target.name, "curve"]]
    said = f" and {sentence_list(fitted)} (penalties chosen by an inner cross-validation)" if fitted else ""
    intro = Prose(
        f"A probe learns {target.name!r} from the residual stream on some problems and is asked about others: a "
        f"closed-form linear probe everywhere{said}. A score alone says little: beside each stand what the question's "
        "words alone give on the same folds, what was there before any thought (BOT), and a control task that only a "
        "probe that memorises can solve."
    )
    return Section(f"read-{target.slug}", f"Reading {target.name}", (intro, *blocks))


def baselines(target: TargetData) -> Table:
    """What needs no thought: majority, words, numbers."""
    rows = []
    column = target.score[0]
    for name, words in (("text", "the question's words (TF-IDF, 1-2-grams)"), ("numbers", "the question's numbers")):
        row = target.baseline(name)
        if row is not None:
            shown = estimate(row[column], row["ci_low"], row["ci_high"], 2)
            extra = percent(row["acc"]) if target.kind == "class" else number(row["rank_correlation"], 2)
            rows.append((words, shown, extra, count(row["n"])))
    untrained = target.probes()
    untrained = untrained[untrained.features == "untrained"]
    if len(untrained):
        row = records_of(untrained.loc[[untrained[column].idxmax()]])[0]
        words = f"an untrained model of this shape, its best cell ({row['slot']}, layer {row['layer']})"
        extra = percent(row["acc"]) if target.kind == "class" else number(row["rank_correlation"], 2)
        rows.append((words, estimate(row[column], row["ci_low"], row["ci_high"], 2), extra, count(row["n"])))
    if target.kind == "class":
        cell = records_of(target.cells())[0]
        rows.append(("the commonest class", number(target.chance, 2), percent(cell["majority"]), count(cell["n"])))
    second = "accuracy" if target.kind == "class" else "rank correlation"
    note = f"What needs no trained thought, on the same folds: {target.score[1]} with 95% corrected t intervals."
    header = ("baseline", target.score[1], second, "n")
    return Table(header, tuple(rows), note, frozenset({1, 2, 3}), title="Baselines")


def probe_rows(target: TargetData, table: pd.DataFrame, title: str, *, folded: bool) -> Table:
    """Probes beside their controls."""
    notes, rows, column = Notes(), [], target.score[0]
    for row in records_of(table):
        number_of = target.kind == "number"
        rows.append(
            (
                str(row["slot"]),
                _whole(row["features"]) if pd.isna(row["layer"]) else str(row["layer"]),
                str(row["features"]),
                str(row["probe"]),
                estimate(row[column], row["ci_low"], row["ci_high"], 2),
                number(row["rank_correlation"], 2) if number_of else percent(row["acc"]),
                "–" if number_of else number(row["macro_f1"], 2),
                "–" if number_of else number(row["logloss"], 2),
                "–" if number_of else percent(row["majority"]),
                number(row[target.column("text")], 2),
                number(row[target.column("bot")], 2),
                number(row[target.column("control")], 2),
                estimate(row["delta_vs_text"], row["delta_ci_low"], row["delta_ci_high"], 2),
                estimate(row["selectivity"], row["selectivity_ci_low"], row["selectivity_ci_high"], 2),
                p_value(row["p_perm"]),
                p_value(row["p_maxT"]),
                notes.mark(row["note"]),
            )
        )
    first = records_of(table)[0]
    reading = (
        f"Score, words, BOT and control: {target.score[1]} (chance {number(target.chance, 2)}); intervals 95%, "
        f"corrected resampled t, unadjusted; n = {first['n']}, {', '.join(dict.fromkeys(map(str, table.cv)))}. "
        "p: labels permuted; max-T: adjusted for the map."
    )
    header = list(PROBE_HEADER)
    if target.kind == "number":
        header[5] = "rank corr."
    return Table(tuple(header), tuple(rows), reading, frozenset({1, *range(4, 16)}), -1, notes.pairs, title, folded)


def _whole(features: str) -> str:
    return "final" if features == "hidden" else "all"


def description(data: OperationsData, target: TargetData, figures: Figures) -> Section:
    """Components, similarity and CKA of one target: exploratory."""
    rows = []
    for row in records_of(target.table("similarity")):
        rows.append(
            (
                str(row["slot"]),
                str(row["layer"]),
                str(row["view"]),
                _or_dash(number(row["within"], 3)),
                _or_dash(number(row["between"], 3)),
                number(row["mantel_r"], 3),
                p_value(row["p_mantel"]),
                p_value(row["q"]),
                _or_dash(number(row["pseudo_f"], 2)),
                _or_dash(number(row["r2"], 3)),
                _or_dash(p_value(row["p_permanova"])),
                number(row["label_cka"], 3),
            )
        )
    note = (
        "Mean cosine within and between classes, its Mantel correlation with the labels, and PERMANOVA of Euclidean "
        "distances (raw view). All p-values permute the labels of problems, never pairs of problems."
    )
    table = Table(
        SIMILAR_HEADER, tuple(rows), note, frozenset({1, *range(3, 12)}), title="Similarity in numbers", folded=True
    )
    intro = Prose("Descriptions, not tests of a claim: everything here is exploratory.", "note")
    shown = (figures[target.name, place] for place in ("components", "similarity", "cka"))
    return Section(f"shape-{target.slug}", f"The shape of {target.name}", (intro, *shown, table))


def _or_dash(text: str) -> str:
    return "–" if text == UNDEFINED else text
