"""Adjusted p-values (Holm, Benjamini-Hochberg) for families in which some p-values are undefined."""

from __future__ import annotations

import numpy as np
from statsmodels.stats.multitest import multipletests


def _adjust(p: np.ndarray, method: str) -> np.ndarray:
    p = np.asarray(p, dtype=float)
    if not len(p):
        return p
    # An undefined p still belongs to the family: as a 1 it can never be rejected, and the others pay for it.
    adjusted = multipletests(np.where(np.isnan(p), 1.0, p), method=method)[1]
    return np.where(np.isnan(p), np.nan, adjusted)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values (family-wise error); NaN stays NaN but counts in the family's size."""
    return _adjust(p, "holm")


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values (false discovery rate); NaN stays NaN but counts in the family's size."""
    return _adjust(p, "fdr_bh")
