"""Impact profiles over slots: correlations, their reliability, and correlations freed of sampling noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate with a percentile interval; NaN with a `note` where undefined."""

    value: float
    low: float
    high: float
    note: str = ""


def correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r along the last axis; NaN where a profile is flat. Shapes [..., slot] -> [...]."""
    a, b = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    flat = scale <= 1e-12
    return np.where(flat, np.nan, (a * b).sum(-1) / np.where(flat, 1.0, scale))


def rank_correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rho along the last axis (mean ranks for ties)."""
    return correlate(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


def percentile(value: float, draws: np.ndarray, what: str, level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap draws; undefined if over 5% of them are."""
    lost = float(np.mean(~np.isfinite(draws)))
    if not np.isfinite(value) or lost > 0.05:
        why = f"{what} is undefined" + (f" in {lost:.0%} of the resamples" if np.isfinite(value) else "")
        return Interval(value, np.nan, np.nan, why)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def split_half_reliability(x: np.ndarray, rng: np.random.Generator, splits: int = 1_000) -> float:
    """Reliability of the mean profile: correlation of random halves of the hosts, stepped up to all of them.

    The mean r over splits enters the Spearman-Brown formula 2r / (1 + r) (Spearman 1910; Brown 1910).

    Args:
        x: Host profiles, shape [host, slot].
        rng: Source of the splits.
        splits: Number of random splits.

    Returns:
        The reliability (may be negative: no stable profile); NaN with fewer than 4 hosts or a flat profile.
    """
    n = len(x)
    if n < 4:
        return np.nan
    half = np.argsort(rng.random((splits, n)), axis=1)[:, : n // 2]
    chosen = np.zeros((splits, n))
    np.put_along_axis(chosen, half, 1.0, axis=1)
    first, second = chosen @ x / (n // 2), (1 - chosen) @ x / (n - n // 2)
    r = correlate(first, second)
    if not np.isfinite(r).any():
        return np.nan
    mean = float(np.nanmean(r))
    return 2 * mean / (1 + mean) if mean > -1 else np.nan


class CrossHost:
    """Disattenuated correlation of two profiles, from products of *different* hosts only.

    The textbook correction r / sqrt(rel_x rel_y) (Spearman 1904) supposes that the two profiles' errors are
    independent; here both come from the same hosts, whose quirks they share, which would push r up. Products of
    different hosts share no error: their covariances over slots are unbiased for those of the true profiles, the ratio
    cov / sqrt(var_x var_y) is the disattenuated r, and a host resample keeps it unbiased as long as copies of one host
    are never multiplied with each other.

    Args:
        x, y: Host profiles of the two methods, shape [host, slot], same hosts and slots.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        a, b = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
        self._products = [a @ b.T, a @ a.T, b @ b.T]
        for product in self._products:
            np.fill_diagonal(product, 0.0)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The correlation for host multiplicities [resample, host]; NaN where a true variance is not positive."""
        xy, xx, yy = (((weights @ product) * weights).sum(1) for product in self._products)
        ok = (xx > 1e-12) & (yy > 1e-12)
        return np.where(ok, xy / np.sqrt(np.where(ok, xx * yy, 1.0)), np.nan)
