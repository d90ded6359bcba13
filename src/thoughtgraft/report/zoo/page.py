"""`write_zoo`: a zoo's tables in, its page, figures, CSV files and zoo.json out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from thoughtgraft.analysis.zoo import ZooResult
from thoughtgraft.analysis.zoo.accuracy import ALL
from thoughtgraft.records.atomic import make_folder, write_atomic
from thoughtgraft.records.jsonfile import to_json
from thoughtgraft.report.displays.save import save
from thoughtgraft.report.document import Report, records_of
from thoughtgraft.report.formats import assumed, count, sentence_list
from thoughtgraft.report.render import to_markdown
from thoughtgraft.report.tables_out import plain
from thoughtgraft.report.zoo import sections, thoughts
from thoughtgraft.report.zoo.conclusions import Conclusion, against_controls, hardest, surviving
from thoughtgraft.report.zoo.figures import displays

PAGE, DATA, TABLES = "zoo.md", "zoo.json", "tables"


def write_zoo(result: ZooResult, facts: Mapping[str, str], out: Path) -> Path:
    """Write `zoo.md`, `zoo.json`, `figures/*.png|svg` and `tables/*.csv`.

    `tables/answers.csv` holds the correctness of every problem under every condition of every model, from which
    accuracies and pairs can be computed again.

    Args:
        result: The analysis.
        facts: What was asked: problems, resampling, seed.
        out: The folder.

    Returns:
        The page.

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
            sections.conclusion(result),
            sections.budget(result),
            sections.answers(result, figures),
            sections.pairs(result, figures),
            thoughts.resampling(result, figures),
            thoughts.reading(result, figures),
            thoughts.findings(result),
            thoughts.certificates(result),
        ),
        caveats=tuple(
            f"{model.name}: {text}" for model in result.models if (text := assumed(model.card.get("assumed")))
        ),
        source=f"{DATA} and {TABLES}/ beside it",
    )
    write_atomic(out / PAGE, to_markdown(report).encode())
    return out / PAGE


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
