"""Adjusted p-values (Holm, Benjamini-Hochberg) for families in which some p-values are undefined."""

from __future__ import annotations

import numpy as np
from scipy import stats


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
