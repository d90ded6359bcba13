"""Problems labelled by their arithmetic, and balanced samples of the classes."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.load import COT_EXPLORATION_SEED
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.tasks.steps import ANNOTATION, NotArithmetic, operators_of, parse_annotations, parse_expression

if TYPE_CHECKING:
    import pandas as pd

Rule = Literal["annotations", "cot-exploration"]
RULES: tuple[Rule, ...] = get_args(Rule)

CLASSES = ("addition", "multiplication", "mixed")
"""The classes of the study; `unknown` stands for no arithmetic found and belongs to none."""

OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
"""The column of each operator in a table of labels."""

_SIGNS = str.maketrans({"×": "*", "÷": "/", "\u2212": "-", "x": "*", "X": "*"})
_AMOUNT = r"[(\s]*\$?\s*(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)\s*%?[)\s]*"
# Arithmetic between numbers that ends in `=`. Where letters stand beside it, it is algebra: the operators of
# `2x + 3 = 9` are not computed. Nor does it begin within a mixed number, `1 1/2`.
_EQUATION = re.compile(rf"(?<![\w.*/+)\-])(?<![0-9] )({_AMOUNT}(?:(?:[-+*/×÷\u2212xX]|(?=\()){_AMOUNT})+)=")
_BEFORE_BRACKET = re.compile(r"(?<=[0-9)])\s*(?=\()")
_ANSWER_MARK = "####"

# CoT_Exploration's rule, as its classifier wrote it.
_COT_ADDITIVE = re.compile(r"\d+\s*[\+\-]\s*\d+")
_COT_MULTIPLICATIVE = re.compile(r"\d+\s*[\*\/]\s*\d+")


@dataclass(frozen=True)
class OperationLabel:
    """What arithmetic a problem takes.

    Attributes:
        operation: `addition` (+ and - only), `multiplication` (* and / only), `mixed`, or `unknown`.
        operators: Which of + - * / occur, in this order. Empty where the rule does not say.
        n_steps: Binary operations; None where the rule does not count them.
    """

    operation: str
    operators: tuple[str, ...] = ()
    n_steps: int | None = None


def label_problem(problem: Problem, rule: Rule = "annotations") -> OperationLabel:
    """The operation label of one problem.

    Rule `annotations`: the operators of the solution's `<<expression=value>>` annotations and of arithmetic between
    numbers that ends in `=` in its text; a fraction such as 1/2 is a division. An annotation that is not arithmetic
    makes the label unknown. A problem whose steps are known by construction, or that has no solution text, is
    labelled by its steps. Steps are the operations of the annotations, or of the text where there are none.

    Rule `cot-exploration`: that project's two regular expressions over the text before `####`; both or neither is
    `mixed`. Source: the CoT_Exploration experiments (October 2025), which call the classes pure_addition,
    pure_multiplication and mixed.

    Args:
        problem: The problem.
        rule: The rule's name.

    Raises:
        ProblemError: There is no such rule.
    """
    if rule == "annotations":
        if problem.template is not None or not problem.solution:
            return _label([step.op for step in problem.steps], len(problem.steps))
        return _by_annotations(problem.solution)
    if rule == "cot-exploration":
        text = problem.solution.split(_ANSWER_MARK)[0]
        additive, multiplicative = bool(_COT_ADDITIVE.search(text)), bool(_COT_MULTIPLICATIVE.search(text))
        return OperationLabel("mixed" if additive == multiplicative else CLASSES[0] if additive else CLASSES[1])
    raise ProblemError("there is no such rule for operations", got=repr(rule), expected=" or ".join(RULES))


def _by_annotations(solution: str) -> OperationLabel:
    text = solution.rpartition(_ANSWER_MARK)[0] or solution
    try:
        annotated = [op for item in parse_annotations(text) for op in operators_of(item.expression)]
    except NotArithmetic:
        return OperationLabel("unknown")
    written = [op for equation in text_equations(text) for op in equation]
    return _label([*annotated, *written], len(annotated or written))


def text_equations(text: str) -> list[list[str]]:
    """The operators of each piece of arithmetic that ends in `=` in a text, annotations left out.

    `3 x 4 =`, `$5 + $2 =`, `40% * 50 =` and `2(60) =` count; arithmetic beside letters does not.
    """
    found = []
    for match in _EQUATION.finditer(ANNOTATION.sub("", text)):
        plain = match[1].translate(_SIGNS).replace("$", "").replace("%", "")
        try:
            found.append(operators_of(parse_expression(_BEFORE_BRACKET.sub("*", plain))))
        except NotArithmetic:
            continue  # Brackets that do not close, or two numbers side by side: not a computation.
    return [operators for operators in found if operators]


def _label(operators: list[str], n_steps: int) -> OperationLabel:
    there = tuple(op for op in OPERATORS if op in operators)
    if not there:
        return OperationLabel("unknown")
    additive, multiplicative = bool({"+", "-"} & set(there)), bool({"*", "/"} & set(there))
    name = "mixed" if additive and multiplicative else CLASSES[0] if additive else CLASSES[1]
    return OperationLabel(name, there, n_steps)


def label_table(problems: Iterable[Problem], rule: Rule = "annotations") -> pd.DataFrame:
    """One row per problem, in order.

    Returns:
        Columns id, split, operation, n_steps (nullable), and add, sub, mul, div: whether the operator occurs
        (nullable; undefined under a rule that does not say).

    Raises:
        ProblemError: There is no such rule, or it reads solutions and there are none.
    """
    import pandas as pd

    problems = list(problems)
    if rule == "cot-exploration" and not any(p.solution for p in problems):
        raise ProblemError(
            "the rule cot-exploration reads solutions, and these problems have none", fix="use the rule annotations"
        )
    labels = [label_problem(problem, rule) for problem in problems]
    table = pd.DataFrame({"id": [p.id for p in problems], "split": [p.split for p in problems]})
    table["operation"] = [label.operation for label in labels]
    table["n_steps"] = pd.array([label.n_steps for label in labels], dtype="Int64")
    for op, name in OPERATORS.items():
        known = [op in label.operators if label.operators else None for label in labels]
        table[name] = pd.array(known, dtype="boolean")
    return table


def compare_rules(problems: Iterable[Problem], examples: int = 3) -> pd.DataFrame:
    """How often each label of one rule meets each label of the other.

    Args:
        problems: The problems.
        examples: How many problem ids to name for each pair of labels, from the first.

    Returns:
        One row per pair that occurs, most frequent first: annotations, cot_exploration (labels), n, agree, examples
        (ids, a list).
    """
    import pandas as pd

    pairs: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        names = (label_problem(problem).operation, label_problem(problem, "cot-exploration").operation)
        pairs.setdefault(names, []).append(problem.id)
    rows = [
        {"annotations": a, "cot_exploration": b, "n": len(ids), "agree": a == b, "examples": ids[:examples]}
        for (a, b), ids in sorted(pairs.items(), key=lambda item: -len(item[1]))
    ]
    return pd.DataFrame(rows, columns=["annotations", "cot_exploration", "n", "agree", "examples"])


DRAWS = ("auto", "test", "train", "all", "cot-exploration")
"""`test` and `train` take one split's problems, `all` every problem. `auto` is `test` where several splits are mixed:
the public models were trained on GSM8K's train split, so what they hold of it is not what they would compute."""

