"""The zoo's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from thoughtgraft.report.document import (
    Block,
    Bullets,
    Figures,
    Prose,
    Section,
    Table,
    count,
    estimate,
    is_number,
    judged,
    p_value,
    percent,
    records_of,
    size,
)
from thoughtgraft.report.figures.kit import BLUE, GREEN, GREY, ORANGE, VERMILLION, Display, Point, Skipped, look
from thoughtgraft.report.figures.multiples import Line, PairForest, Panel, SmallMultiples
from thoughtgraft.stats.verdicts import Verdict
from thoughtgraft.studies.resampling.figures import labels_of
from thoughtgraft.studies.zoo.analysis import ALL, EXPLICIT, SHOWN, WORDS, ZooResult
from thoughtgraft.studies.zoo.conclusions import MARGIN_PP
from thoughtgraft.studies.zoo.lens_hits import FINAL, INTERMEDIATE

NO_SLOTS = "no slots:\nnothing is fed"
_PERCENT = (-3.0, 103.0)


def displays(result: ZooResult) -> list[Display | Skipped]:
    """Every figure of the page, computed and not yet drawn."""
    return [by_steps(result), pairs(result), dose(result), impact(result), lens(result), probes(result)]


def by_steps(result: ZooResult) -> Display:
    """Accuracy by number of steps, from the plain answer and with explicit reasoning."""
    table = result.tables["accuracy"]
    groups = list(dict.fromkeys(table.problems))
    shown = groups[1:] or groups
    panels = []
    for model in result.models:
        mine = table[table.model == model.name]
        lines = tuple(
            Line(label, colour, marker, _shares(mine[mine.condition == condition], shown, shift), joined=True)
            for condition, label, colour, marker, shift in (
                (model.main, "answer", BLUE, "o", -0.08),
                (EXPLICIT, "reasoning written out", ORANGE, "s", 0.08),
            )
            if (mine.condition == condition).any()
        )
        panels.append(Panel(model.name, lines))
    return SmallMultiples(
        "by_steps",
        "Accuracy by number of steps (percent)",
        f"n = {count(len(result.models[0].correct))} problems, the same for all models; bars: 95% Wilson intervals.",
        tuple(panels),
        tuple(name.removesuffix("s").removesuffix(" step") for name in shown),
        "steps",
        "accuracy (%)",
        _PERCENT,
    )


def pairs(result: ZooResult) -> Display | Skipped:
    """Every pair of models on all problems."""
    table = result.tables["pairs"]
    rows = records_of(table[table.problems == ALL])
    title = PairForest.title
    if not rows:
        return Skipped("pairs", title, "There is one model only.")
    caption = (
        f"The same {count(rows[0]['n'])} problems for all; bars: 95% intervals of paired differences, thin alone, "
        f"thick for all pairs together; grey: within {MARGIN_PP:g} pp."
    )
    points = tuple(Point.of(place, row, "difference_pp") for place, row in enumerate(rows))
    return PairForest(tuple(f"{r['id']}  {r['a']} − {r['b']}" for r in rows), points, MARGIN_PP, caption)


def dose(result: ZooResult) -> Display | Skipped:
    """Accuracy against the number of thoughts that are fed, and with all of them spoiled."""
    most = max(model.num_latents for model in result.models)
    title = "Accuracy with fewer thoughts (percent)"
    if not most:
        return Skipped("dose", title, "No model of this zoo is fed anything.")
    table, panels = result.tables["accuracy"], []
    for model in result.models:
        mine = table[(table.model == model.name) & (table.problems == ALL)].set_index("condition")
        names = [name for name in mine.index if name.split()[0].isdigit()] + [model.main]
        rows = [mine.loc[name] for name in names]
        points = tuple(Point(k, 100 * row.accuracy, 100 * row.ci_low, 100 * row.ci_high) for k, row in enumerate(rows))
        line = Line("first k thoughts", BLUE, "o", points, joined=True)
        panels.append(Panel(model.name, (line,) if model.num_latents else (), "" if model.num_latents else NO_SLOTS))
    caption = (
        f"Only the first k of K slots are fed; n = {count(len(result.models[0].correct))} problems; bars: 95% Wilson "
        "intervals. Undefined for models without slots."
    )
    ticks = tuple(str(k) for k in range(most + 1))
    return SmallMultiples("dose", title, caption, tuple(panels), ticks, "slots fed (k)", "accuracy (%)", _PERCENT)


def impact(result: ZooResult) -> Display | Skipped:
    """Resampling: accuracy lost at each slot and at all."""
    table, title = result.tables["positions"], "Accuracy lost when thoughts are replaced (percentage points)"
    if not len(table):
        return Skipped("impact", title, "No model of this zoo has a slot.")
    labels, panels = labels_of(table), []
    for model in result.models:
        mine = table[table.model == model.name]
        lines: list[Line] = []
        still: list[Point] = []
        for method, shift in zip(SHOWN, (-0.2, 0.0, 0.2), strict=True):
            rows = [(labels.index(r["label"]) + shift, r) for r in records_of(mine[mine.method == method])]
            still += [Point(x, 0) for x, r in rows if r["verdict"] == Verdict.BY_CONSTRUCTION]
            points = tuple(Point.of(x, r, "impact_pp") for x, r in rows if r["verdict"] != Verdict.BY_CONSTRUCTION)
            lines.append(Line(method, *look(method), points))
        lines += [Line("0 by construction", GREY, "x", tuple(still))] if still else []
        panels.append(Panel(model.name, tuple(lines) if len(mine) else (), "" if len(mine) else NO_SLOTS))
    caption = (
        "Accuracy of the clean run minus that of the edited one, paired by problem. Thin: the 95% interval of each "
        "effect alone, clustered over hosts and donors; thick: those of a method's single slots hold all together in "
        "95% of runs, that of all slots by itself. In a pause model swap and mean are the identity, 0 by construction."
    )
    return SmallMultiples("impact", title, caption, tuple(panels), labels, "replaced thought", "accuracy lost (pp)")


def lens(result: ZooResult) -> Display | Skipped:
    """Hit rates of the lens at each slot, beside those of other problems' values."""
    table, title = result.tables["lens"], "Values decoded from the states that thoughts are made of (percent)"
    if not len(table):
        return Skipped("lens", title, "No model of this zoo has a slot.")
    table = table[table.slots.map(len) == 1]
    labels, panels = labels_of(table), []
    for model in result.models:
        mine = table[table.model == model.name]
        lines = []
        for target, colour, marker, shift in ((INTERMEDIATE, BLUE, "o", -0.1), (FINAL, VERMILLION, "^", 0.1)):
            rows = records_of(mine[mine.target == target])
            own = tuple(_bar(labels.index(r["label"]) + shift, r, "null_rate") for r in rows)
            chance = tuple(Point(labels.index(r["label"]) + shift, 100 * r["null_rate"]) for r in rows)
            lines.append(Line(target, colour, marker, own, joined=True))
            lines.append(Line(f"{target}, other problems", GREY if target == FINAL else "#9DBBD0", marker, chance))
        panels.append(Panel(model.name, tuple(lines) if len(mine) else (), "" if len(mine) else NO_SLOTS))
    caption = (
        "Share of problems whose most probable token at a slot is a value of the problem's own steps (filled), and the "
        "share at which the same tokens are a value of other problems with as many steps (hollow); bars: the 95% "
        "interval of each difference alone, over problems, drawn from the other problems' share up. In a pause model "
        "these states saw the problem through attention, but are never fed."
    )
    return SmallMultiples("lens", title, caption, tuple(panels), labels, "slot", "problems (%)")


