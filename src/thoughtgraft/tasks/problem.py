"""A problem (question, gold answer, steps as a causal graph) and an ordered, hashed set of them."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, overload

from thoughtgraft.arguments import answers_for_calls, items, need, shown, whole
from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.grading import NUMBER, Grader, grader
from thoughtgraft.tasks.numbers import as_number, format_number

Value = Fraction
"""What a step computes. Outside this room it is only handed on: to `Problem.answer_with`, or compared with another."""

APPLY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
"""What each operator of a step computes."""


@dataclass(frozen=True)
class Ref:
    """An operand that is the value of an earlier step (0-based)."""

    step: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", whole(self.step, "the step that an operand names", ProblemError, least=0))


Operand = Fraction | Ref


@answers_for_calls(ProblemError)
@dataclass(frozen=True)
class Step:
    """One arithmetic step `left op right = value`; operands are numbers (any kind is made exact) or earlier steps."""

    left: Operand
    op: str
    right: Operand
    value: Fraction

    def __post_init__(self) -> None:
        if not isinstance(self.op, str) or self.op not in APPLY:
            raise ProblemError("a step has an unknown operator", got=shown(self.op), expected="one of + - * /")
        for name in ("left", "right", "value"):
            operand = getattr(self, name)
            if not isinstance(operand, Ref) or name == "value":
                object.__setattr__(self, name, _number(operand, f"the {name} of a step"))

    @property
    def result(self) -> str:
        """The step's value as an answer writes it."""
        return format_number(self.value)


@dataclass(frozen=True)
class Counterfactual:
    """The answer a problem would have if one step had another value; undefined with a reason.

    Attributes:
        value: The answer's canonical text; None where it is undefined.
        undefined: Why it is; None where it is not.
        outside: Whether it is undefined only because it is larger than what the model can write.
    """

    value: str | None
    undefined: str | None = None
    outside: bool = False


@answers_for_calls(ProblemError)
@dataclass(frozen=True)
class Problem:
    """One question with its gold answer.

    Args:
        id: Unique within its problem set, for example `test_51`.
        question: The text the model is asked.
        gold: The answer's canonical text; None if the source gives none that parses. What is given may be written
            otherwise: the grader makes `4096` of 4096, 4096.0 and "4,096".
        solution: The reference solution as text (GSM8K's format where known).
        steps: The causal graph, in order; empty where unknown.
        split: The split the problem belongs to.
        template: The frames it was generated from; None for collected problems.
        grader: How answers to it are read and compared: a `Grader` or the name of one.
    """

    id: str
    question: str
    gold: str | None
    solution: str = ""
    steps: tuple[Step, ...] = ()
    split: str = "unknown"
    template: str | None = None
    grader: Grader = field(default=NUMBER, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "grader", grader(self.grader))
        if not isinstance(self.id, str) or not self.id:
            raise ProblemError("a problem needs an id", got=shown(self.id), expected="text, such as 'test_51'")
        who = f"of problem {shown(self.id)}"
        for name in ("question", "solution", "split"):
            need(getattr(self, name), str, f"the {name} {who}", ProblemError, expected="text")
        if self.template is not None:
            need(self.template, str, f"the template {who}", ProblemError, expected="text or None")
        if not self.question.strip():
            raise ProblemError(f"problem {self.id!r} has an empty question", fix="give every problem a question")
        if self.gold is not None:
            object.__setattr__(self, "gold", self._canonical(self.gold, who))
        object.__setattr__(self, "steps", _steps(self.steps, who))
        for name, text in (("question", self.question), ("solution", self.solution)):
            try:
                text.encode()
            except (
                UnicodeEncodeError
            ) as error:  # JSON can write half of a surrogate pair; no tokenizer or file takes it
                raise ProblemError(
                    f"the {name} of problem {self.id!r} holds half a character",
                    got=f"{text[error.start]!a} at character {error.start}",
                    expected="text in Unicode",
                    fix="write the character itself, or both halves of its escape",
                ) from None

    def _canonical(self, answer: Any, who: str) -> str:
        text = self.grader.canonical(answer)
        if text is None:
            what = f"the gold answer {who} is no {self.grader.noun}"
            raise ProblemError(what, got=shown(answer), expected=self.grader.wanted)
        return text

    @property
    def operation(self) -> str:
        """`addition` (+ and - only), `multiplication` (* and / only), `mixed`, or `unknown`."""
        ops = {step.op for step in self.steps}
        if not ops:
            return "unknown"
        if ops <= {"+", "-"}:
            return "addition"
        return "multiplication" if ops <= {"*", "/"} else "mixed"

    @property
    def content_hash(self) -> str:
        """Hash of what the model sees and is graded on: the question, the gold answer, and how answers are read."""
        # The first grader has no part in it, so that what was stored before there were others is still known.
        asked = [self.question, self.gold, *([] if self.grader == NUMBER else [self.grader.name])]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    def answer_with(self, step: int, value: int | Value, largest: int | None = None) -> Counterfactual:
        """The answer if step `step` had `value`, everything after it recomputed through the graph.

        Args:
            step: 0-based step index.
            value: The value put in the place of the step's own.
            largest: The largest number that the model can write, if it has one.

        Returns:
            The counterfactual answer, or the reason why it is undefined: a later value that is not a whole
            positive number, an answer that does not depend on the step as far as the graph knows, or one that is
            larger than `largest`.

        Raises:
            ProblemError: The problem has no such step.
        """
        step = whole(step, "the step", ProblemError)
        put = _number(value, "the value that is put in the place of a step's")
        if not 0 <= step < len(self.steps):
            raise ProblemError(
                f"problem {self.id!r} has no step {step}",
                expected=f"0..{len(self.steps) - 1}" if self.steps else "a problem with known steps",
            )
        if not self._reaches_answer(step):
            return Counterfactual(None, f"step {step} does not reach the answer")
        values: list[Fraction] = []
        for index, s in enumerate(self.steps):
            if index == step:
                new = put
            else:
                left, right = (values[x.step] if isinstance(x, Ref) else x for x in (s.left, s.right))
                if s.op == "/" and right == 0:
                    return Counterfactual(None, f"step {index} divides by zero")
                new = APPLY[s.op](left, right)
            if index >= step and (new.denominator != 1 or new <= 0):
                return Counterfactual(None, f"step {index} becomes {format_number(new)}, not a whole positive number")
            values.append(new)
        if largest is not None and values[-1] > largest:
            return Counterfactual(
                None, f"the answer becomes {format_number(values[-1])}, above {largest}", outside=True
            )
        return Counterfactual(self.grader.canonical(values[-1]))

    def _reaches_answer(self, step: int) -> bool:
        reached = {step}
        for index, s in enumerate(self.steps):
            if any(isinstance(x, Ref) and x.step in reached for x in (s.left, s.right)):
                reached.add(index)
        return len(self.steps) - 1 in reached


