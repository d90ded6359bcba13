"""Where features come from: anything that gives a matrix for a layer and a position; and the cells of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from thoughtgraft.errors import AnalysisError

BOT = "BOT"
RESID, MEAN, LAYERS, UNTRAINED, HIDDEN = "resid", "mean", "layers", "untrained", "hidden"


class FeatureSource(Protocol):
    """Residual streams of some problems, at some layers and latent positions."""

    @property
    def ids(self) -> Sequence[str]:
        """Problem ids, in the order of the matrices' rows."""
        ...

    @property
    def layers(self) -> Sequence[int]:
        """Layers, as the model counts its blocks (0-based: after block l)."""
        ...

    @property
    def positions(self) -> Sequence[str]:
        """Latent positions: BOT, CT0, CT1, ..."""
        ...

    def matrix(self, layer: int | str, position: str) -> np.ndarray:
        """The residual stream there, float32 [problem, d]; for the layer "hidden" the final-normed state."""
        ...


@dataclass(frozen=True)
class ArrayFeatures:
    """Features that lie in memory: `values` [problem, layer, position, d]."""

    ids: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.ids), len(self.layers), len(self.positions))
        if self.values.ndim != 4 or self.values.shape[:3] != expected:
            raise AnalysisError(
                "the features' shape does not fit their names",
                got=self.values.shape,
                expected=f"{expected} (problems, layers, positions), then the width",
            )

    def matrix(self, layer: int | str, position: str) -> np.ndarray:
        """The residual stream there, float32 [problem, d]."""
        found = self.values[:, self.layers.index(int(layer)), self.positions.index(position)]
        return np.ascontiguousarray(found, dtype=np.float32)


@dataclass(frozen=True)
class Place:
    """One cell: which features a probe reads.

    Attributes:
        slot: BOT, CTk, or `mean(CT)` for the mean over the thoughts.
        layer: The layer; None where all are joined.
        features: `resid` (a cell of the map), `mean` (over thoughts), `layers` (all layers side by side), `hidden`
            (the final-normed state, of which a thought is made), or `untrained` (a cell of the map, of an untrained
            model of the same shape).
    """

    slot: str
    layer: int | None
    features: str = RESID

    @property
    def label(self) -> str:
        """For people: `CT2, layer 8`."""
        if self.features == HIDDEN:
            return f"{self.slot}, final state"
        return f"{self.slot}, {'all layers' if self.layer is None else f'layer {self.layer}'}"

    def load(self, source: FeatureSource, rows: np.ndarray) -> np.ndarray:
        """The matrix [row, d], float32, of the rows wanted.

        Raises:
            AnalysisError: A value is not finite.
        """
        if self.features == MEAN:
            assert self.layer is not None
            thoughts = [p for p in source.positions if p != BOT]
            x = np.stack([source.matrix(self.layer, p)[rows] for p in thoughts]).mean(axis=0)
        elif self.features == HIDDEN:
            x = source.matrix(HIDDEN, self.slot)[rows]
        elif self.layer is None:
            x = np.concatenate([source.matrix(layer, self.slot)[rows] for layer in source.layers], axis=1)
        else:
            x = source.matrix(self.layer, self.slot)[rows]
        if not np.isfinite(x).all():
            raise AnalysisError(
                f"the features at {self.label} hold values that are not numbers",
                got=f"{int((~np.isfinite(x)).any(axis=1).sum())} of {len(x)} rows",
                fix="extract them again, or leave these problems out of the labels",
            )
        return np.asarray(x, dtype=np.float32)


def map_places(source: FeatureSource, features: str = RESID) -> list[Place]:
    """The slot x layer map, layer by layer."""
    return [Place(slot, layer, features) for layer in source.layers for slot in source.positions]


def joined_places(source: FeatureSource) -> list[Place]:
    """Beside the map: the mean over thoughts at each layer, all layers side by side, and the final state at BOT."""
    thoughts = [p for p in source.positions if p != BOT]
    means = [Place("mean(CT)", layer, MEAN) for layer in source.layers] if len(thoughts) > 1 else []
    whole = [Place(slot, None, LAYERS) for slot in source.positions] if len(source.layers) > 1 else []
    final = [Place(BOT, None, HIDDEN)] if getattr(source, "has_hidden", False) and BOT in source.positions else []
    return means + whole + final
