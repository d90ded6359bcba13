"""Figure: the slot x layer map of a label: what the linear probe scores, and its gain over the question's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.analysis.verdicts import Verdict
from thoughtgraft.report.formats import number
from thoughtgraft.report.operations.data import TargetData

ANNOTATED = 140


@dataclass(frozen=True)
class ProbeMap:
    """`score` and `gain` [layer, slot]; `mark` [layer, slot]: 0 none, 1 p_maxT below alpha, 2 the whole claim."""

    score: np.ndarray
    gain: np.ndarray
    mark: np.ndarray
    slots: tuple[str, ...]
    layers: tuple[int, ...]
    chance: float
    words: str
    caption: str
    name: str
    title: str
    panels: int = 2
    sharey: bool = True

    @property
    def size(self) -> tuple[float, float]:
        """Inches; rows of the map keep their height."""
        return (9.6, float(np.clip(1.9 + 0.30 * len(self.layers), 3.2, 10.0)))

    @classmethod
    def from_target(cls, target: TargetData, alpha: float) -> ProbeMap:
        """From the linear probe's rows of the map, on the main stratum."""
        cells = target.cells()
        slots = tuple(dict.fromkeys(map(str, cells.slot)))
        layers = tuple(sorted({int(layer) for layer in cells.layer}))
        column, words = target.score

        def grid(values: Any) -> np.ndarray:
            out = np.full((len(layers), len(slots)), np.nan)
            for slot, layer, value in zip(cells.slot, cells.layer, values, strict=True):
                out[layers.index(int(layer)), slots.index(str(slot))] = value
            return out

        significant = cells.p_maxT < alpha
        said = cells.get("verdict", pd.Series(index=cells.index, dtype=object))
        whole = said.isin([word for word in Verdict if word.tone == "found"])
        text = target.baseline("text")
        n, cv = int(cells.n.iloc[0]), str(cells.cv.iloc[0])
        beside = f"; the text baseline has {number(text[column], 2)}" if text else ""
        caption = (
            f"Closed-form linear probe, {cv}, n = {n} problems of the stratum {target.stratum}. Left: {words}; white "
            f"is what a probe that knows nothing has ({number(target.chance, 2)}){beside}. Right: gain over the "
            "question-only text baseline on the same folds (red: the words say more). A small ring: p_maxT below "
            f"{alpha:g} over the whole map; a filled dot: the simultaneous interval of the smaller of gain and "
            "selectivity lies above 0, which is what a claim needs, on test problems. Intervals of every cell are in "
            "the table."
        )
        return cls(
            score=grid(cells[column]),
            gain=grid(cells.delta_vs_text),
            mark=grid(np.where(whole, 2, significant.astype(int))),
            slots=slots,
            layers=layers,
            chance=target.chance,
            words=words,
            caption=caption,
            name=f"probe_map_{target.slug}",
            title=f"Reading {target.name!r}: {words} by position and layer",
        )

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one of the two maps with its colour bar."""
        from matplotlib import colormaps

        values = self.gain if panel else self.score
        seen = values[np.isfinite(values)]
        if panel:
            reach = max(0.05, float(np.abs(seen).max())) if len(seen) else 0.05
            limits, colours = (-reach, reach), colormaps["RdBu"]
        else:
            top = max(self.chance + 0.1, float(seen.max())) if len(seen) else 1.0
            limits, colours = (self.chance, top), colormaps["Blues"]
        colours = colours.with_extremes(bad="#C9C9C9")
        image = ax.imshow(
            np.ma.masked_invalid(values), aspect="auto", origin="lower", cmap=colours, vmin=limits[0], vmax=limits[1]
        )
        if values.size <= ANNOTATED:
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    shade = image.norm(value)
                    dark = abs(shade - 0.5) > 0.33 if panel else shade > 0.6
                    text = f"{value:+.2f}" if panel else f"{value:.2f}"
                    ax.text(
                        column, row, text.replace("-", "−"), ha="center", va="center", fontsize=6.5,
                        color="white" if dark else "#222222",
                    )  # fmt: skip
        for row, column in np.argwhere(self.mark >= 1):
            full = self.mark[row, column] == 2
            ax.plot(
                column + 0.37, row + 0.27, "o", markersize=4.2, color="#D55E00", markeredgewidth=1,
                markerfacecolor="#D55E00" if full else "none",
            )  # fmt: skip
        ax.set_xticks(range(len(self.slots)), self.slots)
        ax.set_yticks(range(len(self.layers)), [str(layer) for layer in self.layers])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("latent position")
        if not panel:
            ax.set_ylabel("residual stream after layer")
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
        ax.set_title("gain over the question's words" if panel else self.words)
