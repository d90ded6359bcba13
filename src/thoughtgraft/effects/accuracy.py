"""Accuracies of two models on the same problems, compared problem by problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from thoughtgraft.arguments import answers_for_calls, items, positive, shown
from thoughtgraft.effects.gates import RULE
from thoughtgraft.errors import AnalysisError, first_line
from thoughtgraft.stats.intervals import MIN_HOSTS, Bounds, Sample, family_bounds
from thoughtgraft.stats.resampling import holm
from thoughtgraft.stats.verdicts import verdict

PAIRS = (
    "a", "b", "problems", "n", "acc_a", "acc_b", "difference_pp", "ci_low", "ci_high", "sim_low", "sim_high", "verdict",
    "only_a", "only_b", "p", "p_holm", "note",
)  # fmt: skip
_OF_FAMILIES = ("problems", "sim_low", "sim_high", "p_holm")
TOO_SMALL = f"too small for any interval that is known to hold: fewer than {MIN_HOSTS} problems"


@answers_for_calls(AnalysisError)
def paired_accuracy(
    first: Any, second: Any, *, names: Sequence[str] = ("a", "b"), margin_pp: float = 100 * RULE.margin
) -> pd.DataFrame:
    """Accuracy of `first` less that of `second`, over the problems that both answered.

    Args:
        first, second: What two models answered right: an `Evaluation`, `Thoughts`, or a Series of true and false by
            problem id, null where an answer failed.
        names: What they are called.
        margin_pp: The smallest difference that matters, in percentage points; the verdict rests on it.

    Returns:
        One row: `a` and `b`, `n` problems, `acc_a` and `acc_b` (shares), `difference_pp` with its 95% interval
        (`ci_low`, `ci_high`, pp) and `verdict`; how many only one got right (`only_a`, `only_b`) and the exact McNemar
        `p`; `note` says why something is undefined.

    Raises:
        AnalysisError: Something else is given, an id occurs twice, or the two share no problem.
    """
    called = [str(name) for name in items(names, "the names", AnalysisError, expected="two names")]
    if len(called) != 2:
        raise AnalysisError("the names are not usable", got=shown(names), expected="two names")
    one, other = called
    margin = positive(margin_pp, "the margin", AnalysisError) / 100
    a, b = _answers(first, one), _answers(second, other)
    shared = a.index.intersection(b.index)
    if shared.empty:
        got = f"{len(a)} and {len(b)} problems, none in both"
        raise AnalysisError("the two answered no problem in common", got=got, fix="give both the same problems")
    left, right = (part.loc[shared].to_numpy(float, na_value=np.nan) for part in (a, b))
    (row,) = pair_rows([(one, other, left, right)], "all", margin)
    return pd.DataFrame([row], columns=[name for name in PAIRS if name not in _OF_FAMILIES])


def pair_rows(
    pairs: Sequence[tuple[str, str, np.ndarray, np.ndarray]], group: str, margin: float
) -> list[dict[str, Any]]:
    """Rows of `PAIRS`, one for each pair of models on one group of problems.

    Args:
        pairs: The names of two models, and which of the group's P problems each got right: 1, 0 or NaN, [P].
        group: What the problems are called.
        margin: The smallest difference that matters, as a share.

    Returns:
        `ci_*` is the 95% interval of a pair alone, `sim_*` the one that holds for all of the pairs together, and
        `verdict` is where that lies beside 0 and the margin.
    """
    rows = [_counts(a, b, group, left, right) for a, b, left, right in pairs]
    bounds = family_bounds([_sample(left - right) for _, _, left, right in pairs])
    p = holm(np.array([row["p"] for row in rows], dtype=float))
    return [row | _ends(one, margin) | {"p_holm": q} for row, one, q in zip(rows, bounds, p, strict=True)]


def _ends(bounds: Bounds, margin: float) -> dict[str, Any]:
    ends = {"ci_low": bounds.low, "ci_high": bounds.high, "sim_low": bounds.sim_low, "sim_high": bounds.sim_high}
    ends["difference_pp"] = bounds.estimate.value
    said = verdict(bounds.sim_low, bounds.sim_high, margin, too_small=bounds.too_small)
    note = TOO_SMALL if bounds.too_small else bounds.note
    return {name: 100 * end for name, end in ends.items()} | {"verdict": said, "note": note}


def _sample(differences: np.ndarray) -> Sample:
    problems = np.arange(len(differences))
    return Sample(differences, problems, None, np.ones(len(differences)), "difference")


def _counts(a: str, b: str, group: str, left: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """The counts of two models on the problems that both answered, and the exact McNemar p."""
    both = np.isfinite(left) & np.isfinite(right)
    first, second = left[both] == 1, right[both] == 1
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    n = int(both.sum())
    shares = {"acc_a": first.mean() if n else np.nan, "acc_b": second.mean() if n else np.nan}
    return {"a": a, "b": b, "problems": group, "n": n, **shares, "only_a": only_a, "only_b": only_b, "p": p}


def _answers(given: Any, name: str) -> pd.Series[bool]:
    """Whether each answer is right, by problem id, nullable."""
    found = given if isinstance(given, pd.Series) else getattr(given, "right", None)
    if not isinstance(found, pd.Series):
        expected = "an Evaluation, Thoughts, or a Series of true and false by problem id"
        fix = "evaluate(model, problems) gives one"
        raise AnalysisError(f"the answers of {name!r} are not usable", got=shown(given), expected=expected, fix=fix)
    if not found.index.is_unique:
        twice = shown(found.index[found.index.duplicated()][0])
        raise AnalysisError(f"the answers of {name!r} hold a problem twice", got=twice, expected="one answer a problem")
    try:
        return found.astype("boolean")
    except (TypeError, ValueError) as error:
        what = f"the answers of {name!r} are not usable"
        raise AnalysisError(what, got=first_line(error), expected="true, false or null") from None
