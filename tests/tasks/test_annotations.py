"""Annotations: exact arithmetic, links to earlier steps only where they are certain, and no graph that lies."""

from __future__ import annotations

import operator
from fractions import Fraction

import pytest

from thoughtgraft.tasks.files import read_problems
from thoughtgraft.tasks.numbers import format_number
from thoughtgraft.tasks.problem import Problem, Ref, Step
from thoughtgraft.tasks.steps import NotArithmetic, Operation, parse_annotations, steps_from

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def number(text):
    return Fraction(text)


def test_expressions_are_exact_and_keep_their_structure():
    first, second = parse_annotations("a <<16-3-4=9>>9 then <<.1*(2+05)=0.7>>0.7")
    assert first.expression == Operation(Operation(number(16), "-", number(3)), "-", number(4))
    assert first.value == 9
    assert second.expression == Operation(Fraction(1, 10), "*", Operation(number(2), "+", number(5)))
    assert second.value == Fraction(7, 10)


@pytest.mark.parametrize("text", ["+8=8", "-3+5=2", "560//10=56", "1,000*2=2,000", "5=5"])
def test_unusual_spellings_parse(text):
    assert len(parse_annotations(f"<<{text}>>")) == 1


@pytest.mark.parametrize(
    "text", ["2+2", "2+=2", "x*2=4", "2**3=8", "f(2)=2", "2 2=4", "'a'+1=2", "=", "50%*2=1", "(" * 999]
)
def test_what_is_not_arithmetic_is_refused_and_leaves_no_steps(text):
    with pytest.raises(NotArithmetic):
        parse_annotations(f"<<{text}>>")
    assert steps_from(f"<<{text}>>", question="?", gold="2") == ()


def test_a_result_that_is_used_again_is_linked():
    solution = "<<3*4=12>>12 apples, <<12+5=17>>17 in all\n#### 17"
    steps = steps_from(solution, question="3 bags of 4, and 5 more?", gold="17")
    assert steps == (
        Step(number(3), "*", number(4), number(12)),
        Step(Ref(0), "+", number(5), number(17)),
    )
    problem = Problem("a", "3 bags of 4, and 5 more?", Fraction(17), solution, steps)
    assert problem.answer_with(0, 20).value == "25"


def test_a_number_that_could_come_from_two_places_is_not_linked():
    in_question = steps_from("<<3*4=12>> <<12+5=17>>", question="3 of 4; 12 and 5", gold="17")
    assert in_question[1].left == number(12)
    twice = steps_from("<<3*4=12>> <<6*2=12>> <<12+5=17>>", question="?", gold="17")
    assert twice[2].left == number(12)


def test_a_long_expression_becomes_binary_steps():
    steps = steps_from("<<2*(3+4)-1=13>> <<13/2=6.5>>", question="?", gold="6.5")
    assert steps == (
        Step(number(3), "+", number(4), number(7)),
        Step(number(2), "*", Ref(0), number(14)),
        Step(Ref(1), "-", number(1), number(13)),
        Step(Ref(2), "/", number(2), Fraction(13, 2)),
    )


@pytest.mark.parametrize(
    "solution",
    ["", "no annotation", "<<10/3=3.33>>", "<<7//2=3>>", "<<1/0=1>>", "<<2+2=4>> so 4 + 1 = 5", "<<5=5>>"],
)
def test_a_graph_that_would_not_compute_the_answer_is_left_out(solution):
    assert steps_from(solution, question="?", gold="5") == ()


def test_every_annotation_of_gsm8k_parses(gsm8k_dir):
    problems = [p for split in ("test", "train") for p in read_problems(gsm8k_dir / f"{split}.jsonl")]
    assert len(problems) == 8792
    assert sum(len(parse_annotations(p.solution)) for p in problems) == 27_998
    assert all(p.gold is not None for p in problems)
    with_steps = [p for p in problems if p.steps]
    assert len(with_steps) == 8069
    for p in with_steps:
        values: list[Fraction] = []
        for step in p.steps:
            left, right = (values[x.step] if isinstance(x, Ref) else x for x in (step.left, step.right))
            values.append(OPERATORS[step.op](left, right))
            assert values[-1] == step.value
        assert format_number(values[-1]) == p.gold
