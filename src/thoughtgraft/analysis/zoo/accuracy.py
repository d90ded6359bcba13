"""Accuracies of each model with Wilson intervals, and every pair of models on the same problems."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from thoughtgraft.analysis.intervals import MIN_HOSTS, Sample, family_bounds
from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.rule import RULE
from thoughtgraft.analysis.verdicts import verdict
from thoughtgraft.analysis.zoo.measured import Measured

ALL = "all"
EXPLICIT = "explicit reasoning"
TOO_SMALL = f"too small for any interval that is known to hold: fewer than {MIN_HOSTS} problems"
ACCURACY = ("model", "condition", "problems", "n", "correct", "accuracy", "ci_low", "ci_high")
PAIRS = (
    "a", "b", "problems", "n", "acc_a", "acc_b", "difference_pp", "ci_low", "ci_high", "sim_low", "sim_high", "verdict",
    "only_a", "only_b", "p", "p_holm", "note",
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
        Columns `PAIRS`: a - b in percentage points, over the problems that both answered. `ci_*` is its 95% interval
        alone, `sim_*` the one that holds for all pairs of one group of problems together, and `verdict` is where that
        lies beside 0 and the margin. The exact McNemar p, and Holm's over the same pairs, stand beside.
    """
    found: list[dict[str, Any]] = []
    for group, mask in step_groups(zoo[0]).items():
        rows, samples = [], []
        for a, b in combinations(zoo, 2):
            answers = [m.correct.loc[mask, m.main].astype("boolean").to_numpy(float, na_value=np.nan) for m in (a, b)]
            rows.append(_pair(a.name, b.name, group, *answers))
            samples.append(_sample(answers[0] - answers[1]))
        p = holm(np.array([row["p"] for row in rows], dtype=float))
        for row, bounds, adjusted in zip(rows, family_bounds(samples), p, strict=True):
            ends = {
                "ci_low": bounds.low,
                "ci_high": bounds.high,
                "sim_low": bounds.sim_low,
                "sim_high": bounds.sim_high,
            }
            said = verdict(bounds.sim_low, bounds.sim_high, RULE.margin, too_small=bounds.too_small)
            row |= {name: 100 * end for name, end in ends.items()}
            row |= {"difference_pp": 100 * bounds.estimate.value, "verdict": said, "p_holm": adjusted}
            found.append(row | {"note": TOO_SMALL if bounds.too_small else bounds.note})
    return pd.DataFrame(found, columns=list(PAIRS))


def _sample(differences: np.ndarray) -> Sample:
    problems = np.arange(len(differences))
    return Sample(differences, problems, None, np.ones(len(differences)), "difference")


def _pair(a: str, b: str, group: str, left: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """The counts of two models on the problems that both answered, and the exact McNemar p."""
    both = np.isfinite(left) & np.isfinite(right)
    first, second = left[both] == 1, right[both] == 1
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    n = int(both.sum())
    shares = {"acc_a": first.mean() if n else np.nan, "acc_b": second.mean() if n else np.nan}
    return {"a": a, "b": b, "problems": group, "n": n, **shares, "only_a": only_a, "only_b": only_b, "p": p}
