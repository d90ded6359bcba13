"""Which arithmetic a problem's solution uses: labels by two rules, and where the rules disagree."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from thoughtgraft.errors import ProblemError
from thoughtgraft.problems.annotations import (
    ANNOTATION,
    NotArithmetic,
    operators_of,
    parse_annotations,
    parse_expression,
)
from thoughtgraft.problems.problem import Problem

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
