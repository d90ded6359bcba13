"""Operation labels by two rules, and draws by class: on small solutions, on the real GSM8K, and as the origin drew."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import pytest

from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.files import read_problems
from thoughtgraft.tasks.labels import compare_rules, draw_classes, label_problem, label_table, text_equations
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.tasks.sets.arithmetic import arithmetic


def problem(solution: str, name: str = "p", split: str = "test") -> Problem:
    return Problem(name, f"Question {name}?", Fraction(1), solution=solution, split=split)


@pytest.fixture(scope="module")
def gsm8k(gsm8k_dir: Path) -> ProblemSet:
    """The real problems, test then train, as `gsm8k:all` gives them."""
    parts = [read_problems(gsm8k_dir / f"{split}.jsonl") for split in ("test", "train")]
    return ProblemSet(tuple(p for part in parts for p in part), "gsm8k:all")


@pytest.mark.parametrize(
    ("solution", "operation", "operators", "steps"),
    [
        ("5+3=<<5+3=8>>8\n#### 8", "addition", "+", 1),
        ("<<5+3-2=6>>6\n#### 6", "addition", "+-", 2),
        ("<<5*3=15>>15 and <<15/5=3>>3\n#### 3", "multiplication", "*/", 2),
        ("half: <<1/2*10=5>>5\n#### 5", "multiplication", "*/", 2),
        ("<<5*3=15>>15\n<<15-1=14>>14\n#### 14", "mixed", "-*", 2),
        ("<<5+3=8>>8, then 8 x 2 = 16\n#### 16", "mixed", "+*", 1),
        ("she has $5 + $2 = $7\n#### 7", "addition", "+", 1),
        ("2(60)=120 minutes\n#### 120", "multiplication", "*", 1),
        ("40% * 50 = 20\n#### 20", "multiplication", "*", 1),
        ("x=<<9=9>>9\n#### 9", "unknown", "", None),
        ("2x+3=9 so x is 3\n#### 3", "unknown", "", None),
        ("<<five+3=8>>8 and 4+4=8\n#### 8", "unknown", "", None),
        ("no numbers\n#### 1+1=2", "unknown", "", None),
    ],
)
def test_annotations_rule(solution: str, operation: str, operators: str, steps: int | None) -> None:
    label = label_problem(problem(solution))
    assert (label.operation, "".join(label.operators), label.n_steps) == (operation, operators, steps)


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("3 \u00d7 4 \u00f7 2 =", [["*", "/"]]),
        ("10 \u2212 4 = 6 and (1+2)*3 = 9", [["-"], ["+", "*"]]),
        ("X*6 + 9 = 87", []),
        ("4x + 20 = 100", []),
        ("a 3-4 day trip, 5", []),
        ("2 + 1 1/2 = 3 1/2", []),
        ("5,000 + 1,000 =", [["+"]]),
    ],
)
def test_arithmetic_in_text(text: str, operators: list[list[str]]) -> None:
    assert text_equations(text) == operators


@pytest.mark.parametrize(
    ("solution", "operation"),
    [
        ("5 + 3 = 8\n#### 8", "addition"),
        ("5*3 = 15\n#### 15", "multiplication"),
        ("5*3 = 15, 15-1 = 14\n#### 14", "mixed"),
        ("nothing\n#### 1+1", "mixed"),
        ("a 3-4 day trip: 5*2 = 10\n#### 10", "mixed"),
    ],
)
def test_the_origins_rule(solution: str, operation: str) -> None:
    label = label_problem(problem(solution), "cot-exploration")
    assert (label.operation, label.operators, label.n_steps) == (operation, (), None)


def test_generated_problems_are_labelled_by_their_steps() -> None:
    problems = arithmetic("test")[:200]
    table = label_table(problems)
    assert list(table["operation"]) == [p.operation for p in problems]
    assert list(table["n_steps"]) == [len(p.steps) for p in problems]
    assert list(table["add"]) == [any(s.op == "+" for s in p.steps) for p in problems]


def test_a_rule_that_cannot_be_applied_is_explained() -> None:
    with pytest.raises(ProblemError, match=r"no such rule for operations; got 'x'; expected annotations or cot-expl"):
        label_problem(problem(""), "x")  # type: ignore[arg-type]
    with pytest.raises(ProblemError, match=r"reads solutions, and these problems have none\. Fix: use the rule annot"):
        label_table([problem("")], "cot-exploration")


def test_gsm8k_by_the_origins_rule(gsm8k: ProblemSet) -> None:
    counts = label_table(gsm8k, "cot-exploration")["operation"].value_counts()
    assert dict(counts) == {"addition": 963, "multiplication": 1480, "mixed": 6349}


def test_gsm8k_by_annotations(gsm8k: ProblemSet) -> None:
    table = label_table(gsm8k)
    assert dict(table["operation"].value_counts()) == {
        "mixed": 6476,
        "multiplication": 1413,
        "addition": 777,
        "unknown": 126,
    }
    test = table[table["split"] == "test"]["operation"].value_counts()
    assert dict(test) == {"mixed": 982, "multiplication": 209, "addition": 114, "unknown": 14}
    # Where the annotations make a graph that computes the answer, its steps are what is counted.
    steps = {p.id: len(p.steps) for p in gsm8k if p.steps}
    assert all(n == steps[i] for i, n in zip(table["id"], table["n_steps"], strict=True) if i in steps)


def test_gsm8k_where_the_rules_disagree(gsm8k: ProblemSet) -> None:
    table = compare_rules(gsm8k, examples=2).set_index(["annotations", "cot_exploration"])
    assert table["n"].sum() == 8792
    assert table["n"][table["agree"]].sum() == 8334
    assert table.loc[("mixed", "addition"), "n"] == 186
    assert table.loc[("mixed", "addition"), "examples"] == ["test_26", "test_35"]


def test_the_origins_draw(gsm8k: ProblemSet) -> None:
    full = draw_classes(gsm8k, 200, draw="cot-exploration")
    prototype = draw_classes(gsm8k, 20, draw="cot-exploration")
    assert full.drawn == {"addition": 200, "multiplication": 200, "mixed": 200} and full.rule == "cot-exploration"
    assert [full.problems[i].id for i in (0, 200, 400)] == ["train_4559", "train_6492", "train_3671"]
    assert [prototype.problems[i].id for i in (0, 20, 40)] == ["train_7075", "train_7172", "train_6410"]
    assert {p.id for p in prototype.problems} < {p.id for p in full.problems}


def test_the_test_split_is_not_filled_up_from_elsewhere(gsm8k: ProblemSet) -> None:
    sample = draw_classes(gsm8k, 200)
    assert sample.draw == "test" and {p.split for p in sample.problems} == {"test"}
    assert sample.drawn == {"addition": 114, "multiplication": 200, "mixed": 200}
    assert sample.short == {"addition": 114}
    assert sample.available["multiplication"] == 209


def test_draws_are_nested_balanced_and_of_their_class() -> None:
    problems = arithmetic("test")
    small, large = draw_classes(problems, 20, seed=3), draw_classes(problems, 50, seed=3)
    other = draw_classes(problems, 20, seed=4)
    assert small.drawn == dict.fromkeys(("addition", "multiplication", "mixed"), 20) and small.draw == "all"
    for at in range(3):
        mine = [p.id for p in small.problems[20 * at : 20 * at + 20]]
        assert mine == [p.id for p in large.problems[50 * at : 50 * at + 20]]
        assert mine != [p.id for p in other.problems[20 * at : 20 * at + 20]]
    assert all(p.operation == name for p, name in zip(large.problems, large.operations, strict=True))


def test_a_draw_does_not_hang_on_the_generator_of_others() -> None:
    random.seed(1)
    first = draw_classes(arithmetic("test"), 5).problems
    random.seed(2)
    assert draw_classes(arithmetic("test"), 5).problems == first


def test_draws_that_cannot_be_made_are_explained() -> None:
    adding = ProblemSet(tuple(problem("<<1+1=2>>2\n#### 2", f"p{i}") for i in range(4)), "mine")
    with pytest.raises(
        ProblemError, match=r"mine does not hold problems of two classes; got 4 addition, 0 mult.*draw all"
    ):
        draw_classes(adding, 2)
    with pytest.raises(ProblemError, match="unknown draw; got 'half'"):
        draw_classes(adding, 2, draw="half")
    with pytest.raises(ProblemError, match="is over test, then train; got test"):
        draw_classes(adding, 2, draw="cot-exploration")
    both = ProblemSet((*adding, problem("<<2*2=4>>4\n#### 4", "q", "train")), "mine")
    with pytest.raises(ProblemError, match=r"needs 200 problems of each class; got .*'addition': 4"):
        draw_classes(both, 2, draw="cot-exploration")