def probes(result: ZooResult) -> Display | Skipped:
    """What the linear probe reads in each state, beside the question's words."""
    table, title = result.tables["probes"], "Read from the states: balanced accuracy (percent)"
    if not len(table):
        return Skipped("probes", title, "; ".join(result.notes))
    styles = ((BLUE, "o", -0.1), (GREEN, "D", 0.1))
    targets = list(dict.fromkeys(table.target))
    panels = []
    for model in result.models:
        lines = []
        for target, (colour, marker, shift) in zip(targets, styles, strict=False):
            rows = records_of(table[(table.model == model.name) & (table.target == target)])
            points = tuple(
                Point(r["state"] + shift, 100 * r["score"], 100 * r["ci_low"], 100 * r["ci_high"]) for r in rows
            )
            name = WORDS.get(target, target)
            lines.append(Line(name, colour, marker, points, joined=True))
            lines.append(Line(f"{name}, from the words", colour, "", level=100 * rows[0]["text"]))
        panels.append(Panel(model.name, tuple(lines)))
    most = int(table.state.max())
    caption = (
        f"Closed-form linear probe on hidden[k], the final-normed last-layer state; k = 0 is begin-of-thought. "
        f"{table.cv.iloc[0]}, n = {count(table.n.iloc[0])} problems; bars: 95% corrected resampled t intervals. "
        "Dashed: the same labels from the words of the question alone, on the same folds."
    )
    ticks = tuple(str(k) for k in range(most + 1))
    return SmallMultiples("probes", title, caption, tuple(panels), ticks, "state hidden[k]", "balanced accuracy (%)")


