"""Scores of predictions, their corrected intervals, and permutation by exchange."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from thoughtgraft.probing.rows import Folds


@dataclass(frozen=True)
class Outcome:
    """What one probe did at one place.

    Attributes:
        score: Balanced accuracy or R2 in each fold, shape [fold].
        details: Means over folds of the other scores, by name; NaN where undefined.
        confusion: Rows true, columns predicted, summed over folds, [class, class]; None for numbers.
        control: Score on the control task in each fold; None where there is no control task.
        null: Score under each permutation of the labels; None where it was not permuted.
        d: Features that the probe read.
    """

    score: np.ndarray
    details: dict[str, float]
    d: int
    confusion: np.ndarray | None = None
    control: np.ndarray | None = None
    null: np.ndarray | None = field(default=None, repr=False)

    @property
    def mean(self) -> float:
        """Mean score over folds."""
        return float(np.mean(self.score))


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Mean recall over the classes that occur, for many label vectors at once.

    Args:
        truth: Codes, shape [row, vector].
        predicted: Codes, same shape.
        n_classes: Number of classes.

    Returns:
        Shape [vector].
    """
    recalls, seen = np.zeros(truth.shape[1]), np.zeros(truth.shape[1])
    for code in range(n_classes):
        mask = truth == code
        n = mask.sum(0)
        recalls += (mask & (predicted == code)).sum(0) / np.maximum(n, 1)
        seen += n > 0
    return np.asarray(recalls / seen)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts, rows true and columns predicted, [class, class]."""
    return np.bincount(truth * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def class_scores(confusions: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Balanced accuracy by fold, and the means over folds of accuracy, macro-F1 and MCC.

    Args:
        confusions: Shape [fold, class, class].

    Returns:
        Balanced accuracy [fold] (classes absent from a fold's test rows do not count), and acc, macro_f1 (over
        classes that occur or are predicted), mcc (multi-class, Gorodkin 2004; folds where it is 0/0 left out).
    """
    c = np.asarray(confusions, dtype=float)
    right, true, said = np.diagonal(c, axis1=1, axis2=2), c.sum(2), c.sum(1)
    n = c.sum((1, 2))
    present = true > 0
    balanced = np.where(present, right / np.maximum(true, 1), 0).sum(1) / present.sum(1)
    either = true + said
    f1 = np.where(either > 0, 2 * right / np.maximum(either, 1), 0).sum(1) / (either > 0).sum(1)
    top = n * right.sum(1) - (true * said).sum(1)
    bottom = np.sqrt((n**2 - (said**2).sum(1)) * (n**2 - (true**2).sum(1)))
    mcc = top[bottom > 0] / bottom[bottom > 0]
    accuracy = right.sum(1) / n
    return balanced, {
        "acc": float(accuracy.mean()),
        "macro_f1": float(f1.mean()),
        "mcc": float(mcc.mean()) if len(mcc) else np.nan,
    }


def r_squared(truth: np.ndarray, predicted: np.ndarray, mean: np.ndarray | float) -> np.ndarray:
    """1 - squared error / squared error of the training mean, by vector: negative where the mean does better.

    Args:
        truth: Numbers, shape [row, vector].
        predicted: Numbers, same shape.
        mean: Mean of each vector's training rows.
    """
    errors = ((truth - predicted) ** 2).sum(0)
    return np.asarray(1 - errors / np.maximum(((truth - mean) ** 2).sum(0), 1e-12))


def rank_correlation(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's rho of one vector; NaN where either side has no spread."""
    if len(truth) < 3 or np.ptp(truth) == 0 or np.ptp(predicted) == 0:
        return np.nan
    return float(stats.spearmanr(truth, predicted).statistic)


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


def label_orders(groups: np.ndarray, split: np.ndarray, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Orders of the rows under the null; `labels[orders]` are the permuted labels.

    The unit of exchange is a group (all rows of one question), against groups of the same size in the same split. A
    group that has no partner keeps its labels in every permutation, which makes the test conservative, never wrong.

    Args:
        groups: Group codes, shape [row].
        split: Split of each row, shape [row]; a group's is that of its first row.
        permutations: How many.
        rng: Source of the orders.

    Returns:
        Places, int [permutation + 1, row]; the first is the identity: the labels as they are.
    """
    orders = np.tile(np.arange(len(groups)), (permutations + 1, 1))
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(int(group), []).append(row)
    kinds: dict[tuple[str, int], list[list[int]]] = {}
    for rows in members.values():
        kinds.setdefault((str(split[rows[0]]), len(rows)), []).append(rows)
    for blocks in (np.array(kinds[kind]) for kind in sorted(kinds)):
        for order in orders[1:]:
            order[blocks] = blocks[rng.permutation(len(blocks))]
    return orders
