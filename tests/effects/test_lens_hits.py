"""Lens hits: a planted reading is found, chance is measured by other problems' values, what cannot be is undefined."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from thoughtgraft.errors import AnalysisError
from thoughtgraft.studies.zoo.lens_hits import ANY, FINAL, INTERMEDIATE, lens_difference, lens_hits, lens_scores
from thoughtgraft.tasks.problem import Problem, Step


def problem(i: int, values: list[int]) -> Problem:
    steps = tuple(Step(Fraction(v - 1), "+", Fraction(1), Fraction(v)) for v in values)
    return Problem(f"p{i}", f"What is {i}?", Fraction(values[-1]) if values else None, steps=steps)


def decoded(rows: list[tuple[str, int, int, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["problem_id", "slot", "rank", "token"])


PROBLEMS = [problem(i, [10 + i, 50 + i]) for i in range(20)]


def planted() -> pd.DataFrame:
    """Slot 0 always says 11 (problem 1's intermediate value), slot 1 each problem's own, slot 2 the answer or not."""
    rows = [(p.id, 0, 0, "11") for p in PROBLEMS]
    rows += [(p.id, 1, 0, str(10 + i)) for i, p in enumerate(PROBLEMS)]
    rows += [(p.id, 2, 0, str(50 + i) if i < 10 else "apples") for i, p in enumerate(PROBLEMS)]
    return decoded([*rows, *((p.id, 0, 1, str(10 + i)) for i, p in enumerate(PROBLEMS))])


def at(table: pd.DataFrame, target: str, slots: str) -> pd.Series:
    [row] = table[(table.target == target) & (table.label == slots)].to_dict("records")
    return pd.Series(row)


def test_a_planted_value_is_found_and_a_constant_is_chance() -> None:
    table = lens_hits(planted(), PROBLEMS)
    constant, own = at(table, INTERMEDIATE, "CT0"), at(table, INTERMEDIATE, "CT1")
    assert [constant.rate, constant.null_rate] == pytest.approx([1 / 20, 1 / 20])
    assert constant.excess == pytest.approx(0) and constant.ci_low < 0 < constant.ci_high
    assert (own.rate, own.null_rate, own.n) == (1, 0, 20)
    assert np.isnan(own.ci_low) and "no variation" in own.note
    final = at(table, FINAL, "CT2")
    assert (final.rate, final.null_rate) == (0.5, 0) and final.ci_low > 0 and final.p < 0.01
    assert at(table, FINAL, ANY).rate == 0.5
    assert at(table, INTERMEDIATE, ANY).rate == 1
    assert list(dict.fromkeys(table.label)) == ["CT0", "CT1", "CT2", ANY]


def test_more_ranks_count_only_when_asked_for() -> None:
    assert at(lens_hits(planted(), PROBLEMS, top=2), INTERMEDIATE, "CT0").rate == 1
    with pytest.raises(AnalysisError, match="at least one rank; got 0"):
        lens_hits(planted(), PROBLEMS, top=0)


def test_chance_is_measured_within_equal_numbers_of_steps() -> None:
    problems = [problem(0, [7]), problem(1, [7]), problem(2, [3, 7]), problem(3, [3, 9]), problem(4, [1, 2, 3])]
    scores = lens_scores(decoded([(p.id, 0, 0, "7") for p in problems]), problems)
    final = scores[scores.target == FINAL].set_index("problem_id")
    assert final.hit.to_dict() == {"p0": 1, "p1": 1, "p2": 1, "p3": 0}, "p4 has no other with three steps"
    assert final.null.to_dict() == {"p0": 1, "p1": 1, "p2": 0, "p3": 1}
    between = scores[scores.target == INTERMEDIATE]
    assert set(between.problem_id) == {"p2", "p3"}, "one step has no intermediate value"


def test_what_has_nothing_to_hit_gives_no_rows() -> None:
    unknown = [problem(i, []) for i in range(3)]
    assert lens_hits(decoded([(p.id, 0, 0, "7") for p in unknown]), unknown).empty
    alone = lens_hits(decoded([("p0", 0, 0, "7")]), [problem(0, [7])])
    assert alone.empty, "no other problem, so no chance to compare with"
    assert lens_hits(decoded([]), PROBLEMS).empty


def test_the_difference_of_two_models_is_paired_and_0_of_one_with_itself() -> None:
    scores = lens_scores(planted(), PROBLEMS)
    same = lens_difference(scores, scores, FINAL, 2)
    assert same.value == 0 and np.isnan(same.low)
    silent = lens_scores(decoded([(p.id, 2, 0, "apples") for p in PROBLEMS]), PROBLEMS)
    found = lens_difference(scores, silent, FINAL, 2)
    assert found.value == 0.5 and found.low > 0 and found.n == 20
    assert lens_difference(silent, scores, FINAL, 2).value == -0.5
