"""Families: adjusted p-values (Holm, Benjamini-Hochberg), and the level at which intervals hold together (max-t)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

DIRECTIONS = 8_192
"""Points of the quasi-Monte Carlo rule over directions; a power of 2, as Sobol's sequence wants."""
_BINS = 256


def _as_ones(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # An undefined p still belongs to the family: as a 1 it can never be rejected, and the others pay for it.
    p = np.asarray(p, dtype=float)
    return np.isnan(p), np.where(np.isnan(p), 1.0, p)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values (family-wise error; Holm 1979); NaN stays NaN but counts in the family's size.

    Written here because statsmodels' multipletests runs a full garbage collection on every call, which took a third
    of an analysis; the tests hold it to multipletests.
    """
    undefined, q = _as_ones(p)
    order = np.argsort(q)
    adjusted = np.empty_like(q)
    adjusted[order] = np.minimum(np.maximum.accumulate(q[order] * np.arange(len(q), 0, -1)), 1.0)
    return np.where(undefined, np.nan, adjusted)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values (false discovery rate); NaN stays NaN but counts in the family's size."""
    undefined, q = _as_ones(p)
    return np.where(undefined, np.nan, stats.false_discovery_control(q)) if len(q) else q


@lru_cache(maxsize=64)
def _directions(dimensions: int) -> np.ndarray:
    """Evenly spread directions, shape [DIRECTIONS, dimensions], always the same."""
    points = stats.qmc.Sobol(dimensions, seed=0).random(DIRECTIONS)
    normal = special.ndtri(np.clip(points, 1e-12, 1 - 1e-12))
    return np.asarray(normal / np.linalg.norm(normal, axis=1, keepdims=True))


def simultaneous_level(covariance: np.ndarray, df: float, alpha: float = 0.05) -> float:
    """The level at which each interval of a family must be made so that all hold together: single-step max-t.

    The critical value c solves P(max |T_i| <= c) = 1 - alpha for a multivariate t of the estimates' correlation
    (Hothorn, Bretz, Westfall 2008, Simultaneous inference in general parametric models, Biom. J. 50(3)). A point of it
    is a direction times a radius whose square is d times an F with (d, df): the radius is integrated exactly, the
    directions by a fixed quasi-Monte Carlo rule, so that the result is the same on every machine.

    Args:
        covariance: Covariance of the estimates, shape [member, member].
        df: Degrees of freedom of the family.
        alpha: Error of the whole family.

    Returns:
        P(|T_i| > c) of one member, between alpha / members and alpha; alpha / members (Bonferroni) where the
        covariance is not positive semi-definite.
    """
    size = len(covariance)
    if size == 1:
        return alpha
    scale = np.sqrt(np.diag(covariance))
    try:
        # The root of a matrix is Cholesky's, which is the only one: eigenvectors' signs differ between machines.
        root = np.linalg.cholesky(covariance / np.outer(scale, scale) + 1e-9 * np.eye(size))
    except np.linalg.LinAlgError:
        return alpha / size
    if not df > 0:
        return alpha / size
    reach = np.sort(np.abs(_directions(size) @ root.T).max(1)).reshape(_BINS, -1).mean(1)
    df = min(df, 1e9)

    def excess(c: float) -> float:
        return float(special.fdtr(size, df, (c / reach) ** 2 / size).mean()) - (1 - alpha)

    ends = [float(special.stdtrit(df, 1 - level / 2)) for level in (alpha, alpha / size)]
    if excess(ends[1]) <= 0:
        return alpha / size
    c = ends[0] if excess(ends[0]) >= 0 else float(optimize.brentq(excess, *ends, xtol=1e-6))
    return float(2 * special.stdtr(df, -c))
