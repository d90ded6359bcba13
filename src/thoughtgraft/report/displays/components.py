"""Figure: problems on the first two principal components of some cells, by class or value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from thoughtgraft.report.displays.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from thoughtgraft.report.formats import percent
from thoughtgraft.report.operations.data import TargetData

LOOKS = (
    (BLUE, "o"), (VERMILLION, "^"), (GREEN, "s"), (ORANGE, "D"), (PURPLE, "v"), (SKY, "P"), ("#222222", "X"),
    (GREY, "*"),
)  # fmt: skip
PANELS = 4


@dataclass(frozen=True)
class Cloud:
    """One cell: its name, points [row, 2], and the shares of variance of the two axes."""

    place: str
    points: np.ndarray
    shares: tuple[float, float]


@dataclass(frozen=True)
class ComponentClouds:
    """Up to four cells of one layer; `labels` [row] as text, or numbers where `numeric`."""

    clouds: tuple[Cloud, ...]
    labels: tuple[str, ...]
    numeric: bool
    caption: str
    name: str
    title: str
    sharey: bool = False

    @property
    def panels(self) -> int:
        """One for each cell."""
        return len(self.clouds)

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return {1: (4.8, 4.2), 2: (8.4, 4.2), 3: (10.0, 4.0)}.get(self.panels, (8.6, 7.6))

    @classmethod
    def from_target(cls, target: TargetData) -> ComponentClouds:
        """The layer of the best cell: its position, and others spread over the thoughts."""
        best, table, shares = target.best, target.table("components"), target.table("explained")
        table = table[table.layer == best["layer"]]
        slots = list(dict.fromkeys(map(str, table.slot)))
        spread = [slots[i] for i in np.linspace(0, len(slots) - 1, min(PANELS, len(slots))).round().astype(int)]
        if best["slot"] not in spread:
            nearest = min(range(1, len(spread)), key=lambda i: abs(slots.index(spread[i]) - slots.index(best["slot"])))
            spread[nearest] = best["slot"]
        clouds: list[Cloud] = []
        labels: tuple[str, ...] = ()
        for slot in spread:
            rows = table[table.slot == slot]
            own = shares[(shares.slot == slot) & (shares.layer == best["layer"])].sort_values("component").share
            pair = tuple(float(x) for x in own.iloc[:2]) if len(own) > 1 else (float("nan"), float("nan"))
            clouds.append(Cloud(slot, rows[["pc1", "pc2"]].to_numpy(), (pair[0], pair[1])))
            labels = tuple(map(str, rows.label))
        caption = (
            f"Principal components of the standardised residual stream after layer {best['layer']} (the layer of the "
            f"best cell), n = {len(labels)} problems of the stratum {target.stratum}; on the axes the share of the "
            "variance that each shows. Components know nothing of the labels: what they do not separate may still be "
            "readable, and the probe says whether it is."
        )
        name, title = f"components_{target.slug}", f"Principal components by {target.name!r}"
        return cls(tuple(clouds), labels, target.kind == "number", caption, name, title)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one cell."""
        cloud = self.clouds[panel]
        if self.numeric:
            values = np.array([float(label) for label in self.labels])
            dots = ax.scatter(*cloud.points.T, c=values, cmap="viridis", s=12, linewidths=0)
            ax.figure.colorbar(dots, ax=ax, shrink=0.8, pad=0.02).outline.set_visible(False)
        else:
            for i, label in enumerate(dict.fromkeys(sorted(self.labels))):
                colour, marker = LOOKS[i % len(LOOKS)]
                inside = np.array([own == label for own in self.labels])
                ax.plot(*cloud.points[inside].T, marker, color=colour, markersize=3.4, alpha=0.7, label=label,
                        markeredgewidth=0)  # fmt: skip
            if panel == 0:
                ax.legend(loc="best", markerscale=1.6, frameon=True, framealpha=0.85, edgecolor="none")
        ax.set_xlabel(f"component 1 ({percent(cloud.shares[0], 0)})")
        ax.set_ylabel(f"component 2 ({percent(cloud.shares[1], 0)})")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_title(cloud.place)
