"""The models of a zoo: what they and their folders are called, and what their cards say; without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table


def display_names(names: Sequence[str]) -> list[str]:
    """What models are called: the last part of a path, or all of it where that is not enough."""
    short = [Path(name).name for name in names]
    return [name if short.count(part) > 1 else part for name, part in zip(names, short, strict=True)]


def folder_names(names: Sequence[str]) -> list[str]:
    """What their folders are called: the same, in letters that every file system takes, each another."""
    found: list[str] = []
    for name in display_names(names):
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
        found.append(plain if plain not in found else f"{plain}-{len(found) + 1}")
    return found


def card_row(name: str, problems: str) -> dict[str, Any]:
    """What a model's card says, with the accuracies on one problem set; what it does not say is None.

    Raises:
        CheckpointError: There is no such model, or it has no card.
    """
    from thoughtgraft.models.names import EMBEDDED, model_folder
    from thoughtgraft.training.card import read_card

    card = read_card(model_folder(name))
    measured = card.get("accuracy", {}).get(problems, [])
    rows = {row["condition"]: row for row in measured}
    main = "answer" if "answer" in rows else "thoughts"
    method = card.get("method") or EMBEDDED.get(name)
    # A model that always writes its reasoning has no second way to do it.
    explicit = rows.get("explicit reasoning", rows.get(main) if method == "cot" else None)
    return {
        "model": name,
        "method": method,
        "parameters": card.get("parameters"),
        "steps": card.get("steps"),
        "seed": card.get("seed", card.get("recipe", {}).get("seed")),
        "accuracy": rows.get(main),
        "explicit": explicit,
        "by_steps": [
            row | {"condition": condition.removeprefix(f"{main}, ")}
            for condition, row in rows.items()
            if condition.startswith(f"{main}, ") and condition.split()[-1] in ("step", "steps")
        ],
    }


def card_table(rows: Sequence[Mapping[str, Any]], problems: str) -> Table:
    """The rows of several cards for a terminal."""
    groups = list(dict.fromkeys(group["condition"] for row in rows for group in row["by_steps"]))
    table = Table(
        title=f"accuracy on {escape(problems)}, 95% interval (Wilson); from the models' cards", title_style="dim"
    )
    for column in ("model", "method"):
        table.add_column(column, overflow="fold")
    counted = ["/".join(group.split()[0] for group in groups) + " steps"] if groups else []
    for column in ("accuracy", "explicit", *counted):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        found = {group["condition"]: group for group in row["by_steps"]}
        accuracy = row["accuracy"]
        interval = f" [{100 * accuracy['ci_low']:.1f}, {100 * accuracy['ci_high']:.1f}]" if accuracy else ""
        shares = ["/".join(_share(found.get(group), 0).rstrip("%") for group in groups)] if groups else []
        table.add_row(
            escape(row["model"]), row["method"] or "-", _share(accuracy) + interval, _share(row["explicit"]), *shares
        )
    return table


def unmeasured(rows: Sequence[Mapping[str, Any]], problems: str) -> list[str]:
    """A sentence for each model whose card does not say its accuracy: how to measure it."""
    return [
        f"{row['model']} was not measured on {problems}: thoughtgraft evaluate --model {row['model']} "
        f"--problems {problems} --card"
        for row in rows
        if not row["accuracy"]
    ]


def _share(row: Mapping[str, Any] | None, digits: int = 1) -> str:
    return f"{row['accuracy']:.{digits}%}" if row else "-"
