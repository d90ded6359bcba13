"""The learning curve: what a probe and the text baseline score when they may learn from fewer problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from thoughtgraft.analysis.probing.controls import text_model
from thoughtgraft.analysis.probing.folds import Fold, Folds
from thoughtgraft.analysis.probing.intervals import corrected_t
from thoughtgraft.analysis.probing.learners import run_estimator
from thoughtgraft.analysis.probing.linear_map import Setup, probe_linear
from thoughtgraft.analysis.probing.rows import FEWEST, Rows

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def learning_curve(x: np.ndarray, setup: Setup, rng: np.random.Generator, repeats: int = 2) -> list[dict[str, Any]]:
    """Scores by number of training problems, on the folds' own test rows.

    Args:
        x: Features at one cell, [row, d].
        setup: Labels and folds.
        rng: Order in which training rows are given; smaller sets are parts of larger ones.
        repeats: Repeats of the cross-validation that are used.

    Returns:
        Rows series ("linear" or "text"), n_train, score, ci_low, ci_high (corrected t), note. A size at which a class
        has fewer than 3 problems is left out.
    """
    rows, folds = setup.rows, setup.folds.first(repeats)
    idle = replace(setup.control, values=setup.control.values[:0])
    orders = [_stratified_order(rows, f, rng) for f in folds.folds]
    out: list[dict[str, Any]] = []
    for share in SHARES:
        cut = tuple(
            Fold(f.repeat, np.sort(order[: max(1, round(share * len(order)))]), f.test)
            for f, order in zip(folds.folds, orders, strict=True)
        )
        if rows.kind == "class" and _fewest(rows, cut) < FEWEST:
            continue
        part = Folds(cut, folds.k, folds.repeats)
        small = Setup(rows, part, setup.orders[:1], idle)
        scores = {"linear": probe_linear(x, small).score}
        if rows.questions is not None:
            texts = np.array(rows.questions, dtype=object)
            scores["text"] = run_estimator(lambda: text_model(rows.kind), texts, rows, part).score
        n_train = round(float(np.mean([len(f.train) for f in cut])))
        for series, score in scores.items():
            # The overlap that the correction allows for is that of the sizes used here.
            found = corrected_t(score, part)
            out.append(
                {
                    "series": series,
                    "n_train": n_train,
                    "score": found.value,
                    "ci_low": found.low,
                    "ci_high": found.high,
                    "note": found.note,
                }
            )
    return out


def words_still_climb(curve: Sequence[Mapping[Any, Any]], margin: float) -> str | None:
    """A sentence where the text baseline rose by more than `margin` over the last half of the problems.

    A gain over a baseline that has not learnt what it can is a gain of few problems, and may not last.

    Args:
        curve: Rows of `learning_curve`.
        margin: In the unit of the score.
    """
    points = sorted((row["n_train"], row["score"]) for row in curve if row["series"] == "text")
    earlier = [point for point in points if point[0] <= points[-1][0] / 2]
    if not earlier or not points[-1][1] - earlier[-1][1] > margin:
        return None
    (few, before), (many, now) = earlier[-1], points[-1]
    return (
        f"the question's words still gain with more problems ({before:.2f} from {few}, {now:.2f} from {many} training "
        "problems), so a gain over them may be one of few problems"
    )


def _fewest(rows: Rows, folds: tuple[Fold, ...]) -> int:
    """Training problems of the smallest class in any fold."""
    return min(int(np.bincount(rows.values[f.train], minlength=len(rows.classes)).min()) for f in folds)


def _stratified_order(rows: Rows, fold: Fold, rng: np.random.Generator) -> np.ndarray:
    """Training rows in an order whose every beginning has the classes in their shares."""
    order = rng.permutation(fold.train)
    if rows.kind == "number":
        return order
    codes = rows.values[order]
    rank = np.empty(len(order))
    for code in np.unique(codes):
        member = np.flatnonzero(codes == code)
        rank[member] = (np.arange(len(member)) + 0.5) / len(member)
    return order[np.argsort(rank, kind="stable")]
