"""Seeds of resampling, multiplicity, and sign flips."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from math import factorial

import numpy as np
from scipy import optimize, special, stats


def family_rng(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and on what it is for, not on the order of computation."""
    return np.random.default_rng([seed, *"|".join(names).encode()])


def multiplicities(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n clusters is drawn, shape [resample, cluster]."""
    # Counting drawn indices is many times faster than numpy's multinomial, and the same distribution.
    drawn = rng.integers(0, n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)


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


def resampling_p(exceed: np.ndarray | int, resamples: int) -> np.ndarray:
    """(b + 1) / (B + 1): never 0, and valid at any B (Phipson, Smyth 2010)."""
    return (np.asarray(exceed) + 1.0) / (resamples + 1.0)


def sign_flip_max_t(host_means: np.ndarray, rng: np.random.Generator, resamples: int = 9_999) -> np.ndarray:
    """Family-wise p of each slot: host profiles change sign together, the largest |t| over slots is the reference.

    Conditional on the donors drawn: where donors vary it rejects a true null too often, so it is a second opinion
    only. (Westfall, Young 1993, for max-T; Nichols, Holmes 2002, for sign flips.)

    Args:
        host_means: Mean paired difference, shape [host, slot]; every host has every slot.
        rng: Source of the signs.
        resamples: Number B of sign vectors.

    Returns:
        Adjusted p, shape [slot]; NaN for a slot whose differences are all 0.
    """
    n = len(host_means)
    squares = (host_means**2).sum(0)
    live = squares > 0
    if n < 2 or not live.any():
        return np.full(host_means.shape[1], np.nan)
    x, ss = host_means[:, live], squares[live]

    def statistic(sums: np.ndarray) -> np.ndarray:
        # The sum of squares is the same under every flip, so t is a function of the flipped sum alone.
        variance = np.maximum(ss - sums**2 / n, 1e-12 * ss) / (n - 1)
        return np.asarray(np.abs(sums) / np.sqrt(n * variance))

    signs = rng.integers(0, 2, size=(resamples, n), dtype=np.int8) * 2.0 - 1.0
    largest = statistic(signs @ x).max(1)
    observed = statistic(x.sum(0))
    exceed = (largest[:, None] >= observed[None] * (1 - 1e-9)).sum(0)
    p = np.full(host_means.shape[1], np.nan)
    p[live] = resampling_p(exceed, resamples)
    return p


def exact_correlation_p(x: np.ndarray, y: np.ndarray) -> float:
    """Two-sided p of Pearson's r over all orders of y (720 for six slots); NaN beyond 8 points or without spread."""
    k = len(x)
    a, b = x - x.mean(), y - y.mean()
    if factorial(k) > 50_000 or not (a @ a > 0 and b @ b > 0):
        return np.nan
    products = np.abs(b[np.array(list(permutations(range(k))))] @ a)
    return float(np.mean(products >= abs(a @ b) * (1 - 1e-9) - 1e-15))
