"""Intervals of cross-validated scores: the corrected resampled t, which knows that training sets overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from thoughtgraft.analysis.probing.folds import Folds

NO_SPREAD = "every fold gave the same value: no interval"


@dataclass(frozen=True)
class Interval:
    """A mean over folds with its 95% interval and the one-sided p of a mean <= 0; NaN with the reason in `note`.

    Attributes:
        value: The mean.
        low: Lower bound.
        high: Upper bound.
        p: Small where the mean is above 0.
        error: Standard error.
        df: Degrees of freedom.
        note: Why something is undefined.
    """

    value: float
    low: float
    high: float
    p: float
    error: float
    df: int
    note: str = ""

    def lower(self, alpha: float) -> float:
        """One-sided lower bound that holds with probability 1 - alpha; NaN where there is no interval."""
        return self.value - float(stats.t.ppf(1 - alpha, self.df)) * self.error

    def upper(self, alpha: float) -> float:
        """One-sided upper bound that holds with probability 1 - alpha; NaN where there is no interval."""
        return self.value + float(stats.t.ppf(1 - alpha, self.df)) * self.error


def unknown(note: str = "") -> Interval:
    """A quantity that does not exist here, and why."""
    return Interval(np.nan, np.nan, np.nan, np.nan, np.nan, 0, note)


def corrected_t(scores: np.ndarray, folds: Folds) -> Interval:
    """Mean of scores over J = k x r folds with the variance (1/J + n_test/n_train) s^2 and J - 1 degrees of freedom.

    Scores of overlapping training sets are correlated, so s^2/J is too small; the correction is that of Nadeau and
    Bengio (Inference for the Generalization Error, Machine Learning 52, 2003), for repeated k-fold as in Bouckaert and
    Frank (PAKDD 2004).

    Args:
        scores: One score (or paired difference) per fold, shape [fold].
        folds: The folds that gave them.
    """
    scores = np.asarray(scores, dtype=float)
    if not np.isfinite(scores).all() or len(scores) < 2:
        return unknown()
    mean, spread = float(scores.mean()), float(scores.std(ddof=1))
    if spread < 1e-12:
        return Interval(mean, np.nan, np.nan, np.nan, np.nan, 0, NO_SPREAD)
    ratio = np.mean([len(f.test) / len(f.train) for f in folds.folds])
    error = spread * float(np.sqrt(1 / len(scores) + ratio))
    df = len(scores) - 1
    half = float(stats.t.ppf(0.975, df)) * error
    return Interval(mean, mean - half, mean + half, float(stats.t.sf(mean / error, df)), error, df)
