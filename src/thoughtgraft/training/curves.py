"""Learning curves of a training, from its log."""

from __future__ import annotations

from pathlib import Path

from thoughtgraft.arguments import parse_json
from thoughtgraft.training.trainer import LOG


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
