"""Accuracies of each model with Wilson intervals, and every pair of models on the same problems."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.paired import paired_accuracy
from thoughtgraft.analysis.zoo.measured import Measured

ALL = "all"
EXPLICIT = "explicit reasoning"
ACCURACY = ("model", "condition", "problems", "n", "correct", "accuracy", "ci_low", "ci_high")
PAIRS = (
    "a", "b", "problems", "n", "acc_a", "acc_b", "difference_pp", "ci_low", "ci_high", "only_a", "only_b", "p",
    "p_holm",
)  # fmt: skip


def step_groups(model: Measured) -> dict[str, np.ndarray]:
    """Masks [problem] by what they take: all problems, then those of each number of steps that is known."""
    steps = model.correct.n_steps.to_numpy()
    found = {ALL: np.ones(len(steps), dtype=bool)}
    counts = sorted({int(n) for n in steps if n > 0})
    return found | {f"{n} step{'s' * (n != 1)}": steps == n for n in counts if len(counts) > 1}


def accuracy_table(zoo: tuple[Measured, ...]) -> pd.DataFrame:
    """Every condition on all problems; the plain answer and explicit reasoning by number of steps too.

    Answers that failed are not among the `n`; a condition without any other has no row.

    Returns:
        Columns `ACCURACY`: accuracy and its 95% Wilson interval as fractions.
    """
    rows = []
    for model in zoo:
        for group, mask in step_groups(model).items():
            chosen = model.conditions if group == ALL else [model.main, EXPLICIT]
            for condition in (name for name in chosen if name in model.correct):
                known = model.correct.loc[mask, condition].dropna()
                right, n = int(known.sum()), len(known)
                if n:
                    ends = binomtest(right, n).proportion_ci(0.95, "wilson")
                    rows.append((model.name, condition, group, n, right, right / n, ends.low, ends.high))
    return pd.DataFrame(rows, columns=list(ACCURACY))


def pair_table(zoo: tuple[Measured, ...]) -> pd.DataFrame:
    """Plain answers of every pair of models, on all problems and by number of steps.

    Returns:
        Columns `PAIRS`: a - b in percentage points with its Bonett-Price interval (95%, unadjusted), exact McNemar p,
        and Holm's p over the pairs of one group of problems.
    """
    tables = []
    for group, mask in step_groups(zoo[0]).items():
        rows = []
        for a, b in combinations(zoo, 2):
            left, right = (m.correct.loc[mask, m.main].to_numpy(bool) for m in (a, b))
            found = paired_accuracy(left.tolist(), right.tolist())
            figures = (100 * found.difference, 100 * found.ci_low, 100 * found.ci_high, found.only_a, found.only_b)
            rows.append((a.name, b.name, group, found.n, left.mean(), right.mean(), *figures, found.p, np.nan))
        table = pd.DataFrame(rows, columns=list(PAIRS))
        tables.append(table.assign(p_holm=holm(table.p.to_numpy(float))))
    return pd.concat(tables, ignore_index=True)
