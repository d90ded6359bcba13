"""Figure: accuracy against the number of thoughts edited."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.displays.base import Point, Skipped
from thoughtgraft.report.displays.style import errorbars, light_grid, look
from thoughtgraft.report.formats import plural
from thoughtgraft.report.tables import doses

TITLE = "Accuracy against the number of thoughts edited (percent)"
SERIES = {"from first": "from CT0 on", "to last": "back from the last"}


@dataclass(frozen=True)
class DoseResponse:
    """Panels: edits from the first slot on, and back from the last; one line per method."""

    series: tuple[tuple[str, tuple[tuple[str, tuple[Point, ...]], ...]], ...]
    baseline: float
    most: int
    caption: str
    name: str = "dose"
    title: str = TITLE
    sharey: bool = True

    @property
    def panels(self) -> int:
        """One for each direction."""
        return len(self.series)

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return (4.2 * self.panels + 0.8, 3.8)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> DoseResponse | Skipped:
        """From the rows of the dose table that make a curve."""
        rows = doses(analysis)
        if not rows:
            return Skipped(cls.name, TITLE, "It needs edits of several slots at once (0..k or k..last).")
        base = rows[0]["acc"] + rows[0]["impact_pp"] / 100
        panels = []
        for name in dict.fromkeys(row["series"] for row in rows):
            methods = sorted({row["method"] for row in rows if row["series"] == name}, key=lambda m: (m != "swap", m))
            lines = []
            for i, method in enumerate(methods):
                shift = 0.09 * (i - (len(methods) - 1) / 2)
                chosen = [row for row in rows if row["series"] == name and row["method"] == method]
                points = tuple(
                    Point(
                        row["n_slots"] + shift,
                        100 * row["acc"],
                        max(100 * base - row["ci_high"], 0.0),
                        min(100 * base - row["ci_low"], 100.0),
                    )
                    for row in chosen
                )
                lines.append((method, points))
            panels.append((name, tuple(lines)))
        ns = {row["n_hosts"] for row in rows}
        caption = (
            "Accuracy after editing the first so many thoughts, or the last so many; 0 thoughts edited is the clean "
            f"run. Thin bars: the {analysis.decision.rule.level} interval of each paired loss alone, clustered over "
            "hosts and donors and not adjusted for several doses, drawn from the clean accuracy down. n = "
            f"{plural(max(ns), 'host')}."
        )
        return cls(tuple(panels), 100 * base, max(row["n_slots"] for row in rows), caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one direction."""
        name, lines = self.series[panel]
        light_grid(ax)
        ax.axhline(self.baseline, color="#555555", linewidth=0.9, linestyle="--", zorder=1)
        for method, points in lines:
            colour, marker = look(method)
            chain = [Point(0, self.baseline), *points]
            for a, b in pairwise(chain):
                # A dose that was not run leaves a gap: nothing is drawn across it.
                if round(b.x) - round(a.x) == 1:
                    ax.plot([a.x, b.x], [a.value, b.value], color=colour, linewidth=1, alpha=0.7, zorder=2)
            errorbars(ax, points, colour, marker, method)
        ax.set_ylim(min(0, *(p.low for _, ps in lines for p in ps if p.low == p.low), 0), 103)
        ax.set_xticks(range(self.most + 1))
        ax.set_xlabel(f"thoughts edited, {SERIES[name]}")
        ax.set_title(SERIES[name])
        if panel == 0:
            ax.set_ylabel("accuracy (%)")
            ax.legend(loc="best")
