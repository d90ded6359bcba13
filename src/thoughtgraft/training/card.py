"""A model's card: what it was trained on, what it cost, how the loss went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.names import EMBEDDED
from thoughtgraft.training.config import LOG

CARD = "card.json"


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a model's folder.

    Raises:
        CheckpointError: There is none.
    """
    try:
        card: dict[str, Any] = parse_json((folder / CARD).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} has no readable {CARD}",
            got=getattr(error, "strerror", None) or str(error),
            fix="train it with this project",
        ) from error
    return card


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write card.json, whole or not at all."""
    part = folder / f"{CARD}.tmp"
    part.write_text(json.dumps(card, indent=1) + "\n")
    part.replace(folder / CARD)


def add_accuracies(
    folder: Path, problems: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], options: str = ""
) -> Path:
    """Put the accuracies measured on one problem set into the card; writes card.json and README.md.

    Args:
        folder: The model's folder.
        problems: The problem set's name.
        rows: `condition`, `n`, `correct`, `accuracy`, `ci_low`, `ci_high` (fractions), `failed`; what has no answer at
            all is left out.
        facts: More facts, such as the weight hash.
        options: What `evaluate` was told besides the model and the problems.

    Returns:
        The card as Markdown.
    """
    card = read_card(folder) | dict(facts)
    kept = [row for row in rows if row["n"]]
    rounded = [
        {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items() if k != "failed" or v} for row in kept
    ]
    card.setdefault("accuracy", {})[problems] = rounded
    told = {name: text for name, text in card.pop("options", {}).items() if name != problems}
    if told := told | ({problems: options} if options else {}):
        card["options"] = told
    write_card(folder, card)
    page = folder / "README.md"
    page.write_text(markdown(folder.name, card))
    return page


def markdown(name: str, card: Mapping[str, Any]) -> str:
    """The card as a page."""
    lines = [f"# {name}", "", str(card.get("about", "A model that reasons in continuous thoughts.")), ""]
    lines += ["| fact | value |", "|---|---|"]
    plain = {k: v for k, v in card.items() if not isinstance(v, (dict, list)) and k != "about"}
    lines += [f"| {key} | {value} |" for key, value in plain.items()]
    lines += ["", "## Recipe", "", "| option | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in card.get("recipe", {}).items()]
    for problems, rows in card.get("accuracy", {}).items():
        lines += ["", f"## Accuracy on {problems}", ""]
        lines += [f"From `{_command(name, problems, card)}`.", ""]
        lines += ["| condition | n | accuracy | 95% interval (Wilson) |", "|---|---:|---:|---|"]
        lines += [
            f"| {r['condition']} | {r['n']:,} | {r['accuracy']:.1%} | {r['ci_low']:.1%} to {r['ci_high']:.1%} |"
            for r in rows
        ]
    return "\n".join(lines) + "\n"


def _command(name: str, problems: str, card: Mapping[str, Any]) -> str:
    model = name if name in EMBEDDED else "THIS_FOLDER"
    options = card.get("options", {}).get(problems, "")
    return f"thoughtgraft evaluate --model {model} --problems {problems} {options}".strip()


def read_log(out: Path) -> list[dict[str, float]]:
    """The log's lines; of steps that were repeated after a crash, the last."""
    lines: dict[tuple[float, bool], dict[str, float]] = {}
    for line in (out / LOG).read_text().splitlines():
        try:
            entry = parse_json(line)
        except ValueError:  # cut off by a crash; the steps after the last checkpoint are repeated
            continue
        lines[entry["step"], "latent" in entry] = entry
    return sorted(lines.values(), key=lambda entry: entry["step"])


def draw_curves(out: Path) -> Path:
    """Write `curves.png`: losses, and accuracies on the validation problems, by optimizer step."""
    from matplotlib.figure import Figure

    log = read_log(out)
    figure = Figure(figsize=(8, 3), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for name in ("ref_ce", "ce", "distill"):
        points = [(entry["step"], entry[name]) for entry in log if name in entry]
        if points:
            losses.semilogy(*zip(*points, strict=True), label=name, linewidth=1)
    for name, label in (("explicit", "reasoning written out"), ("latent", "from the thoughts")):
        points = [(entry["step"], 100 * entry[name]) for entry in log if name in entry]
        if points:
            accuracies.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    losses.set(xlabel="optimizer step", ylabel="training loss")
    accuracies.set(xlabel="optimizer step", ylabel="validation accuracy, %", ylim=(0, 101))
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
    path = out / "curves.png"
    figure.savefig(path, dpi=150)
    return path
