"""Figure: swap against ablation, one point per slot, with its intervals and joint region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.displays.base import Skipped
from thoughtgraft.report.displays.style import light_grid, look
from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import estimate, plural
from thoughtgraft.report.tables import edited, is_single

TITLE = "Impact of swapping against impact of ablating, by slot (percentage points)"


@dataclass(frozen=True)
class Dot:
    """One slot: impacts (ablation, swap) in pp, their intervals, and the joint region's outline, shape [point, 2]."""

    slot: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    region: np.ndarray


@dataclass(frozen=True)
class SwapAgainstAblation:
    """One panel for each ablation that was run at three slots or more."""

    dots: tuple[tuple[str, tuple[Dot, ...], str], ...]
    limits: tuple[float, float]
    caption: str
    name: str = "agreement"
    title: str = TITLE
    sharey: bool = False

    @property
    def panels(self) -> int:
        """One for each ablation."""
        return len(self.dots)

    @property
    def size(self) -> tuple[float, float]:
        """Inches; panels are square."""
        return {1: (4.8, 5.0), 2: (8.0, 4.7), 3: (9.6, 4.2)}.get(self.panels, (8.0, 8.8))

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> SwapAgainstAblation | Skipped:
        """From the position and agreement tables, with the covariance of the hosts' means for the joint regions."""
        table = edited(analysis)
        table = table[[is_single(str(label)) for label in table.slots]]
        agreements = {row["method_b"]: row for row in records_of(analysis.agreement)}
        if not agreements:
            return Skipped(cls.name, TITLE, "It needs swap and an ablation (mean, zero, skip or noise) at three slots.")
        impacts = {(row["method"], row["slots"]): row for row in records_of(table)}
        panels = []
        for other, row in agreements.items():
            slots = [
                slot for slot in row["slots"].split(", ") if ("swap", slot) in impacts and (other, slot) in impacts
            ]
            dots = [_dot(analysis, slot, impacts[other, slot], impacts["swap", slot], other) for slot in slots]
            r = f"r = {estimate(row['r'], row['r_low'], row['r_high'], 2)}"
            panels.append(
                (other, tuple(dots), f"{r}; {plural(row['n_slots'], 'slot')}, {plural(row['n_hosts'], 'host')}")
            )
        reach = np.concatenate([[*d.x, *d.y, *d.region.ravel()] for _, dots, _ in panels for d in dots])
        reach = reach[np.isfinite(reach)]
        pad = 0.06 * max(float(np.ptp(reach)), 1.0)
        caption = (
            f"Each point is a slot; crosses are its two {analysis.decision.rule.level} intervals, each alone; the "
            "shaded region is the joint 95% region (normal approximation; correlation of the two impacts over "
            "hosts). On the diagonal both methods cost the same. r is over slots, as they stand; its interval is "
            "from resampling hosts and donors jointly, and n stands in each panel. The verdict is made of r "
            "corrected for noise, in the table. Six points cannot carry a p-value, so none is given."
        )
        return cls(tuple(panels), (float(reach.min()) - pad, float(reach.max()) + pad), caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one ablation's panel."""
        other, dots, text = self.dots[panel]
        colour, marker = look(other)
        light_grid(ax, "both")
        ax.plot(self.limits, self.limits, color="#999999", linewidth=0.8, linestyle="--", zorder=1)
        for dot in dots:
            if len(dot.region):
                ax.fill(*dot.region.T, color=colour, alpha=0.13, linewidth=0, zorder=2)
            ax.plot(dot.x[1:], [dot.y[0]] * 2, color=colour, linewidth=1, zorder=3)
            ax.plot([dot.x[0]] * 2, dot.y[1:], color=colour, linewidth=1, zorder=3)
            ax.plot(dot.x[0], dot.y[0], marker, color=colour, markersize=5, zorder=4)
        for place, names in self._labels(dots):
            ax.annotate(names, place, xytext=(4, 4), textcoords="offset points", fontsize=7.5, zorder=5)
        ax.set_xlim(self.limits)
        ax.set_ylim(self.limits)
        ax.set_aspect("equal")
        ax.set_xlabel(f"accuracy lost by {other} (pp)")
        if panel == 0 or (panel == 2 and self.panels == 4):
            ax.set_ylabel("accuracy lost by swap (pp)")
        ax.set_title(text, fontsize=8.5, fontweight="normal")

    def _labels(self, dots: tuple[Dot, ...]) -> list[tuple[tuple[float, float], str]]:
        """Where to write which slots: points too close for labels of their own share one."""
        near = 0.05 * (self.limits[1] - self.limits[0])
        groups: list[list[Dot]] = []
        for dot in dots:
            for group in groups:
                if max(abs(group[0].x[0] - dot.x[0]), abs(group[0].y[0] - dot.y[0])) < near:
                    group.append(dot)
                    break
            else:
                groups.append([dot])
        return [((group[0].x[0], group[0].y[0]), ", ".join(dot.slot for dot in group)) for group in groups]


def _dot(analysis: Analysis, slot: str, ablation: dict[str, Any], swap: dict[str, Any], other: str) -> Dot:
    frame, k = analysis.frame, int(slot[2:])
    x = frame.host_by_slot(other)[:, k]
    y = frame.host_by_slot("swap", stratum=frame.primary_stratum())[:, k]
    both = np.isfinite(x) & np.isfinite(y)
    spread = x[both].std() * y[both].std() if both.sum() > 2 else 0.0
    rho = float(np.cov(x[both], y[both], bias=True)[0, 1] / spread) if spread > 0 else 0.0
    sx, sy = ablation["se_twoway"], swap["se_twoway"]
    region = np.empty((0, 2))
    if sx > 0 and sy > 0:
        angle = np.linspace(0, 2 * np.pi, 90)
        root = np.linalg.cholesky(np.array([[sx**2, rho * sx * sy], [rho * sx * sy, sy**2]]) + 1e-9 * np.eye(2))
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(stats.chi2.ppf(0.95, 2))
        region = circle @ root.T + [ablation["impact_pp"], swap["impact_pp"]]
    ends = [tuple(row[name] for name in ("impact_pp", "ci_low", "ci_high")) for row in (ablation, swap)]
    return Dot(slot, ends[0], ends[1], region)