# The origin's full draw takes 200 of each class; its prototype draws 20 of those anew.
_ORIGIN_DRAWN = 200


@dataclass(frozen=True)
class ClassSample:
    """Problems of each class, drawn.

    Attributes:
        problems: Class after class, in the order drawn.
        operations: The class of each problem.
        rule: The rule that labelled them.
        draw: The draw's name; never `auto`.
        asked: How many of each class were wanted.
        available: How many of each class the stratum holds.
    """

    problems: ProblemSet
    operations: tuple[str, ...]
    rule: Rule
    draw: str
    asked: int
    available: Mapping[str, int]

    @property
    def drawn(self) -> dict[str, int]:
        """How many of each class there are."""
        return {name: self.operations.count(name) for name in CLASSES}

    @property
    def short(self) -> dict[str, int]:
        """The classes that hold fewer than were wanted, with what they hold."""
        return {name: n for name, n in self.drawn.items() if n < self.asked}


def draw_classes(
    problems: ProblemSet, per_class: int, *, seed: int = 0, draw: str = "auto", rule: Rule | None = None
) -> ClassSample:
    """So many problems of each class; all of a class that holds fewer, which is never filled up.

    Draws with one seed are nested: a smaller one is the beginning of a larger one, class by class. `cot-exploration`
    is the CoT_Exploration draw: its own seed 42, one `random.sample` of 200 per class in the order of `CLASSES` over
    test-then-train; fewer than 200 are drawn from those by a fresh generator of the same seed.

    Args:
        problems: What is drawn from.
        per_class: How many of each class.
        seed: Permutes each class; has no part in `cot-exploration`.
        draw: One of `DRAWS`.
        rule: The rule of the labels; None takes the draw's own (`annotations`, or `cot-exploration`).

    Raises:
        ProblemError: The draw is unknown or does not fit the problems, or fewer than two classes have problems.
    """
    if draw not in DRAWS:
        raise ProblemError("unknown draw", got=repr(draw), expected=" or ".join(DRAWS))
    origin = draw == "cot-exploration"
    rule = (RULES[1] if origin else RULES[0]) if rule is None else rule
    splits = list(dict.fromkeys(problem.split for problem in problems))
    if draw == "auto":
        draw = "test" if len(splits) > 1 and "test" in splits else "all"
    table = label_table(problems, rule)
    if draw in ("test", "train"):
        table = table[table["split"] == draw]
    members = {name: [str(i) for i in table["id"][table["operation"] == name]] for name in CLASSES}
    if origin:
        if splits != ["test", "train"]:
            got = ", then ".join(splits)
            fix = "use --problems gsm8k:all, or another draw"
            raise ProblemError("the draw cot-exploration is over test, then train", got=got, fix=fix)
        chosen = _origin(members, per_class)
    else:
        chosen = {name: _permuted(ids, seed, name)[:per_class] for name, ids in members.items()}
    if sum(bool(ids) for ids in chosen.values()) < 2:
        raise ProblemError(
            f"{problems.name} does not hold problems of two classes",
            got=", ".join(f"{len(ids)} {name}" for name, ids in members.items()) + f" (draw {draw}, rule {rule})",
            fix="use another --draw, or more problems",
        )
    by_id = {problem.id: problem for problem in problems}
    return ClassSample(
        ProblemSet(tuple(by_id[i] for ids in chosen.values() for i in ids), problems.name),
        tuple(name for name, ids in chosen.items() for _ in ids),
        rule,
        draw,
        per_class,
        {name: len(ids) for name, ids in members.items()},
    )


def _permuted(ids: Sequence[str], seed: int, name: str) -> list[str]:
    """The class in its own seeded order, so that what is drawn of one does not hang on the others."""
    key = int.from_bytes(hashlib.sha256(f"operations {seed} {name}".encode()).digest()[:8], "big")
    order = list(ids)
    random.Random(key).shuffle(order)
    return order


def _origin(members: Mapping[str, Sequence[str]], per_class: int) -> dict[str, list[str]]:
    if short := {name: len(ids) for name, ids in members.items() if len(ids) < _ORIGIN_DRAWN}:
        raise ProblemError(
            "the draw cot-exploration needs 200 problems of each class", got=short, fix="use another --draw"
        )
    if per_class > _ORIGIN_DRAWN:
        raise ProblemError("the draw cot-exploration has 200 problems of each class", got=per_class)
    generator = random.Random(COT_EXPLORATION_SEED)
    drawn = {name: generator.sample(list(ids), _ORIGIN_DRAWN) for name, ids in members.items()}
    if per_class == _ORIGIN_DRAWN:
        return drawn
    generator = random.Random(COT_EXPLORATION_SEED)
    return {name: generator.sample(ids, per_class) for name, ids in drawn.items()}