@answers_for_calls(ProblemError)
@dataclass(frozen=True)
class ProblemSet(Sequence[Problem]):
    """An ordered list of problems with unique ids, one grader and one content hash."""

    problems: tuple[Problem, ...]
    name: str = "problems"
    content_hash: str = field(init=False)

    def __post_init__(self) -> None:
        fix = "ProblemSet([Problem(...), ...]); load_problems makes one of rows, a table or a file"
        given = items(self.problems, "problems", ProblemError, expected="a list of Problems", fix=fix)
        object.__setattr__(self, "problems", tuple(given))
        need(self.name, str, "the name of a problem set", ProblemError, expected="text")
        seen: set[str] = set()
        for problem in self.problems:
            need(problem, Problem, f"one of the problems of {self.name}", ProblemError, expected="a Problem", fix=fix)
            if problem.id in seen:
                raise ProblemError(f"problem id {problem.id!r} occurs twice in {self.name}", fix="make ids unique")
            seen.add(problem.id)
        if len(graders := {problem.grader.name for problem in self.problems}) > 1:
            raise ProblemError(
                f"the answers in {self.name} are not of one kind",
                got=", ".join(sorted(graders)),
                expected="one grader for all of its problems",
                fix="make a set for each",
            )
        digest = hashlib.sha256("\n".join(p.content_hash for p in self.problems).encode()).hexdigest()[:16]
        object.__setattr__(self, "content_hash", digest)

    @property
    def grader(self) -> Grader:
        """How its answers are read and compared; the number grader where there is no problem."""
        return self.problems[0].grader if self.problems else NUMBER

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> ProblemSet: ...
    def __getitem__(self, index: int | slice) -> Problem | ProblemSet:
        try:
            return ProblemSet(self.problems[index], self.name) if isinstance(index, slice) else self.problems[index]
        except TypeError:
            expected = "a number from 0, or a slice"
            fix = "problems.by_id('test_51') finds a problem by its id"
            raise ProblemError(
                "a problem set has no such place", got=shown(index), expected=expected, fix=fix
            ) from None

    def by_id(self, problem_id: str) -> Problem:
        """The problem with this id.

        Raises:
            ProblemError: No problem has it.
        """
        for problem in self.problems:
            if problem.id == problem_id:
                return problem
        raise ProblemError(f"no problem {problem_id!r} in {self.name}", expected="an id of this problem set")


def _number(value: Any, what: str) -> Fraction:
    number = as_number(value)
    if number is None:
        expected = "a number, or its text, of at most 300 digits"
        raise ProblemError(f"{what} is no number", got=shown(value), expected=expected)
    return number


def _steps(given: Any, who: str) -> tuple[Step, ...]:
    fix = "Step(Fraction(3), '*', Fraction(4), Fraction(12)), for example; Ref(0) is the value of the first step"
    several = items(given, f"the steps {who}", ProblemError, expected="a list of Steps", fix=fix)
    steps = tuple(need(step, Step, f"a step {who}", ProblemError, expected="a Step", fix=fix) for step in several)
    for index, step in enumerate(steps):
        for operand in (step.left, step.right):
            if isinstance(operand, Ref) and operand.step >= index:
                raise ProblemError(
                    f"step {index} {who} rests on a step that does not come before it",
                    got=f"Ref({operand.step})",
                    expected=f"Ref(0)..Ref({index - 1})" if index else "numbers alone in the first step",
                )
    return steps
