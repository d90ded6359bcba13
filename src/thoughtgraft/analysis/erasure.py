"""Take a label out of features by an affine map, changing them least (LEACE), and random directions to hold it against.

Belrose et al. (2023), LEACE: Perfect linear concept erasure in closed form, arXiv 2306.03819. Written from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from sklearn.covariance import ledoit_wolf_shrinkage

from thoughtgraft.errors import AnalysisError

_NOTHING = 1e-9  # a singular value below this share of the largest is rounding
_STEEPEST = 16.0


@dataclass(frozen=True)
class Eraser:
    """The affine map x -> x - U V^T (x - mean), a projection along U of rank r.

    Attributes:
        u: [d, r].
        v: [d, r], with V^T U = 1.
        mean: [d], which it leaves where it is.
        removed: The variance of the features that it takes out (summed over dimensions, shrunk as in the fit).
    """

    u: np.ndarray
    v: np.ndarray
    mean: np.ndarray
    removed: float

    @property
    def rank(self) -> int:
        """R."""
        return int(self.u.shape[1])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The features [n, d] without the subspace."""
        return np.asarray(x - (x - self.mean) @ self.v @ self.u.T)

    def change(self, x: np.ndarray) -> float:
        """How far it moves features [n, d]: the mean over rows of |x' - x| / |x|."""
        return float((np.linalg.norm(self(x) - x, axis=1) / np.linalg.norm(x, axis=1)).mean())


@dataclass(frozen=True)
class Fit:
    """The erasure of one label from features, and the geometry in which it changes them least.

    Attributes:
        eraser: The erasure; its rank is the number of classes less 1, or less where class means lie in a lower space.
        basis: Orthonormal directions in which the training rows vary [d, m].
        scale: Their standard deviations, shrunk [m]; dividing by them whitens.
        whitened: The erased directions in whitened coordinates, orthonormal [m, r].
    """

    eraser: Eraser
    basis: np.ndarray
    scale: np.ndarray
    whitened: np.ndarray

    def random(self, draws: int, seed: Sequence[int]) -> list[Eraser]:
        """Erasers of the same rank that take as much variance out, and nothing of the label.

        Directions are drawn in the whitened geometry, orthogonal there to the erased ones, so that the class means of
        the training rows stay exactly where they were. A label tends to lie along directions of more than average
        variance, and an edit that moves states further breaks more whatever it means; so the draws are tilted towards
        directions of large (or small) variance, sd^t with one t for all, until they take out on average what the
        erasure does. Where no tilt reaches that, the nearest is taken, and `change` shows the gap.

        Args:
            draws: How many.
            seed: Seeds the draws.

        Raises:
            AnalysisError: Too few directions are left to draw from.
        """
        rank, free = self.eraser.rank, len(self.scale) - self.eraser.rank
        if free < rank:
            raise AnalysisError(
                "no random directions are left beside the erased ones",
                got=f"{len(self.scale)} directions in all, {rank} erased",
                fix="fit on more problems",
            )
        normal = np.random.default_rng(list(seed)).standard_normal((draws, len(self.scale), rank))
        log_scale = np.log(self.scale / self.scale.max())[:, None]

        def tilted(tilt: float) -> np.ndarray:
            # Columns are brought to one length first: a steep tilt makes them tiny.
            drawn = normal * np.exp(tilt * log_scale - max(0.0, float((tilt * log_scale).max())))
            drawn = drawn - self.whitened @ (self.whitened.T @ drawn)
            return np.asarray(np.linalg.qr(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))[0])

        def gap(tilt: float) -> float:
            return float(np.mean(np.sum((self.scale[:, None] * tilted(tilt)) ** 2, (1, 2)))) - self.eraser.removed

        low, high = gap(-_STEEPEST), gap(_STEEPEST)
        if low < 0 < high:
            tilt = float(brentq(gap, -_STEEPEST, _STEEPEST, xtol=1e-6))
        else:
            tilt = _STEEPEST if high <= 0 else -_STEEPEST
        return [self._eraser(q) for q in tilted(tilt)]

    def _eraser(self, whitened: np.ndarray) -> Eraser:
        return _unwhitened(whitened, self.basis, self.scale, self.eraser.mean)


def fit_erasure(x: np.ndarray, labels: Sequence[object], shrinkage: float | None = None) -> Fit:
    """The least change of features after which no linear classifier of the label beats a constant one on these rows.

    With W = S^(-1/2), S the covariance of the features, the erased directions span W C, C being their covariance with
    the classes: x' = x - W^-1 Q Q^T W (x - mean). Whatever S is, the classes then have equal means; with the true
    covariance the mean squared change is the least possible. With fewer rows than dimensions S is singular: it is
    taken within the span of the rows, and its eigenvalues are shrunk towards their mean (Ledoit-Wolf), so that
    directions which hardly vary by chance do not count as free of cost.

    Args:
        x: Features [n, d].
        labels: The class of each row.
        shrinkage: How far eigenvalues go towards their mean, 0 to 1; None is Ledoit-Wolf's choice.

    Raises:
        AnalysisError: Fewer than two classes, too few rows, or class means that do not differ.
    """
    x = np.asarray(x, dtype=np.float64)
    classes, codes = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    if len(classes) < 2 or len(x) <= len(classes):
        raise AnalysisError(
            "a label needs two classes or more, and more rows than classes, to be erased",
            got=f"{len(classes)} classes, {len(x)} rows",
        )
    mean = x.mean(0)
    centred = x - mean
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    kept = singular > _NOTHING * max(singular[0], np.finfo(float).tiny)
    basis = directions[kept].T
    if shrinkage is None:
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True)) if kept.any() else 0.0
    variance = singular[kept] ** 2 / len(x)
    scale = np.sqrt((1 - shrinkage) * variance + shrinkage * variance.sum() / x.shape[1])
    indicator = np.eye(len(classes))[codes]
    shared = (basis.T @ (centred.T @ (indicator - indicator.mean(0)))) / len(x) / scale[:, None]
    left, strength, _ = np.linalg.svd(shared, full_matrices=False)
    # An absolute bound: in whitened coordinates a label of equal means has only rounding left.
    rank = int((strength > 1e-7).sum())
    if rank == 0:
        raise AnalysisError("the classes have the same mean, so there is nothing to erase", got=", ".join(classes))
    whitened = left[:, :rank]
    return Fit(_unwhitened(whitened, basis, scale, mean), basis, scale, whitened)


def _unwhitened(whitened: np.ndarray, basis: np.ndarray, scale: np.ndarray, mean: np.ndarray) -> Eraser:
    along = scale[:, None] * whitened
    return Eraser(basis @ along, basis @ (whitened / scale[:, None]), mean, float((along**2).sum()))
