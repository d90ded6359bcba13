"""Principal components of a cell: where each problem lies, and how much of the variance the picture shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHOWN = 3
LISTED = 10


@dataclass(frozen=True)
class Components:
    """Coordinates [row, 3] on the leading components of standardised features, and the variance shares of up to 10."""

    coordinates: np.ndarray
    explained: np.ndarray


def components(x: np.ndarray) -> Components:
    """PCA of standardised features [row, d] by their Gram matrix or covariance, whichever is smaller.

    Each component's sign is such that its largest coordinate is positive, so that figures do not flip.
    """
    scale = x.std(0)
    z = (x - x.mean(0)) / np.where(scale > 1e-6 * np.maximum(np.abs(x.mean(0)), 1e-6), scale, np.inf)
    left, values, _ = np.linalg.svd(z.astype(np.float64), full_matrices=False)
    size = min(SHOWN, len(values))
    points = np.zeros((len(x), SHOWN))
    points[:, :size] = left[:, :size] * values[:size]
    points *= np.sign(points[np.abs(points).argmax(0), np.arange(SHOWN)] + 1e-300)
    share = values**2 / max(float((values**2).sum()), 1e-300)
    return Components(points, share[:LISTED])
