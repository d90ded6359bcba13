"""Scores of predictions: for classes from the confusion matrix, for numbers from the errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import stats


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
