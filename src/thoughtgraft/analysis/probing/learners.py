"""Probes that are fitted one by one, as pipelines on the training rows: logistic regression, forest, MLP, ridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from thoughtgraft.analysis.probing.folds import Folds
from thoughtgraft.analysis.probing.rows import Rows
from thoughtgraft.analysis.probing.scores import Outcome, class_scores, confusion_matrix, r_squared, rank_correlation
from thoughtgraft.errors import AnalysisError

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
    the outer one, that refits the whole pipeline; forest and MLP have nothing that is tuned.

    Raises:
        AnalysisError: There is no such probe.
    """
    # Of a third of the training rows less may be left for an inner fold than for the outer one.
    n = min(COMPONENTS, d, n_train * (INNER_FOLDS - 1) // INNER_FOLDS - 1)
    steps: list[tuple[str, Any]] = [
        ("scale", StandardScaler()),
        ("pca", PCA(max(n, 1), whiten=True, random_state=seed)),
    ]
    if probe == LOGISTIC:
        model: Any = LogisticRegression(max_iter=1000, class_weight="balanced") if kind == "class" else Ridge()
        grid = {"model__C": GRID_C} if kind == "class" else {"model__alpha": GRID_ALPHA}
        score = "balanced_accuracy" if kind == "class" else "r2"
        if kind == "class":
            inner: Any = StratifiedGroupKFold(INNER_FOLDS, shuffle=True, random_state=seed)
        else:
            inner = GroupKFold(INNER_FOLDS, shuffle=True, random_state=seed)
        return GridSearchCV(Pipeline([*steps, ("model", model)]), grid, scoring=score, cv=inner)
    if probe == FOREST:
        if kind == "class":
            model = RandomForestClassifier(TREES, min_samples_leaf=2, class_weight="balanced", random_state=seed)
        else:
            model = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed)
    elif probe == MLP:
        made = MLPClassifier if kind == "class" else MLPRegressor
        model = made(hidden_layer_sizes=(64,), alpha=1.0, max_iter=200, random_state=seed)
    else:
        raise AnalysisError("unknown probe", got=repr(probe), expected=", ".join(PROBES))
    return Pipeline([*steps, ("model", model)])


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
        extra = {"groups": rows.groups[fold.train]} if isinstance(model, GridSearchCV) else {}
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
