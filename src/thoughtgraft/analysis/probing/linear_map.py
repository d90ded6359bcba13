"""The slot x layer map by the closed-form linear probe, with permutations and the maximum over the map.

How it is fast: standardisation and one factorisation for each fold and cell (`ridge.RidgeFold`) answer for the true
labels, for 200 permutations of them and for the control task's random functions together, as columns of one matrix
product. So a cell costs folds x (one Gram matrix + one inverse + one product), whatever the number of permutations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thoughtgraft.analysis.permutation import resampling_p
from thoughtgraft.analysis.probing.controls import ControlTask
from thoughtgraft.analysis.probing.folds import Fold, Folds
from thoughtgraft.analysis.probing.ridge import RidgeFold, classify
from thoughtgraft.analysis.probing.rows import Rows
from thoughtgraft.analysis.probing.scores import Outcome, class_scores, confusion_matrix, r_squared, rank_correlation


@dataclass(frozen=True)
class Setup:
    """What every cell of a map shares.

    Attributes:
        rows: The problems and their target.
        folds: The folds.
        orders: Permuted orders of the rows, the identity first, int [permutation + 1, row].
        control: The control task.
    """

    rows: Rows
    folds: Folds
    orders: np.ndarray
    control: ControlTask


def probe_linear(x: np.ndarray, setup: Setup) -> Outcome:
    """Cross-validate the closed-form probe at one cell, with its null and its control.

    Args:
        x: Features, float32 [row, d].
        setup: Labels, folds, permutations and control task.
    """
    rows = setup.rows
    labels = rows.values[setup.orders].T
    scores, controls, confusions, ranks = [], [], [], []
    for fold in setup.folds.folds:
        model = RidgeFold(x[fold.train], x[fold.test])
        if rows.kind == "class":
            said, score = classify(model, labels[fold.train], labels[fold.test], rows.shares)
            confusions.append(confusion_matrix(rows.values[fold.test], said[:, 0], len(rows.classes)))
        else:
            score, rho = _regress(model, labels[fold.train], labels[fold.test])
            ranks.append(rho)
        scores.append(score)
        if setup.control.defined:
            controls.append(_control(x, fold, setup, model))
    table = np.stack(scores)
    control = np.array(controls) if controls else None
    null, d = table[:, 1:].mean(0), x.shape[1]
    if rows.kind == "class":
        score, details = class_scores(np.stack(confusions))
        return Outcome(score, details | {"logloss": np.nan}, d, np.sum(confusions, axis=0), control, null)
    rho = float(np.mean(ranks)) if np.isfinite(ranks).all() else np.nan
    return Outcome(table[:, 0], {"rank_correlation": rho}, d, None, control, null)


def _regress(model: RidgeFold, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, float]:
    said, _ = model.scores(train.astype(np.float32))
    return r_squared(test, said, train.mean(0)), rank_correlation(test[:, 0], said[:, 0])


def _control(x: np.ndarray, fold: Fold, setup: Setup, model: RidgeFold) -> float:
    """Mean score over the random functions, on the rows whose type repeats; NaN if the fold asks about none."""
    rows, control = setup.rows, setup.control
    train, test = fold.train[control.rows[fold.train]], fold.test[control.rows[fold.test]]
    if not len(test):
        return np.nan
    if len(train) < len(fold.train) or len(test) < len(fold.test):
        model = RidgeFold(x[train], x[test])
    known, asked = control.values[:, train].T, control.values[:, test].T
    if rows.kind == "class":
        return float(classify(model, known, asked, rows.shares)[1].mean())
    return float(_regress(model, known, asked)[0].mean())


def map_p(outcomes: list[Outcome]) -> tuple[np.ndarray, np.ndarray]:
    """P of each cell alone, and adjusted for the whole map by the maximum over it under each permutation.

    All cells share folds and permutations, so their scores are on one scale and their dependence is kept
    (Westfall, Young 1993).

    Args:
        outcomes: The map's cells, each with its null.

    Returns:
        p_perm and p_maxT, shape [cell]; (b + 1) / (B + 1).
    """
    null = np.stack([o.null for o in outcomes if o.null is not None])
    observed = np.array([o.mean for o in outcomes])[:, None] - 1e-12
    count = null.shape[1]
    alone = resampling_p((null >= observed).sum(1), count)
    return alone, resampling_p((null.max(0)[None] >= observed).sum(1), count)
