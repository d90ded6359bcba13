"""The closed-form linear probe: one factorisation of a training fold answers for every labelling of it."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from thoughtgraft.analysis.probing.scores import balanced_accuracy


class RidgeFold:
    """Ridge regression with a free intercept on one fold, ready for any number of target vectors.

    Features are standardised by the training rows. The penalty is the mean non-zero eigenvalue of the training Gram
    matrix: it does not look at labels, so every permutation of them meets the same probe and nothing is tuned. With
    more features than rows the Gram matrix is inverted (dual form: no component is dropped, so no PCA is needed),
    otherwise the covariance; either is done once, and each further target vector costs one column of a matrix product.
    Leave-one-out fits of the training rows come from the same inverse: residual / (1 - leverage).
    """

    def __init__(self, train: np.ndarray, test: np.ndarray) -> None:
        """Factorise.

        Args:
            train: Features to learn from, float32 [train row, d].
            test: Features to be asked about, float32 [test row, d].
        """
        centre, scale = train.mean(0), train.std(0)
        # A constant feature says nothing; it must not become noise by division.
        scale = np.where(scale > 1e-6 * np.maximum(np.abs(centre), 1e-6), scale, np.inf).astype(np.float32)
        self._x, self._t = (train - centre) / scale, (test - centre) / scale
        n, d = self._x.shape
        total = float(np.einsum("nd,nd->", self._x, self._x))
        penalty = max(total, 1e-6) / min(n - 1, d)
        self._dual = d >= n
        gram = self._x @ self._x.T if self._dual else self._x.T @ self._x
        gram.flat[:: len(gram) + 1] += penalty
        inverse = _inverse(gram)
        if self._dual:
            self._weights, self._test_map = inverse, self._t @ self._x.T
            self._spare = penalty * np.diagonal(inverse) - 1 / n
            self._penalty = penalty
        else:
            self._weights = inverse @ self._x.T
            self._test_map = self._t
            self._spare = 1 - 1 / n - np.einsum("nd,dn->n", self._x, self._weights)

    def scores(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions of the test rows and leave-one-out predictions of the training rows.

        Args:
            targets: Target vectors of the training rows, float32 [train row, vector].

        Returns:
            [test row, vector] and [train row, vector].
        """
        mean = targets.mean(0)
        fitted = self._weights @ (targets - mean)
        residual = self._penalty * fitted if self._dual else targets - mean - self._x @ fitted
        # A row of leverage 1 is predicted by nothing else: its leave-one-out fit is the mean of the others.
        spare = np.maximum(self._spare, 1e-3)[:, None]
        return mean + self._test_map @ fitted, targets - residual / spare


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of a symmetric positive definite matrix, float32."""
    factor, failed = lapack.spotrf(matrix, lower=1)
    lower, failed = lapack.spotri(factor, lower=1) if not failed else (factor, failed)
    if failed:
        raise ArithmeticError("the penalised Gram matrix is not positive definite")
    lower = np.tril(lower)
    return np.asarray(lower + np.tril(lower, -1).T, dtype=np.float32)


def classify(fold: RidgeFold, train: np.ndarray, test: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes of the test rows under many labellings, and the balanced accuracy of each.

    Indicator columns are regressed on the features; a row gets the class whose mean leave-one-out score is nearest, so
    that a rare class is as likely to be named as a common one.

    Args:
        fold: The factorised fold.
        train: Codes of the training rows, int [train row, labelling].
        test: Codes of the test rows, int [test row, labelling].
        shares: Share of each class, which sets the scale of its indicator, shape [class].

    Returns:
        Predicted codes [test row, labelling] and balanced accuracy [labelling].
    """
    n_classes, many = len(shares), train.shape[1]
    member = train[:, :, None] == np.arange(n_classes)
    weight = (1 / np.sqrt(np.maximum(shares, 1e-9))).astype(np.float32)
    asked, own = fold.scores((member * weight).reshape(len(train), -1).astype(np.float32))
    asked, own = (x.reshape(-1, many, n_classes) for x in (asked, own))
    distance = np.empty((len(test), many, n_classes), dtype=np.float32)
    for code in range(n_classes):
        inside = member[:, :, code]
        size = inside.sum(0)
        centre = np.einsum("nm,nmk->mk", inside, own) / np.maximum(size, 1)[:, None]
        distance[:, :, code] = ((asked - centre) ** 2).sum(2)
        distance[:, size == 0, code] = np.inf
    predicted = distance.argmin(2)
    return predicted, balanced_accuracy(test, predicted, n_classes)
