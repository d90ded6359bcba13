"""GSM8K's `<<expression=value>>` annotations: their arithmetic, and the causal graph that they make."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from thoughtgraft.tasks.numbers import format_number, parse_number
from thoughtgraft.tasks.problem import APPLY, Operand, Ref, Step

ANNOTATION = re.compile(r"<<(.*?)>>", re.DOTALL)
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+")
# `//` is written where the division comes out whole; where it would not, the stated value shows it.
_SYMBOLS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "/",
}


class NotArithmetic(ValueError):
    """An annotation is not `expression=value` over numbers and + - * /; its text is the message."""


@dataclass(frozen=True)
class Operation:
    """A binary operation on two expressions."""

    left: Expression
    op: str
    right: Expression


Expression = Fraction | Operation


@dataclass(frozen=True)
class Annotation:
    """One annotation: what is computed, and the value that the solution states for it."""

    expression: Expression
    value: Fraction


def parse_annotations(solution: str) -> list[Annotation]:
    """The annotations of a solution, in order.

    Args:
        solution: A reference solution in GSM8K's format.

    Raises:
        NotArithmetic: One of them does not parse.
    """
    return [_annotation(text) for text in ANNOTATION.findall(solution)]


def _annotation(text: str) -> Annotation:
    expression, _, stated = text.rpartition("=")
    value = parse_number(stated)
    if value is None:
        raise NotArithmetic(text)
    return Annotation(parse_expression(expression), value)


def parse_expression(text: str) -> Expression:
    """The arithmetic of a text: numbers, + - * / and brackets.

    Raises:
        NotArithmetic: The text is anything else.
    """
    # The parser sees names in the place of numbers, so that they stay exact (`0.1`) and `05` or `1,000` may be numbers.
    numbers: dict[str, Fraction | None] = {}

    def name(match: re.Match[str]) -> str:
        key = f"n{len(numbers)}"
        numbers[key] = parse_number(match[0])
        return key

    try:
        return _expression(ast.parse(_NUMBER.sub(name, text.strip()), mode="eval").body, numbers)
    except (SyntaxError, ValueError, RecursionError):
        raise NotArithmetic(text) from None


def _expression(node: ast.expr, numbers: dict[str, Fraction | None]) -> Expression:
    if isinstance(node, ast.Name):
        number = numbers.get(node.id)
        if number is not None:
            return number
    if isinstance(node, ast.BinOp) and type(node.op) in _SYMBOLS:
        return Operation(_expression(node.left, numbers), _SYMBOLS[type(node.op)], _expression(node.right, numbers))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd):
        return _expression(node.operand, numbers)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _expression(node.operand, numbers)
        return -inner if isinstance(inner, Fraction) else Operation(Fraction(0), "-", inner)
    raise NotArithmetic(ast.unparse(node))


def operators_of(expression: Expression) -> list[str]:
    """The operators of an expression, each as often as it occurs, in the order of computation."""
    if isinstance(expression, Fraction):
        return []
    return [*operators_of(expression.left), *operators_of(expression.right), expression.op]


class _Graph:
    """Steps under construction, and which step each stated result came from."""

    def __init__(self, given: set[Fraction]) -> None:
        self.given = given
        self.steps: list[Step] = []
        self.results: list[tuple[Fraction, int]] = []

    def add(self, annotation: Annotation) -> bool:
        """Append an annotation's steps; False where its arithmetic does not give the stated value."""
        last = self._lower(annotation.expression)
        if self._value(last) != annotation.value:
            return False
        if isinstance(last, Ref):
            self.results.append((annotation.value, last.step))
        return True

    def _lower(self, expression: Expression) -> Operand:
        if isinstance(expression, Fraction):
            return self._link(expression)
        left, right = self._lower(expression.left), self._lower(expression.right)
        value = APPLY[expression.op](self._value(left), self._value(right))
        self.steps.append(Step(left, expression.op, right, value))
        return Ref(len(self.steps) - 1)

    def _link(self, number: Fraction) -> Operand:
        sources = {step for value, step in self.results if value == number}
        return Ref(sources.pop()) if len(sources) == 1 and number not in self.given else number

    def _value(self, operand: Operand) -> Fraction:
        return self.steps[operand.step].value if isinstance(operand, Ref) else operand


def steps_from(solution: str, *, question: str, gold: str | None) -> tuple[Step, ...]:
    """The causal graph that a solution's annotations make, one binary operation per step.

    An operand that equals an earlier annotation's result refers to it, if exactly one step has that result and the
    question does not give the same number in digits; otherwise it stays a number, since where it comes from is not
    certain.

    Args:
        solution: A reference solution in GSM8K's format.
        question: The problem's question.
        gold: The problem's answer, as canonical text.

    Returns:
        The steps in order; empty where an annotation does not parse or does not hold, or where the last one is not
        the answer, since then the graph does not compute it.
    """
    given = {number for text in _NUMBER.findall(question) if (number := parse_number(text.rstrip(","))) is not None}
    graph = _Graph(given)
    try:
        held = [graph.add(annotation) for annotation in parse_annotations(solution)]
    except (NotArithmetic, ZeroDivisionError):
        return ()
    if not all(held) or not graph.steps or graph.steps[-1].result != gold:
        return ()
    return tuple(graph.steps)


def equations(steps: Sequence[Step]) -> list[str]:
    """Steps as bare equations such as `26+5=31`, in order, with every reference replaced by its value."""

    def number(operand: Operand) -> str:
        return format_number(steps[operand.step].value if isinstance(operand, Ref) else operand)

    return [f"{number(s.left)}{s.op}{number(s.right)}={s.result}" for s in steps]


def solution_text(steps: Sequence[Step]) -> str:
    """Steps as a solution in GSM8K's format: one annotated line a step, then the answer."""
    lines = [f"{eq.split('=')[0]} = <<{eq}>>{eq.split('=')[1]}" for eq in equations(steps)]
    return "\n".join([*lines, f"#### {steps[-1].result}"])
