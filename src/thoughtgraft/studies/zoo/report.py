"""The zoo's page and its sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from thoughtgraft.files import make_folder, to_json, write_atomic
from thoughtgraft.report.document import (
    Block,
    Bullets,
    Figures,
    Picture,
    Prose,
    Report,
    Section,
    Table,
    assumed,
    count,
    interval,
    is_number,
    judged,
    number,
    p_value,
    percent,
    records_of,
    sentence_list,
)
from thoughtgraft.report.figures.kit import save
from thoughtgraft.report.render import ReportPaths, to_markdown
from thoughtgraft.studies.resampling.report import plain
from thoughtgraft.studies.zoo.analysis import ALL, EXPLICIT, ZooResult
from thoughtgraft.studies.zoo.conclusions import (
    MARGIN_PP,
    Conclusion,
    against_controls,
    hardest,
    in_short,
    signed,
    surviving,
)
from thoughtgraft.studies.zoo.figures import certificates, displays, findings, reading, resampling

PAGE, DATA, TABLES = "zoo.md", "zoo.json", "tables"


def write_zoo(result: ZooResult, facts: Mapping[str, str], out: Path) -> ReportPaths:
    """Write `zoo.md`, `zoo.json`, `figures/*.png|svg` and `tables/*.csv`.

    `tables/answers.csv` holds the correctness of every problem under every condition of every model, from which
    accuracies and pairs can be computed again.

    Args:
        result: The analysis.
        facts: What was asked: problems, resampling, seed.
        out: The folder.

    Raises:
        RunError: The disk refuses.
    """
    foot = "; ".join(f"{name}: {value}" for name, value in facts.items())
    figures = {display.name: save(display, out, foot) for display in displays(result)}
    make_folder(out / TABLES)
    for name, table in {**result.tables, "answers": answers(result)}.items():
        write_atomic(out / TABLES / f"{name}.csv", table.to_csv(index=False, float_format="%.6g").encode())
    write_atomic(out / DATA, to_json(summary(result, facts), DATA))
    report = Report(
        title=f"The zoo: {sentence_list([model.name for model in result.models])}",
        facts=(*facts.items(), ("failed", count(sum(model.n_failed for model in result.models)))),
        badge=_badge(result),
        banner=None,
        sections=(
            conclusion(result),
            budget(result),
            answers_section(result, figures),
            pairs(result, figures),
            resampling(result, figures),
            reading(result, figures),
            findings(result),
            certificates(result),
        ),
        caveats=tuple(
            f"{model.name}: {text}" for model in result.models if (text := assumed(model.card.get("assumed")))
        ),
        source=f"{DATA} and {TABLES}/ beside it",
    )
    write_atomic(out / PAGE, to_markdown(report).encode())
    return ReportPaths(out / PAGE, None, tuple(out / one.png for one in figures.values() if isinstance(one, Picture)))


def answers(result: ZooResult) -> pd.DataFrame:
    """Whether each problem was answered right (1, 0, null where it failed), a column for each model and condition."""
    first = result.models[0].correct
    known = {name: first[name] for name in ("problem_id", "n_steps", "operation")}
    columns = {
        f"{model.name}: {condition}": model.correct[condition].astype("Int64")
        for model in result.models
        for condition in model.conditions
    }
    return pd.DataFrame(known | columns)


def summary(result: ZooResult, facts: Mapping[str, str]) -> dict[str, Any]:
    """Everything on the page as plain values: models, tables, conclusions with the rows that they cite."""
    group = hardest(result)
    found = {
        "against_controls": against_controls(result, ALL),
        "most_steps": against_controls(result, group) if group else [],
        "findings": surviving(result),
    }
    models = [
        {
            "name": model.name,
            "method": model.method,
            "num_latents": model.num_latents,
            "card": {name: value for name, value in model.card.items() if name != "accuracy"},
            "certificate": model.certificate,
        }
        for model in result.models
    ]
    tables = {name: [plain(row) for row in records_of(table)] for name, table in result.tables.items()}
    said = {name: [_said(c) for c in conclusions] for name, conclusions in found.items()}
    return {"facts": dict(facts), "models": models, "conclusions": said, "tables": tables, "notes": list(result.notes)}


def _said(conclusion: Conclusion) -> dict[str, str]:
    return {"row": conclusion.row, "verdict": conclusion.verdict, "text": conclusion.text}


def _badge(result: ZooResult) -> tuple[str, str]:
    outcomes = list(result.tables["checks"].outcome)
    good, checked = outcomes.count("passed"), len(outcomes) - outcomes.count("not certified")
    return ("good" if good == checked else "bad"), f"certificates: {good} of {checked} passed"


_LOSSES = {
    ("codi", "pause", "direct"): "written steps, answers, and distillation of the one into the other, so that only "
    "what is fed differs",
    ("coconut",): "written steps, which thoughts replace stage by stage, and answers",
    ("cot",): "written steps and answers",
}
"""What each method is trained on."""


def conclusion(result: ZooResult) -> Section:
    """The two questions, answered row by row."""
    once = len({m.method for m in result.models}) == len(result.models)
    trained = "Each method was trained once: intervals" if once else "Intervals"
    blocks: list[Block] = [
        Prose(
            "Every sentence states one row of the tables below and cites it. Intervals are 95%, each by itself; "
            "verdicts are made from simultaneous ones, which hold together over a table's family, and say where those "
            f"lie beside 0 and {MARGIN_PP:g} pp; p-values decide nothing. {trained} cover problems, not training "
            "seeds, so a difference is one between these models."
        ),
        Prose("Do fed-back thoughts beat pause vectors, direct answers and written reasoning?", "lead"),
        *_bullets(against_controls(result, ALL), "No model here thinks, or there is only one."),
    ]
    if (group := hardest(result)) and (most := against_controls(result, group)):
        blocks += [Prose(f"And on the problems with the most steps ({group})?", "lead"), *_bullets(most, "")]
    blocks += [
        Prose("Which findings about thoughts survive the control whose slots carry nothing of the problem?", "lead"),
        *_bullets(surviving(result), "There is no pause model here, or no model that thinks: nothing can be said."),
    ]
    return Section("conclusion", "Conclusion", tuple(blocks))


def budget(result: ZooResult) -> Section:
    """What each model was given, and what of it is equal."""
    names = ("parameters", "steps", "problems_seen", "seed", "forward_flops")
    cards = [dict(model.card) for model in result.models]
    for card in cards:
        card.setdefault("seed", card.get("recipe", {}).get("seed"))
    rows = tuple(
        (
            m.name,
            m.method,
            str(m.num_latents),
            *(_fact(card.get(name), name) for name in names),
            str(card.get("base", "")),
        )
        for m, card in zip(result.models, cards, strict=True)
    )
    reading = (
        "From the models' cards. Forward FLOPs: matrix products of all forward passes of the training; backward passes "
        "cost about twice as much for every method."
    )
    header = (
        "model",
        "method",
        "slots",
        "parameters",
        "optimizer steps",
        "problems seen",
        "seed",
        "forward FLOPs",
        "base",
    )
    words = {"parameters": "parameters", "steps": "optimizer steps", "problems_seen": "problems seen", "seed": "seed"}
    words |= {"forward_flops": "training compute"}
    values = {name: [card.get(name) for card in cards] for name in names}
    unknown = [words[name] for name in names if None in values[name]]
    equal = [words[name] for name in names if None not in values[name] and len(set(values[name])) == 1]
    differ = [words[name] for name in names if words[name] not in (*unknown, *equal)]
    said = [f"Equal for all models: {sentence_list(equal)}."] if equal else []
    said += [f"Not equal: {sentence_list(differ)}."] if differ else []
    said += [f"Not recorded for every model: {sentence_list(unknown)}."] if unknown else []
    if {"seed", "problems seen"} <= set(equal):
        said.append("With one seed and as many problems, every model saw the same problems in the same order.")
    taught = {methods: [m.name for m in result.models if m.method in methods] for methods in _LOSSES}
    losses = [f"{sentence_list(named)}: {_LOSSES[methods]}" for methods, named in taught.items() if named]
    said.append(f"Trained on: {'; '.join(losses)}.")
    table = Table(header, rows, reading, numeric=frozenset(range(2, 8)))
    return Section("budget", "Training budget", (Prose(" ".join(said)), table))


def answers_section(result: ZooResult, figures: Figures) -> Section:
    """Accuracies by condition and by steps, and pairs."""
    table = result.tables["accuracy"]
    whole = records_of(table[table.problems == ALL])
    rows = tuple((r["id"], r["model"], r["condition"], count(r["n"]), *_wilson(r)) for r in whole)
    by_steps = tuple(
        (r["id"], r["model"], r["condition"], r["problems"], count(r["n"]), *_wilson(r))
        for r in records_of(table[table.problems != ALL])
    )
    why = [
        f"{m.name} has no row for fewer or replaced thoughts: nothing is fed, since {m.why_no_slots}."
        for m in result.models
        if not m.num_latents
    ]
    why += [
        f"{m.name} has no row for explicit reasoning: its answer is read after written reasoning already."
        for m in result.models
        if EXPLICIT not in m.correct
    ]
    reading = "95% Wilson intervals, the same problems for all models."
    blocks: list[Block] = [
        figures["by_steps"],
        Table(("row", "model", "condition", "n", "accuracy", "interval"), rows, reading, frozenset({3, 4})),
        *([Bullets(tuple(why))] if why else []),
        Table(
            ("row", "model", "condition", "problems", "n", "accuracy", "interval"),
            by_steps,
            reading,
            frozenset({4, 5}),
            title="By number of steps",
        ),
        figures["dose"],
    ]
    return Section("answers", "Answers", tuple(blocks))


def pairs(result: ZooResult, figures: Figures) -> Section:
    """Every pair on the same problems."""
    header = (
        "row", "first", "second", "problems", "n", "difference, pp [alone]", "simultaneous", "verdict", "only first",
        "only second", "p", "p, Holm",
    )  # fmt: skip
    rows = tuple(
        (
            r["id"],
            r["a"],
            r["b"],
            r["problems"],
            count(r["n"]),
            f"{signed(r['difference_pp'])} {interval(r['ci_low'], r['ci_high'])}",
            judged(r["sim_low"], r["sim_high"], MARGIN_PP),
            str(r["verdict"]),
            count(r["only_a"]),
            count(r["only_b"]),
            p_value(r["p"]),
            p_value(r["p_holm"]),
        )
        for r in records_of(result.tables["pairs"])
    )
    reading = (
        "Plain answers, first minus second, with the 95% interval alone and the one that holds for all pairs on one "
        f"group of problems together; the verdict is where that lies beside 0 and {MARGIN_PP:g} pp. Problems that only "
        "one of them answers right; exact McNemar p; Holm over the same pairs."
    )
    return Section("pairs", "Pairs", (figures["pairs"], Table(header, rows, reading, frozenset({4, 8, 9}), 7)))


def _bullets(found: list[Conclusion], otherwise: str) -> list[Block]:
    """The verdicts in a line, then each in full."""
    if not found:
        return [Prose(otherwise, "note")]
    return [Prose(in_short(found)), Bullets(tuple(c.text for c in found))]


def _wilson(row: Mapping[str, Any]) -> tuple[str, str]:
    return percent(row["accuracy"]), interval(100 * row["ci_low"], 100 * row["ci_high"])


def _fact(value: Any, name: str) -> str:
    if not is_number(value):
        return "not recorded"
    return f"{number(float(value) / 1e12, 1)} T" if name == "forward_flops" else count(value)
