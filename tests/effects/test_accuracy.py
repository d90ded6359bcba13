"""Two models' answers on the same problems: the difference is paired, and what is no answer is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thoughtgraft.effects.accuracy import paired_accuracy
from thoughtgraft.errors import AnalysisError


def answers(right: Any, start: int = 0) -> pd.Series:
    return pd.Series(right, index=[f"p{start + i}" for i in range(len(right))], dtype="boolean")


def test_a_planted_difference_is_found_on_the_problems_that_both_answered() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.4
    better, worse = ~hard, ~hard & (rng.random(400) < 0.7)
    row = paired_accuracy(answers(better), answers(worse), names=("big", "small")).iloc[0]
    assert (row.a, row.b, row.n) == ("big", "small", 400)
    assert (row.acc_a, row.acc_b) == (better.mean(), worse.mean())
    assert row.difference_pp == pytest.approx(100 * (better.mean() - worse.mean()))
    assert row.ci_low < row.difference_pp < row.ci_high and row.ci_low > 5
    assert (row.only_a, row.only_b) == (int((better & ~worse).sum()), 0)
    assert row.verdict == "ABOVE" and row.p < 1e-6
    shifted = paired_accuracy(answers(better), answers(worse[100:], start=100)).iloc[0]
    assert shifted.n == 300 and shifted.acc_a == better[100:].mean()


def test_failed_answers_are_in_no_n_and_equal_models_do_not_differ() -> None:
    right = [True, False] * 20
    row = paired_accuracy(answers([None, *right[1:]]), answers(right)).iloc[0]
    assert (row.n, row.only_a, row.only_b, row.difference_pp, row.p) == (39, 0, 0, 0, 1)
    few = paired_accuracy(answers([True, False, True]), answers([True, True, True])).iloc[0]
    assert few.n == 3 and "too small" in few.note and few.verdict == "UNRESOLVED"
    held = SimpleNamespace(right=answers(right))
    assert paired_accuracy(held, held).difference_pp.item() == 0


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ([True], r"the answers of 'b' are not usable; got \[True\]; expected an Evaluation, Thoughts.*evaluate\(model"),
        (answers([True], start=9), "answered no problem in common; got 1 and 1 problems, none in both"),
        (pd.Series([True, False], index=["p0", "p0"]), "the answers of 'b' hold a problem twice; got 'p0'"),
        (pd.Series(["yes"], index=["p0"]), "the answers of 'b' are not usable; got .*; expected true, false or null"),
    ],
)
def test_what_are_no_answers_is_refused(second: Any, told: str) -> None:
    with pytest.raises(AnalysisError, match=told):
        paired_accuracy(answers([True]), second)
    with pytest.raises(AnalysisError, match="the names are not usable"):
        paired_accuracy(answers([True]), answers([True]), names=("a",))
    with pytest.raises(AnalysisError, match="the margin is not usable; got 0"):
        paired_accuracy(answers([True]), answers([True]), margin_pp=0)