def _shares(rows: pd.DataFrame, groups: list[str], shift: float) -> tuple[Point, ...]:
    return tuple(
        Point(groups.index(r["problems"]) + shift, 100 * r["accuracy"], 100 * r["ci_low"], 100 * r["ci_high"])
        for r in records_of(rows)
        if r["problems"] in groups
    )


def _bar(x: float, row: dict[str, float], base: str) -> Point:
    """A rate with the interval of its excess over `base`, on the rate's own scale."""
    start = 100 * row[base]
    return Point(x, 100 * row["rate"], start + 100 * row["ci_low"], start + 100 * row["ci_high"])


def resampling(result: ZooResult, figures: Figures) -> Section:
    """Impact of each slot and all, and adoption."""
    header = (
        "row",
        "model",
        "edit",
        "thoughts",
        "hosts × donors (n)",
        "accuracy lost, pp [alone]",
        "simultaneous",
        "verdict",
        "adopted beyond chance, pp",
        "p",
        "p, Holm",
    )
    rows = tuple(
        (
            r["id"],
            r["model"],
            r["method"],
            r["label"],
            size(r["n_hosts"], r["n_donors"], r["n_gen"]),
            estimate(r["impact_pp"], r["ci_low"], r["ci_high"]),
            judged(r["sim_low"], r["sim_high"], MARGIN_PP),
            str(r["verdict"]),
            _adopted(r),
            p_value(r["p"]),
            p_value(r["p_holm"]),
        )
        for r in records_of(result.tables["positions"])
    )
    reading = (
        "Clean minus edited accuracy on the same hosts, later thoughts recomputed; 95% intervals clustered over hosts "
        "and donors, alone and for the single slots of one model and edit together; the verdict is where the latter "
        f"lies beside 0 and {MARGIN_PP:g} pp. Adoption needs a donor. Holm over the same slots. A model cannot lose "
        "more than it answers right."
    )
    said = [
        f"{m.name}: its vectors are the same for every problem, so swap and mean change nothing by construction; "
        "its slots carry nothing of the problem."
        for m in result.models
        if m.method == "pause"
    ]
    said += [f"{m.name}: {NO_SLOTS.split(':')[0]}, since {m.why_no_slots}." for m in result.models if not m.num_latents]
    blocks: list[Block] = [figures["impact"], *([Bullets(tuple(said))] if said else [])]
    return Section("resampling", "Resampling", (*blocks, Table(header, rows, reading, tones=7)))


