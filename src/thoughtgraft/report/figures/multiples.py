"""Figures of several models: one panel for each, the same axes in all; and a row of intervals for every pair."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from thoughtgraft.report.figures.kit import (
    BLUE,
    GREY,
    Point,
    errorbars,
    forest,
    interval_key,
    light_grid,
    shared_legend,
)


@dataclass(frozen=True)
class Line:
    """Points of one quantity, joined or not; `level` is a horizontal line instead of points."""

    label: str
    colour: str
    marker: str
    points: tuple[Point, ...] = ()
    joined: bool = False
    level: float | None = None


@dataclass(frozen=True)
class Panel:
    """One model's lines; `note` stands in their place where it has none."""

    title: str
    lines: tuple[Line, ...]
    note: str = ""


@dataclass(frozen=True)
class SmallMultiples:
    """A panel for each model, side by side; `ticks` are the names of x = 0, 1, ..."""

    name: str
    title: str
    caption: str
    shown: tuple[Panel, ...]
    ticks: tuple[str, ...]
    xlabel: str
    ylabel: str
    limits: tuple[float, float] | None = None
    sharey: bool = True

    @property
    def panels(self) -> int:
        """One for each model."""
        return len(self.shown)

    @property
    def size(self) -> tuple[float, float]:
        """Inches; a panel keeps its width."""
        return (max(4.5, 2.45 * len(self.shown) + 0.6), 3.6)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one model."""
        here = self.shown[panel]
        light_grid(ax)
        for line in here.lines:
            if line.level is not None:
                ax.axhline(line.level, color=line.colour, linewidth=1.2, linestyle="--", label=line.label, zorder=2)
                continue
            if line.joined:
                for a, b in pairwise(line.points):
                    ax.plot([a.x, b.x], [a.value, b.value], color=line.colour, linewidth=1, alpha=0.7, zorder=2)
            errorbars(ax, line.points, line.colour, line.marker, line.label)
        if here.note:
            ax.text(0.5, 0.5, here.note, transform=ax.transAxes, ha="center", va="center", color=GREY, fontsize=8.5)
        ax.set_xticks(range(len(self.ticks)), self.ticks)
        ax.set_xlim(-0.6, len(self.ticks) - 0.4)
        ax.tick_params(axis="x", length=0, labelsize=7.5)
        if self.limits:
            ax.set_ylim(*self.limits)
        ax.set_xlabel(self.xlabel)
        ax.set_title(here.title)
        if panel == 0:
            ax.set_ylabel(self.ylabel)
        if panel == len(self.shown) - 1:
            if any(p.sim_low == p.sim_low for shown in self.shown for line in shown.lines for p in line.points):
                interval_key(ax, "95%", "a method's slots")
            # A panel without slots has no lines: the legend is gathered from all.
            shared_legend(ax)


@dataclass(frozen=True)
class PairForest:
    """Difference of two models' accuracies, a row for each pair, the first pair on top."""

    labels: tuple[str, ...]
    points: tuple[Point, ...]
    margin: float
    caption: str
    name: str = "pairs"
    title: str = "Difference of accuracy (percentage points)"
    panels: int = 1
    sharey: bool = False

    @property
    def size(self) -> tuple[float, float]:
        """Inches; a row keeps its height."""
        return (7.0, 1.4 + 0.28 * len(self.labels))

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw on one pair of axes."""
        light_grid(ax, "x")
        ax.axvspan(-self.margin, self.margin, color="#EFEFEF", zorder=0)
        ax.axvline(0, color="#555555", linewidth=0.8, zorder=1)
        forest(ax, self.points, BLUE)
        ax.set_yticks(range(len(self.labels)), self.labels)
        ax.set_ylim(len(self.labels) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("accuracy of the first minus the second (pp)")
        ax.set_title(self.title)
