"""Probes: linear in closed form, logistic, forest, MLP, each within its fold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import lapack
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from thoughtgraft.errors import AnalysisError
from thoughtgraft.probing.rows import Folds, Rows
from thoughtgraft.probing.scores import (
    Outcome,
    balanced_accuracy,
    class_scores,
    confusion_matrix,
    r_squared,
    rank_correlation,
)

LINEAR = "linear"
LOGISTIC, FOREST, MLP = "logistic", "forest", "mlp"
PROBES = (LINEAR, LOGISTIC, FOREST, MLP)
COMPONENTS = 64
INNER_FOLDS = 3
TREES = 100
LEAST_CHANCE = 1e-12
GRID_C = (0.001, 0.03, 1.0)
GRID_ALPHA = (1000.0, 30.0, 1.0)


def estimator(probe: str, kind: str, n_train: int, d: int, seed: int) -> Any:
    """A probe as a pipeline: scaler, PCA to at most 64 whitened components, model.

    The penalty of `logistic` (for numbers: of ridge regression) is chosen by an inner cross-validation, grouped like
    the outer one; forest and MLP have nothing that is tuned.

    Raises:
        AnalysisError: There is no such probe.
    """
    # Of a third of the training rows less may be left for an inner fold than for the outer one.
    n = max(min(COMPONENTS, d, n_train * (INNER_FOLDS - 1) // INNER_FOLDS - 1), 1)
    prepare = Pipeline([("scale", StandardScaler()), ("pca", PCA(n, whiten=True, random_state=seed))])
    if probe == LOGISTIC:
        return Tuned(prepare, kind, seed)
    if probe == FOREST and kind == "class":
        model: Any = RandomForestClassifier(TREES, min_samples_leaf=2, class_weight="balanced", random_state=seed)
    elif probe == FOREST:
        model = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed)
    elif probe == MLP:
        made = MLPClassifier if kind == "class" else MLPRegressor
        model = made(hidden_layer_sizes=(64,), alpha=1.0, max_iter=200, random_state=seed)
    else:
        raise AnalysisError("unknown probe", got=repr(probe), expected=", ".join(PROBES))
    return Pipeline([("prepare", prepare), ("model", model)])


class Tuned:
    """A linear model whose penalty is chosen on inner folds of the training rows; each fits its own scaler and PCA.

    scikit-learn's grid search would fit scaler and PCA once per penalty; here it is once per inner fold.
    """

    def __init__(self, prepare: Pipeline, kind: str, seed: int) -> None:
        self._prepare, self._kind, self._seed = prepare, kind, seed

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Tuned:
        """Choose the penalty, then fit on all rows.

        Args:
            x: Features [row, d].
            y: Codes or numbers [row].
            groups: Question of each row: inner folds never divide one.
        """
        splitter = StratifiedGroupKFold if self._kind == "class" else GroupKFold
        grid = GRID_C if self._kind == "class" else GRID_ALPHA
        scores = np.zeros(len(grid))
        for train, test in splitter(INNER_FOLDS, shuffle=True, random_state=self._seed).split(x, y, groups):
            prepare = clone(self._prepare).fit(x[train])
            known, asked = prepare.transform(x[train]), prepare.transform(x[test])
            for place, penalty in enumerate(grid):
                scores[place] += self._score(self._model(penalty).fit(known, y[train]), asked, y[test])
        self._prepare = clone(self._prepare).fit(x)
        self._fitted = self._model(grid[int(scores.argmax())]).fit(self._prepare.transform(x), y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Codes or numbers [row]."""
        return np.asarray(self._fitted.predict(self._prepare.transform(x)))

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Probabilities [row, class that was learnt]."""
        return np.asarray(self._fitted.predict_proba(self._prepare.transform(x)))

    @property
    def classes_(self) -> np.ndarray:
        """Codes that were learnt."""
        return np.asarray(self._fitted.classes_)

    def _model(self, penalty: float) -> Any:
        if self._kind == "number":
            return Ridge(alpha=penalty)
        return LogisticRegression(C=penalty, max_iter=1000, class_weight="balanced")

    def _score(self, model: Any, x: np.ndarray, y: np.ndarray) -> float:
        said = model.predict(x)
        if self._kind == "number":
            return -float(((y - said) ** 2).mean())
        return float(balanced_accuracy(y[:, None], said[:, None], int(y.max()) + 1)[0])


def run_probe(probe: str, x: np.ndarray, rows: Rows, folds: Folds, seed: int) -> Outcome:
    """Cross-validate one of the fitted probes on features [row, d]."""
    n_train = min(len(f.train) for f in folds.folds)
    return run_estimator(lambda: estimator(probe, rows.kind, n_train, x.shape[1], seed), x, rows, folds)


def run_estimator(make: Callable[[], Any], x: np.ndarray, rows: Rows, folds: Folds) -> Outcome:
    """Cross-validate any scikit-learn estimator on the folds.

    Args:
        make: A fresh, unfitted estimator.
        x: What it reads, first axis rows.
        rows: The problems and their target.
        folds: The folds.
    """
    confusions, losses, fits, ranks = [], [], [], []
    for fold in folds.folds:
        model = make()
        extra = {"groups": rows.groups[fold.train]} if isinstance(model, Tuned) else {}
        model.fit(x[fold.train], rows.values[fold.train], **extra)
        truth, said = rows.values[fold.test], model.predict(x[fold.test])
        if rows.kind == "class":
            confusions.append(confusion_matrix(truth, said.astype(int), len(rows.classes)))
            losses.append(_log_loss(model, x[fold.test], truth, len(rows.classes)))
        else:
            fits.append(r_squared(truth[:, None], said[:, None], rows.values[fold.train].mean())[0])
            ranks.append(rank_correlation(truth, said))
    d = x.shape[1] if x.ndim > 1 else 0
    if rows.kind == "class":
        score, details = class_scores(np.stack(confusions))
        return Outcome(score, details | {"logloss": float(np.mean(losses))}, d, np.sum(confusions, axis=0))
    return Outcome(np.array(fits), {"rank_correlation": _mean(ranks)}, d)


def _log_loss(model: Any, x: np.ndarray, truth: np.ndarray, n_classes: int) -> float:
    """Mean of minus the natural log of the true class's probability, bounded away from 0."""
    chance = np.zeros((len(truth), n_classes))
    chance[:, model.classes_] = model.predict_proba(x)
    return float(-np.log(np.maximum(chance[np.arange(len(truth)), truth], LEAST_CHANCE)).mean())


def _mean(values: list[float]) -> float:
    """Mean of the defined values; NaN where there is none."""
    found = [v for v in values if np.isfinite(v)]
    return float(np.mean(found)) if found else np.nan


class RidgeFold:
    """Ridge regression with a free intercept on one fold, ready for any number of target vectors.

    Features are standardised by the training rows. The penalty is the mean non-zero eigenvalue of the training Gram
    matrix. It does not look at labels: nothing is tuned, and every permutation of the labels meets the same probe.

    One matrix is inverted, once: the Gram matrix where there are more features than rows (the dual form, which drops no
    component), else the covariance. Each further target vector costs one column of a matrix product. Leave-one-out
    fits of the training rows come from the same inverse, as residual / (1 - leverage).
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
