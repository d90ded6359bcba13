"""Sign-flip test over hosts with the maximum statistic over slots, and exact permutations of short profiles."""

from __future__ import annotations

from itertools import permutations
from math import factorial

import numpy as np


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
