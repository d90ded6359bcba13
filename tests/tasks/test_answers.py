"""Answers: every hazard of reading a number from text, and comparison that never calls two nothings equal."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks import grading
from thoughtgraft.tasks.grading import GRADERS, NUMBER, OFFICIAL, Grader, grader
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.numbers import extract_answer, extract_official, format_number, parse_number
from thoughtgraft.tasks.problem import Problem, ProblemSet

NUMBERS = [
    ("42", 42),
    ("4,096", 4096),
    ("1,450,000", 1_450_000),
    ("$1,430", 1430),
    ("0.5", Fraction(1, 2)),
    (".5", Fraction(1, 2)),
    ("3/4", Fraction(3, 4)),
    ("12.", 12),
    ("-4", -4),
    ("\u22124", -4),
    ("-$5", -5),
    ("$-5", -5),
    ("-3/4", Fraction(-3, 4)),
    ("50%", 50),
    ("007", 7),
    ("0.1", Fraction(1, 10)),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_a_gold_like_text_is_read_exactly(text, value):
    assert parse_number(text) == value
    assert parse_number(f"  {text}\n") == value


@pytest.mark.parametrize(
    "text", ["", " ", "none", "5 apples", "1 2", "10-5", "1,2", "3/0", "--4", "1.2.3", "1e5", "inf", "nan", "9" * 400]
)
def test_a_gold_like_text_that_is_no_number_is_none(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_the_last_number_of_a_sentence_is_the_answer(text, value):
    assert extract_answer(f"Of 7 things, the answer is: {text}") == value
    assert extract_answer(f"The answer is: {text} in all") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is: 42.", 42),
        ("10-5", 5),
        ("10 - 5", 5),
        ("10 -5", 5),
        ("10\u22125", 5),
        ("$10-$5", 5),
        ("50%-5", 5),
        ("(3+4)-5", 5),
        ("step-5", 5),
        ("it is--5", 5),
        ("x = -5", -5),
        ("3*-4", -4),
        ("is 10\n-5", -5),
        ("He owes money. -4 dollars", -4),
        ("- 5", 5),
        ("1, 2, 3", 3),
        ("1,2,3", 3),
        ("1234,567", 567),
        ("20/4=5", 5),
        ("20/4", 5),
        ("on 12/5/2020", 2020),
        ("3 / 4", 4),
        ("half: 3/4.", Fraction(3, 4)),
        ("<<6*7=42>>42", 42),
        ("CT5", 5),
    ],
)
def test_operators_hyphens_lists_and_dates(text, value):
    assert extract_answer(text) == value


@pytest.mark.parametrize("text", ["", "no idea", "-", "$", ".", "...", ",", "/", "3/0", "\u0664", "9" * 5000])
def test_a_text_without_a_number_gives_none(text):
    assert extract_answer(text) is None


@given(st.text(max_size=60) | st.text("0123456789.,-/$% \n", max_size=40))
def test_no_text_breaks_the_readers(text):
    for value in (extract_answer(text), parse_number(text)):
        assert value is None or parse_number(format_number(value)) == value


@given(st.fractions(max_denominator=1000))
def test_what_is_written_is_read_back(value):
    assert parse_number(format_number(value)) == value
    assert extract_answer(f"The answer is: {format_number(value)}") == value


def test_equality_is_exact_and_nothing_equals_nothing():
    assert NUMBER.same("4096", NUMBER.canonical("4,096"))
    assert not NUMBER.same("0.5", "0")
    assert not NUMBER.same(None, None)
    assert not NUMBER.same(None, "0")
    assert not NUMBER.same("0", None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is: 1,430.", 1430.0),
        ("10-5", -5.0),
        (".5", 5.0),
        ("0.5", 0.5),
        ("3/4", 4.0),
        ("12.", 12.0),
        ("nothing at all", None),
        ("", None),
    ],
)
def test_the_official_procedure_with_its_own_readings(text, value):
    assert extract_official(text) == value


@pytest.mark.parametrize(
    ("text", "gold", "exact", "official"),
    [
        ("The answer is: 42", Fraction(42), True, True),
        ("The answer is: 42.0", Fraction(42), True, True),
        ("10-5", Fraction(5), True, False),
        ("3/4", Fraction(3, 4), True, False),
        ("0.1", Fraction(1, 10), True, True),
        ("nothing", Fraction(0), False, False),
        ("nothing", None, False, False),
        ("42", None, False, False),
        ("9" * 400, Fraction(1), False, False),
    ],
)
def test_grading_by_name(text, gold, exact, official):
    for rule, right in ((NUMBER, exact), (OFFICIAL, official)):
        assert grader(rule.name) is rule
        assert rule.same(rule.parse(text), rule.canonical(gold)) is right


def test_an_unknown_grader_is_named():
    with pytest.raises(ProblemError) as error:
        grader("fuzzy")
    assert str(error.value) == "unknown grader; got 'fuzzy'; expected number, official."


def test_a_new_kind_of_answer_is_one_class(monkeypatch):
    monkeypatch.setattr(grading, "GRADERS", dict(GRADERS))

    class Letter(Grader):
        name, noun, wanted = "letter", "letter", "one of A to D"

        def canonical(self, answer):
            return answer if answer in set("ABCD") else None

        def parse(self, text):
            return next((c for c in reversed(text) if c in "ABCD"), None)

        def scored(self, text):
            return max(map(text.rfind, "ABCD")) if self.parse(text) else None

    problems = load_problems([{"question": "Which?", "answer": "B"}], grader="letter")
    assert problems.grader == Letter() and problems[0].gold == "B"
    assert problems.content_hash != ProblemSet([Problem("x", "Which?", None)]).content_hash
    with pytest.raises(ProblemError, match="the field 'answer' holds no letter; got 'E'"):
        load_problems([{"question": "Which?", "answer": "E"}], grader="letter")
    with pytest.raises(ProblemError, match=r"answer of problem 'y' is no letter; got 5; expected one of A to D"):
        Problem("y", "Which?", 5, grader="letter")
    with pytest.raises(ProblemError, match="are not of one kind; got letter, number"):
        ProblemSet([*problems, Problem("y", "How many?", 5)])
