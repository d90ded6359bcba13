"""Figure: confusion matrices of the best cell, of the position before any thought, and of the question's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.report.displays.base import Skipped
from thoughtgraft.report.operations.data import TargetData

TITLE = "Confusion: share of each true class by predicted class"
MOST_CLASSES = 12


@dataclass(frozen=True)
class Confusions:
    """One matrix of counts [true, predicted] per panel, with its heading."""

    matrices: tuple[tuple[str, np.ndarray], ...]
    classes: tuple[str, ...]
    caption: str
    name: str
    title: str = TITLE
    sharey: bool = True

    @property
    def panels(self) -> int:
        """One for each probe shown."""
        return len(self.matrices)

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return ({1: 4.4, 2: 7.4}.get(self.panels, 10.0), 4.2)

    @classmethod
    def from_target(cls, target: TargetData) -> Confusions | Skipped:
        """From the confusion table of the main stratum."""
        name = f"confusion_{target.slug}"
        if target.kind != "class":
            return Skipped(name, TITLE, f"{target.name!r} is a number: nothing to confuse.")
        classes = tuple(target.strata[0]["classes"])
        if len(classes) > MOST_CLASSES:
            return Skipped(name, TITLE, f"{len(classes)} classes are too many to draw; the counts are in the table.")
        table, best = target.table("confusion"), target.best
        table = table[table.stratum == target.stratum]
        linear = table[(table.features == "resid") & (table.probe == "linear") & (table.layer == best["layer"])]
        wanted = [(f"{best['slot']}, layer {best['layer']}", linear[linear.slot == best["slot"]])]
        if best["slot"] != "BOT":
            wanted.append((f"BOT, layer {best['layer']}", linear[linear.slot == "BOT"]))
        wanted.append(("question's words", table[table.features == "text"]))
        matrices = tuple((words, _matrix(rows, classes)) for words, rows in wanted if len(rows))
        caption = (
            f"Rows: the true class (each adds up to 1); columns: what the probe said, over all folds and repeats of "
            f"{best['cv']}, n = {best['n']} problems of the stratum {target.stratum}. Left: the cell of the map with "
            "the highest score, chosen on these same data; then its layer before any thought, and the text baseline."
        )
        return cls(matrices, classes, caption, name)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one matrix."""
        words, counts = self.matrices[panel]
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(share):
            ax.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8 if len(self.classes) < 7 else 6,
                color="white" if value > 0.6 else "#222222",
            )  # fmt: skip
        ax.set_xticks(range(len(self.classes)), self.classes, rotation=30, ha="right")
        ax.set_yticks(range(len(self.classes)), self.classes)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("predicted")
        if not panel:
            ax.set_ylabel("true")
        ax.set_title(words)


def _matrix(rows: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    counts = rows.pivot_table(index="true", columns="predicted", values="count", aggfunc="sum", fill_value=0)
    return counts.reindex(index=list(classes), columns=list(classes), fill_value=0).to_numpy(dtype=float)
