"""The operations study's figures of geometry: components and similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from thoughtgraft.report.document import percent
from thoughtgraft.report.figures.kit import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, Skipped
from thoughtgraft.studies.operations.figures import TargetData

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


VIEWS = ("raw", "centred", "whitened")


@dataclass(frozen=True)
class SimilarityMaps:
    """Per view a map [layer, slot] of the Mantel correlation, and where its q is below alpha."""

    values: tuple[np.ndarray, ...]
    marked: tuple[np.ndarray, ...]
    slots: tuple[str, ...]
    layers: tuple[int, ...]
    caption: str
    name: str
    title: str
    panels: int = 3
    sharey: bool = True

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return (10.4, float(np.clip(1.9 + 0.25 * len(self.layers), 3.2, 9.0)))

    @classmethod
    def from_target(cls, target: TargetData, alpha: float) -> SimilarityMaps:
        """From the similarity table."""
        table = target.table("similarity")
        slots = tuple(dict.fromkeys(map(str, table.slot)))
        layers = tuple(sorted({int(layer) for layer in table.layer}))
        values, marked = [], []
        for view in VIEWS:
            grid, mark = np.full((len(layers), len(slots)), np.nan), np.zeros((len(layers), len(slots)), dtype=bool)
            rows = table[table["view"] == view]
            for slot, layer, r, q in zip(rows.slot, rows.layer, rows.mantel_r, rows.q, strict=True):
                place = layers.index(int(layer)), slots.index(str(slot))
                grid[place], mark[place] = r, q < alpha
            values.append(grid)
            marked.append(mark)
        like = "being of one class" if target.kind == "class" else "having near values"
        caption = (
            f"Correlation, over pairs of problems, of the cosine of their residual streams with {like} (Mantel), "
            f"n = {int(table.n.iloc[0])} problems of the stratum {target.stratum}. Raw: as they are; centred and "
            "whitened: by the training folds, pairs of one test fold. A dot: q below "
            f"{alpha:g} (labels of problems permuted, Benjamini-Hochberg over the table). Exploratory; cosines within "
            "and between classes and PERMANOVA are in the table."
        )
        name, title = f"similarity_{target.slug}", f"Similarity of thoughts and {target.name!r}"
        return cls(tuple(values), tuple(marked), slots, layers, caption, name, title)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one view."""
        reach = max(0.05, *(float(np.abs(v[np.isfinite(v)]).max(initial=0)) for v in self.values))
        image = ax.imshow(self.values[panel], aspect="auto", origin="lower", cmap="RdBu", vmin=-reach, vmax=reach)
        for row, column in np.argwhere(self.marked[panel]):
            ax.plot(column, row, "o", color="#222222", markersize=3)
        ax.set_xticks(range(len(self.slots)), self.slots, fontsize=7.5)
        ax.set_yticks(range(len(self.layers)), [str(layer) for layer in self.layers])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if not panel:
            ax.set_ylabel("residual stream after layer")
        ax.set_title(VIEWS[panel])
        if panel == len(VIEWS) - 1:
            bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.03)
            bar.set_label("Mantel r")
            bar.outline.set_visible(False)


@dataclass(frozen=True)
class CellAlignment:
    """Debiased CKA [cell, cell]; cells lie layer by layer, `layers` and `slots` name them."""

    cka: np.ndarray
    layers: tuple[int, ...]
    slots: tuple[str, ...]
    caption: str
    name: str
    title: str = "Likeness of cells: debiased CKA"
    panels: int = 1
    sharey: bool = False
    size: tuple[float, float] = (6.6, 5.8)

    @classmethod
    def from_target(cls, target: TargetData) -> CellAlignment | Skipped:
        """From the CKA table, whose rows lie in the order of the cells."""
        table, name = target.table("cka"), f"cka_{target.slug}"
        n = round(np.sqrt(len(table)))
        if n < 2:
            return Skipped(name, cls.title, "It needs two cells.")
        first = table.iloc[::n]
        layers, slots = tuple(int(x) for x in first.layer_a), tuple(map(str, first.slot_a))
        caption = (
            f"Debiased CKA of every two cells over n = {int(table.n.iloc[0])} problems: 1 where they arrange the "
            "problems alike up to rotation, 0 on average where they are unrelated. Cells lie layer by layer; within a "
            f"layer in the order {', '.join(dict.fromkeys(slots))}."
        )
        return cls(table.cka.to_numpy(dtype=float).reshape(n, n), layers, slots, caption, name)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw the matrix with a line between layers."""
        image = ax.imshow(np.ma.masked_invalid(self.cka), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        starts = [i for i in range(len(self.layers)) if i == 0 or self.layers[i] != self.layers[i - 1]]
        width = len(self.layers) / len(starts)
        for start in starts[1:]:
            ax.axhline(start - 0.5, color="white", linewidth=0.6)
            ax.axvline(start - 0.5, color="white", linewidth=0.6)
        middles = [start + width / 2 - 0.5 for start in starts]
        names = [str(self.layers[start]) for start in starts]
        ax.set_xticks(middles, names)
        ax.set_yticks(middles, names)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("layer (positions within)")
        ax.set_ylabel("layer (positions within)")
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.03)
        bar.set_label("CKA")
        bar.outline.set_visible(False)
        ax.set_title(self.title)
