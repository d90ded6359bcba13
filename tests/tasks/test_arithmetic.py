"""The arithmetic generator: splits are disjoint, graphs compute the answers, words do not give the operation away."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from itertools import islice

import pytest

from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.numbers import format_number
from thoughtgraft.tasks.sets.arithmetic import LARGEST, arithmetic, generate, split_of, vocabulary
from thoughtgraft.tasks.steps import equations


def form(problem):
    return problem.template, tuple(int(n) for n in re.findall(r"\d+", problem.question))


def test_splits_are_disjoint_in_template_and_operands():
    test = {form(p) for p in arithmetic("test")}
    validation = {form(p) for p in arithmetic("validation")}
    train = {form(p) for p in islice(generate("train", 11), 20_000)}
    assert len(test) == 2_000
    assert not test & train and not test & validation and not validation & train


def test_heldout_templates_never_occur_elsewhere():
    held = {p.template for p in arithmetic("heldout")}
    others = {p.template for p in arithmetic("test")} | {p.template for p in islice(generate("train", 3), 10_000)}
    assert len(held) > 100 and not held & others


def test_a_form_is_assigned_by_its_hash_alone():
    for problem in arithmetic("test")[:50]:
        assert split_of(*form(problem)) == "test"


def test_every_number_is_whole_and_in_range():
    for problem in arithmetic("test"):
        for step in problem.steps:
            assert step.value.denominator == 1 and 1 <= step.value <= LARGEST


def test_the_graph_the_solution_and_the_answer_agree():
    for problem in arithmetic("test")[:300]:
        assert problem.gold == problem.steps[-1].result == NUMBER.parse(problem.solution)
        for k, step in enumerate(problem.steps):
            assert problem.answer_with(k, step.value).value == problem.gold
        assert problem.answer_with(len(problem.steps) - 1, 7).value == "7"


def test_a_counterfactual_runs_through_the_graph():
    problem = next(p for p in arithmetic("test") if [s.op for s in p.steps] == ["+", "*"])
    other = problem.steps[0].value + 1
    assert problem.answer_with(0, other).value == format_number(other * Fraction(problem.steps[1].right))


def test_the_solution_reads_like_gsm8k():
    problem = arithmetic("test")[0]
    assert re.fullmatch(r"(.+ = <<[^<>]+=\d+>>\d+\n)+#### \d+", problem.solution)
    assert [f"<<{eq}>>" for eq in equations(problem.steps)] == re.findall(r"<<[^<>]+>>", problem.solution)


def test_there_are_hundreds_of_each_operation_and_the_problems_are_not_trivial():
    problems = arithmetic("test")
    counts = Counter(p.operation for p in problems)
    assert min(counts[name] for name in ("addition", "multiplication", "mixed")) >= 400
    assert sum(len(p.steps) for p in problems) / len(problems) >= 2.3
    assert {len(p.steps) for p in problems} == {1, 2, 3, 4}


def test_early_texts_hold_as_many_additive_as_multiplicative_changes():
    """Only the order of the changes decides which of them count, so a bag of words says nothing."""
    seen = Counter()
    for problem in arithmetic("test"):
        if problem.template.startswith("early"):
            ops = re.findall(r"-([-+*/])\d", problem.template)
            assert sum(op in "+-" for op in ops) == sum(op in "*/" for op in ops) == len(problem.steps)
            seen[problem.operation] += 1
    assert min(seen[name] for name in ("addition", "multiplication", "mixed")) >= 50


def test_the_vocabulary_covers_every_problem():
    known = set(vocabulary())
    for problem in [*arithmetic("test")[:500], *arithmetic("heldout")[:500]]:
        assert set(re.findall(r"\d+|[a-z]+|[^\sa-z\d]", problem.question.lower())) <= known


def test_streams_are_reproducible_and_differ_by_seed():
    first, again, other = ([p.question for p in islice(generate("train", s), 20)] for s in (1, 1, 2))
    assert first == again != other


def test_an_unknown_split_is_an_error_that_names_the_splits():
    with pytest.raises(ProblemError, match="expected train, validation, test, heldout"):
        arithmetic("dev")


def test_a_step_that_does_not_reach_the_answer_has_no_counterfactual():
    from thoughtgraft.tasks.problem import Problem, Step

    steps = (Step(Fraction(1), "+", Fraction(1), Fraction(2)), Step(Fraction(3), "+", Fraction(1), Fraction(4)))
    found = Problem("a", "?", Fraction(4), steps=steps).answer_with(0, 9)
    assert found.value is None and found.undefined == "step 0 does not reach the answer"
