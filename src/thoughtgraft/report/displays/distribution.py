"""Figure: how problems spread at each slot: histograms of the share of donors that changed the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.displays.base import Skipped
from thoughtgraft.report.displays.style import BLUE, INK, light_grid, slot_ticks
from thoughtgraft.report.formats import plural

TITLE = "Distribution over problems of the share of donors that changed the answer"
BINS = 11


@dataclass(frozen=True)
class SlotDistribution:
    """Per slot: shares of problems [slot, bin], bin centres [bin], mean [slot] and number of problems."""

    shares: np.ndarray
    centres: np.ndarray
    means: tuple[float, ...]
    labels: tuple[str, ...]
    caption: str
    name: str = "distribution"
    title: str = TITLE
    sharey: bool = False
    panels: int = 1
    size: tuple[float, float] = (8.0, 3.8)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> SlotDistribution | Skipped:
        """From the single-slot swaps of the primary stratum."""
        frame = analysis.frame
        arms = frame.singles("swap", "recompute", frame.primary_stratum())
        if not arms:
            return Skipped(cls.name, TITLE, "The run has no single-slot swaps.")
        donors = max(int(cells.draw.max()) + 1 for cells in arms.values())
        bins = min(donors + 1, BINS)
        edges = (np.arange(bins + 1) - 0.5) / (bins - 1) if bins > 1 else np.array([-0.5, 0.5])
        rows, means, ns = [], [], []
        for cells in arms.values():
            values = cells.host_mean(cells.changed, len(frame.hosts))
            values = values[np.isfinite(values)]
            rows.append(np.histogram(values, edges)[0] / len(values))
            means.append(float(values.mean()))
            ns.append(len(values))
        caption = (
            f"For each slot a sideways histogram over problems (n = {plural(max(ns), 'problem')} per slot, up to "
            f"{plural(donors, 'donor')} each): the wider the bar, the more problems have this share of changed "
            "answers. Dash: mean over problems. It shows spread, not uncertainty: there are no intervals here."
        )
        labels = tuple(frame.label((slot,)) for slot in arms)
        return cls(np.array(rows), (edges[:-1] + edges[1:]) / 2, tuple(means), labels, caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw on one pair of axes."""
        light_grid(ax)
        step = float(self.centres[1] - self.centres[0]) if len(self.centres) > 1 else 0.2
        widest = float(self.shares.max())
        for k, shares in enumerate(self.shares):
            width = 0.84 * shares / widest
            ax.barh(self.centres, width, height=0.82 * step, left=k - width / 2, color=BLUE, alpha=0.55, zorder=2)
            ax.plot([k - 0.3, k + 0.3], [self.means[k]] * 2, color=INK, linewidth=1.8, zorder=3)
        slot_ticks(ax, self.labels)
        ax.set_ylim(-step / 2 - 0.02, 1 + step / 2 + 0.02)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
        ax.set_ylabel("donors that changed\nthe answer")
        ax.set_xlabel(f"swapped thought (the widest bar is {widest:.0%} of the problems)")
        ax.set_title(self.title)