def reading(result: ZooResult, figures: Figures) -> Section:
    """Lens and probes."""
    lens_rows = tuple(
        (
            r["id"],
            r["model"],
            r["target"],
            r["label"],
            count(r["n"]),
            percent(r["rate"]),
            percent(r["null_rate"]),
            estimate(100 * r["excess"], 100 * r["ci_low"], 100 * r["ci_high"]),
            p_value(r["p"]),
        )
        for r in records_of(result.tables["lens"])
    )
    probe_rows = tuple(
        (
            r["id"],
            r["model"],
            WORDS.get(r["target"], r["target"]),
            f"hidden[{r['state']}]",
            count(r["n"]),
            estimate(100 * r["score"], 100 * r["ci_low"], 100 * r["ci_high"]),
            percent(r["text"]),
            estimate(100 * r["gain"], 100 * r["gain_low"], 100 * r["gain_high"]),
            p_value(r["p_maxT"]),
        )
        for r in records_of(result.tables["probes"])
    )
    lens_header = ("row", "model", "value", "slot", "n", "decoded", "of others", "excess, pp", "p")
    probe_header = (
        "row",
        "model",
        "label",
        "state",
        "n",
        "balanced accuracy, %",
        "from the words",
        "gain, pp",
        "p, max-T",
    )
    blocks: list[Block] = [
        Prose(
            "In a pause model these states saw the problem through attention, although nothing is fed back: what can "
            "be read there needs no thought."
        ),
        figures["lens"],
        Table(
            lens_header,
            lens_rows,
            "The most probable token through the unembedding, against the values of other problems with as many steps; "
            "95% t intervals over problems; p of no excess, unadjusted.",
            frozenset({4, 5, 6}),
            title="Lens",
        ),
        figures["probes"],
        Table(
            probe_header,
            probe_rows,
            "Linear probe, 95% corrected resampled t intervals; gain over a text classifier on the same folds; p of "
            "labels that cannot be read, by permutation, adjusted over the model's states.",
            frozenset({4, 6}),
            title="Probes",
        ),
    ]
    return Section("reading", "Lens and probes", (*blocks, *(Prose(note, "note") for note in result.notes)))


def findings(result: ZooResult) -> Section:
    """What the conclusion's second part rests on."""
    header = (
        "row", "finding", "model", "own, pp [alone]", "own verdict", "in the control, pp [alone]", "control's verdict",
        "difference, pp [alone]", "simultaneous", "verdict", "p", "p, Holm",
    )  # fmt: skip
    rows = tuple(
        (
            r["id"],
            r["finding"],
            r["model"],
            estimate(r["own"], r["own_low"], r["own_high"]),
            str(r["own_verdict"]),
            estimate(r["in_control"], r["control_low"], r["control_high"]),
            str(r["control_verdict"]),
            estimate(r["difference"], r["ci_low"], r["ci_high"]),
            judged(r["sim_low"], r["sim_high"], MARGIN_PP),
            str(r["verdict"]),
            p_value(r["p"]),
            p_value(r["p_holm"]),
        )
        for r in records_of(result.tables["findings"])
    )
    table = Table(
        header,
        rows,
        "Own effect, the same in the pause control, and the difference paired by problem (by fold for probes), each "
        "with its 95% interval alone. Verdicts are of simultaneous intervals, which hold together over all estimates "
        f"of this table (Bonferroni), beside 0 and {MARGIN_PP:g} pp; that of the difference is shown, the others are "
        "in tables/findings.csv. p of no difference, Holm over all rows; it decides nothing.",
        tones=9,
    )
    return Section("findings", "Findings beside the control", (table,))


def certificates(result: ZooResult) -> Section:
    """What was checked of each model."""
    rows = tuple(
        (
            r["id"],
            r["model"],
            r["outcome"],
            f"{r['passed']} of {r['checks']}",
            r["failed"] or "none",
            r["notes"] or "none",
        )
        for r in records_of(result.tables["checks"])
    )
    header = ("row", "model", "outcome", "checks passed", "failed", "notes")
    reading = "Checks of model, protocol and engine; a model that is fed nothing has no slot that could be checked."
    return Section("certificates", "Certificates", (Table(header, rows, reading, tones=2),))


def _adopted(row: Mapping[str, Any]) -> str:
    if not is_number(row["adoption_excess"]):
        return "-"
    ends = (row["adoption_excess_ci_low"], row["adoption_excess_ci_high"])
    return estimate(100 * row["adoption_excess"], *(100 * end for end in ends))
