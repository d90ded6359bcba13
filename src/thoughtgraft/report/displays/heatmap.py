"""Figure: every problem by every slot, the share of donors that changed its answer, most sensitive problems on top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.displays.base import Skipped
from thoughtgraft.report.formats import plural

TITLE = "Share of donors that changed the answer, by problem and slot"


@dataclass(frozen=True)
class ProblemBySlot:
    """`share` [problem, slot] in 0..1, sorted by sensitivity; `wrong` [problem] marks those wrong without any edit."""

    share: np.ndarray
    wrong: np.ndarray
    labels: tuple[str, ...]
    caption: str
    name: str = "problems_by_slot"
    title: str = TITLE
    sharey: bool = False
    panels: int = 1

    @property
    def size(self) -> tuple[float, float]:
        """Inches; tall enough for a row of the map to be seen."""
        return (8.0, float(np.clip(1.6 + 0.055 * len(self.share), 3.4, 9.0)))

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> ProblemBySlot | Skipped:
        """From the single-slot swaps, in the order of the per-problem table."""
        frame = analysis.frame
        arms = frame.singles("swap", "recompute", frame.primary_stratum())
        if not arms:
            return Skipped(cls.name, TITLE, "The run has no single-slot swaps.")
        table = analysis.per_problem.table
        place = {host: i for i, host in enumerate(frame.hosts)}
        order = [place[host] for host in table.problem_id]
        share = np.stack([cells.host_mean(cells.changed, len(frame.hosts))[order] for cells in arms.values()], axis=1)
        donors = max(int(cells.draw.max()) + 1 for cells in arms.values())
        caption = (
            f"One row per problem (n = {len(order)}), most sensitive on top (shrunken share of changed answers, as in "
            f"the per-problem table); one column per slot; shade: share of up to {plural(donors, 'donor')} whose "
            "thought changed the answer. A mark at the left: the model was wrong on this problem without any edit. "
            "Shares of so few donors are coarse; their intervals are in the per-problem table."
        )
        labels = tuple(frame.label((slot,)) for slot in arms)
        return cls(share, ~table.base_correct.to_numpy(dtype=bool), labels, caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw on one pair of axes, with its colour bar."""
        from matplotlib import colormaps

        # Light to dark, so that it reads the same in greyscale; what was not run is flat grey.
        colours = colormaps["Blues"].with_extremes(bad="#C9C9C9")
        n = len(self.share)
        image = ax.imshow(
            np.ma.masked_invalid(self.share), aspect="auto", cmap=colours, vmin=0, vmax=1, interpolation="nearest"
        )
        rows = np.flatnonzero(self.wrong)
        size = float(np.clip(220 / max(n, 1), 1.5, 5))
        ax.plot(
            np.full(len(rows), -0.78), rows, "x", color="#D55E00", markersize=size, markeredgewidth=1, clip_on=False
        )
        ax.set_xlim(-1.0, len(self.labels) - 0.5)
        ax.set_xticks([-0.78, *range(len(self.labels))], ["wrong\nunedited", *self.labels])
        ax.get_xticklabels()[0].set_fontsize(6.5)
        ax.tick_params(length=0)
        ticks = sorted({0, n - 1, *range(9, n, 10 if n <= 60 else 20)})
        ax.set_yticks(ticks, [str(tick + 1) for tick in ticks])
        ax.set_ylabel("problem, by rank of sensitivity")
        ax.set_xlabel("swapped thought")
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, pad=0.02)
        bar.set_label("share of donors that changed the answer")
        bar.outline.set_visible(False)
        ax.set_title(self.title)
