"""What a probe must beat: text, numbers, majority, control tasks; and the linear map with its permutations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thoughtgraft.probing.probes import RidgeFold, classify, run_estimator
from thoughtgraft.probing.rows import Fold, Folds, Rows
from thoughtgraft.probing.scores import Outcome, class_scores, confusion_matrix, r_squared, rank_correlation
from thoughtgraft.stats.resampling import resampling_p

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_WORD_AFTER = re.compile(r"\d[\d,.]*\s+([A-Za-z]+)")
FIRST_NUMBERS = 6
# A random function of fewer surface types than this would not be random.
FEWEST_TYPES = 8
FEWEST_SHARE = 0.5


@dataclass(frozen=True)
class ControlTask:
    """Labels that are a fixed random function of a surface type of the question (Hewitt, Liang 2019).

    A probe that scores on them has memorised surface types; selectivity is what the true task adds. Only rows whose
    type occurs in at least two distinct questions take part: a type met once cannot be learnt, and would make every
    probe look selective.

    Attributes:
        surface: What the type is: object, template or first number.
        values: Codes or numbers, one row for each of several random functions, shape [function, row].
        rows: Rows whose type repeats, bool [row].
        note: How many rows and types; or, where `values` has no function, why the task is undefined.
    """

    surface: str
    values: np.ndarray
    rows: np.ndarray
    note: str

    @property
    def defined(self) -> bool:
        """Whether anything repeats."""
        return len(self.values) > 0


def control_task(rows: Rows, functions: int, rng: np.random.Generator) -> ControlTask:
    """The control task on the surface type that covers most rows by repeating; undefined where none covers half.

    Args:
        rows: The problems, with their questions.
        functions: How many random functions to average over.
        rng: Source of the functions. Classes are drawn with the target's own shares, numbers from its own values.
    """
    best: tuple[str, np.ndarray, np.ndarray] | None = None
    for name, types in surface_types(rows).items():
        repeated = _repeats(types, rows.groups)
        if len(np.unique(types[repeated])) < FEWEST_TYPES:
            continue
        if best is None or repeated.sum() > best[2].sum():
            best = name, types, repeated
    nothing = np.zeros((0, len(rows)))
    if best is None or best[2].mean() < FEWEST_SHARE:
        reason = "the labels have no questions" if rows.questions is None else (
            f"no surface type (object, template, first number) repeats in at least {FEWEST_SHARE:.0%} of the problems"
        )  # fmt: skip
        return ControlTask("", nothing, np.zeros(len(rows), dtype=bool), f"control task undefined: {reason}")
    name, types, repeated = best
    _, codes = np.unique(types, return_inverse=True)
    n_types = int(codes.max()) + 1
    if rows.kind == "class":
        drawn = rng.choice(len(rows.classes), size=(functions, n_types), p=rows.shares)
    else:
        drawn = rng.choice(rows.values, size=(functions, n_types))
    note = (
        f"control task: {name}, {int(repeated.sum())} of {len(rows)} problems, {len(np.unique(types[repeated]))} types"
    )
    return ControlTask(name, drawn[:, codes], repeated, note)


def surface_types(rows: Rows) -> dict[str, np.ndarray]:
    """Surface types by name, text [row]: the word after the first number, the template, the first number."""
    found = {}
    if rows.questions is not None:
        words = [_WORD_AFTER.search(q) for q in rows.questions]
        found["object"] = np.array([m.group(1).lower() if m else "" for m in words], dtype=object)
    if rows.templates is not None:
        found["template"] = np.array(rows.templates, dtype=object)
    if rows.questions is not None:
        numbers = [_NUMBER.search(q) for q in rows.questions]
        found["first number"] = np.array([m.group() if m else "" for m in numbers], dtype=object)
    return found


def _repeats(types: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Whether a row's type occurs in at least two distinct questions, bool [row]; no type is no repeat."""
    seen: dict[str, set[int]] = {}
    for kind, group in zip(types, groups, strict=True):
        seen.setdefault(str(kind), set()).add(int(group))
    return np.array([bool(kind) and len(seen[str(kind)]) > 1 for kind in types])


def text_model(kind: str = "class") -> Any:
    """The question-only baseline: TF-IDF of words and pairs of words, sublinear, and a linear model with C = 1."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return make_pipeline(words, _linear(kind))


def _linear(kind: str) -> Any:
    return LogisticRegression(C=1.0, max_iter=2000, class_weight="balanced") if kind == "class" else Ridge(alpha=1.0)


def numbers_of(questions: Sequence[str]) -> np.ndarray:
    """What a question's numbers alone say, float [row, feature].

    How many there are, the first six as decimal logarithms (0 where there are fewer), their extremes and sum, and how
    many are fractions, repeat an earlier one, or are below 10.
    """
    table = np.zeros((len(questions), FIRST_NUMBERS + 7))
    for row, question in enumerate(questions):
        values = np.array([float(text.replace(",", "")) for text in _NUMBER.findall(question)])
        if not len(values):
            continue
        logs = np.log10(1 + values)
        table[row, : min(len(logs), FIRST_NUMBERS)] = logs[:FIRST_NUMBERS]
        table[row, FIRST_NUMBERS:] = (
            len(values),
            logs.min(),
            logs.max(),
            np.log10(1 + values.sum()),
            (values % 1 != 0).sum(),
            len(values) - len(np.unique(values)),
            (values < 10).sum(),
        )
    return table


def text_outcome(rows: Rows, folds: Folds) -> Outcome | None:
    """The text baseline on the same folds; None where there are no questions."""
    if rows.questions is None:
        return None
    return run_estimator(lambda: text_model(rows.kind), np.array(rows.questions, dtype=object), rows, folds)


def numbers_outcome(rows: Rows, folds: Folds) -> Outcome | None:
    """The numbers-only baseline on the same folds; None where there are no questions."""
    if rows.questions is None:
        return None
    table = numbers_of(rows.questions)
    return run_estimator(lambda: make_pipeline(StandardScaler(), _linear(rows.kind)), table, rows, folds)


def majority(rows: Rows) -> float:
    """Accuracy of always naming the commonest class; for a number 0, the R2 of its mean."""
    return float(rows.shares.max()) if rows.kind == "class" else 0.0


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
