"""The operations study's page: claims, definitions, figures, written out."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table as Terminal

from thoughtgraft.files import write_atomic
from thoughtgraft.probing.tables import EVERY
from thoughtgraft.report.document import (
    UNDEFINED,
    Block,
    Notes,
    Picture,
    Prose,
    Report,
    Section,
    Table,
    count,
    estimate,
    judged,
    number,
    p_value,
    plural,
    records_of,
    sentence_list,
)
from thoughtgraft.report.figures.kit import Display, Skipped, save
from thoughtgraft.report.render import ReportPaths, to_html, to_markdown
from thoughtgraft.report.terminal import narrow_table
from thoughtgraft.stats.verdicts import Verdict
from thoughtgraft.studies.operations import sections
from thoughtgraft.studies.operations.figures import (
    Confusions,
    LearningCurve,
    OperationsData,
    ProbeMap,
    TargetData,
)
from thoughtgraft.studies.operations.figures_shape import CellAlignment, ComponentClouds, SimilarityMaps
from thoughtgraft.studies.resampling.checks import checks, provenance_blocks
from thoughtgraft.studies.resampling.context import caveats, seen_before

_NOTE = (
    "The same features, labels and analysis seed give the same numbers. Every table of this report is in the folder "
    "analysis/ as parquet, and operations.json holds the settings."
)


def write_pages(data: OperationsData) -> ReportPaths:
    """Write `report.md`, `report.html` (opens offline) and `figures/` into the folder of an analysis."""
    figures = {} if data.refused else make_figures(data)
    parts = [claims_section(data), sections.design(data)]
    if data.spec is not None:
        parts.append(Section("certificate", "Certificate", checks(data.certificate)))
    if not data.refused:
        for target in data.targets:
            parts += [sections.reading(data, target, figures), sections.description(data, target, figures)]
    parts += [Section("provenance", "Provenance", provenance_blocks(data.spec, _NOTE)), section()]
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


HEADER = (
    "position", "verdict", "effect", "simultaneous", "layers", "shown: layer", "score [alone]", "question's words",
    "gain over them [alone]", "p (Holm)", "selectivity [alone]", "p (Holm) ", "p max-T", "n", "notes",
)  # fmt: skip
EARLIER = (
    "These verdicts were made by an earlier version, from p-values; they are shown as they are stored. "
    "`thoughtgraft analyze RUN` judges the run by simultaneous intervals."
)


def claims_section(data: OperationsData) -> Section:
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


TERMS = (
    ("continuous thought", "a hidden vector that the model feeds back to itself instead of writing a word"),
    ("BOT", "the begin-of-thought position: the model has read the question and thought nothing yet"),
    ("CTk", "the position that consumes the k-th thought, counted from 0"),
    ("residual stream after layer l", "what a block of the model hands to the next; blocks count from 0"),
    ("cell", "one position at one layer"),
    ("probe", "a simple model that learns a label from the residual stream of some problems and is asked about others"),
    ("linear probe", "ridge regression of class indicators with a penalty fixed by the features alone; nearest mean"),
    ("balanced accuracy", "the mean over classes of the share that is named right; chance is 1 / classes"),
    ("R²", "share of a number's variance that is predicted on problems not learnt from; below 0: worse than the mean"),
    ("fold", "a division into problems to learn from and problems to be asked about; equal questions stay together"),
    ("words", "the same question asked of the question's text alone (TF-IDF of words and pairs, linear model)"),
    ("gain over words", "score of the probe − score of the text baseline, paired by fold"),
    ("control task", "labels that are a fixed random function of something superficial that repeats between questions"),
    ("selectivity", "score − score on the control task: what is not mere memory of the probe (Hewitt, Liang 2019)"),
    ("corrected t", "an interval that allows for folds sharing training problems (Nadeau, Bengio 2003)"),
    ("p", "share of label permutations that score as high, (b + 1) / (B + 1)"),
    ("p max-T", "the same against the highest score anywhere on the map: adjusted for having looked everywhere"),
    ("Holm", "p-values adjusted so that the chance of any false claim on the map stays below alpha"),
    ("q (BH)", "p-values adjusted for the share of false findings among those listed"),
    ("Mantel r", "correlation over pairs of problems of likeness of thoughts with likeness of labels"),
    ("PERMANOVA", "whether classes differ in place: distances between against within, labels permuted"),
    ("debiased CKA", "likeness of two arrangements of the same problems, with the bias of many features removed"),
    ("effect of a cell", "the smaller of gain over words and selectivity: above 0 only where both are"),
    ("effect of a position", "that of its best layer"),
    ("simultaneous interval", "wider, so that the intervals of all cells of a map hold together; verdicts rest on it"),
    ("undefined", "the number does not exist for these data; the note beside it says why"),
    *((str(word), f"verdict: {word.says('the margin')}") for word in Verdict),
)


def section() -> Section:
    """The glossary."""
    return Section("definitions", "Definitions", (Table(("term", "meaning"), TERMS, "In the order of their use."),))


def displays(target: TargetData, alpha: float) -> dict[str, Display | Skipped]:
    """Every figure of one target, computed and not yet drawn, by its place in the report."""
    return {
        "map": ProbeMap.from_target(target, alpha),
        "confusion": Confusions.from_target(target),
        "curve": LearningCurve.from_target(target),
        "components": ComponentClouds.from_target(target),
        "similarity": SimilarityMaps.from_target(target, alpha),
        "cka": CellAlignment.from_target(target),
    }


def make_figures(data: OperationsData) -> dict[tuple[str, str], Picture | Prose]:
    """Draw and write every figure, by target and place."""
    alpha = float(data.summary["settings"]["alpha"])
    return {
        (target.name, place): save(display, data.path, data.foot)
        for target in data.targets
        for place, display in displays(target, alpha).items()
    }


def claims_summary(data: OperationsData) -> Terminal:
    """Where a label can be read beyond the question's words: one row per position."""
    claims = pd.concat([target.table("claims") for target in data.targets], ignore_index=True)
    table = narrow_table(
        "effect: the smaller of the gain over the question's words and the selectivity, with the\n"
        "interval that holds for all positions and layers together; all are fractions"
    )
    several = claims["target"].nunique() > 1
    names = ("position", "verdict", "layers", "score", "words", "effect", "simultaneous")
    for name in ("label", *names) if several else names:
        left = name in ("label", "position", "verdict", "layers")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "layers")
    for row in claims.to_dict("records"):
        low, high = row["sim_low"], row["sim_high"]
        bounds = "" if math.isnan(low) else judged(low, high, row["margin"], 2)
        score, words, effect = (
            "-" if math.isnan(row[name]) else f"{row[name]:.2f}" for name in ("score", "text", "excess")
        )
        table.add_row(
            *((str(row["target"]),) if several else ()),
            str(row["subject"]),
            str(row["verdict"]),
            str(row["layers"]) or "-",
            score,
            words,
            effect,
            escape(bounds),
        )
    return table


def notes_of(data: OperationsData) -> list[str]:
    """What was left out of each label's analysis, and which labels are not judged, and why."""
    lines = [f"{target.name}: {target.note}" for target in data.targets if target.note]
    for target in data.targets:
        claims = records_of(target.table("claims"))
        lines += [f"{target.name}: not judged: {row['note']}" for row in claims if row["subject"] == EVERY]
    return lines
