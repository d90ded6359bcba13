"""A problem (question, gold answer, steps as a causal graph) and an ordered, hashed set of them."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import overload

from thoughtgraft.errors import ProblemError
from thoughtgraft.problems.answers import format_number

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


Operand = Fraction | Ref


@dataclass(frozen=True)
class Step:
    """One arithmetic step `left op right = value`; operands are numbers or earlier steps."""

    left: Operand
    op: str
    right: Operand
    value: Fraction

    def __post_init__(self) -> None:
        if self.op not in APPLY:
            raise ProblemError("a step has an unknown operator", got=repr(self.op), expected="one of + - * /")


@dataclass(frozen=True)
class Counterfactual:
    """The answer a problem would have if one step had another value; undefined with a reason."""

    value: Fraction | None
    undefined: str | None = None


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer.

    Args:
        id: Unique within its problem set, for example `test_51`.
        question: The text the model is asked.
        gold: The exact answer; None if the source gives none that parses.
        solution: The reference solution as text (GSM8K's format where known).
        steps: The causal graph, in order; empty where unknown.
        split: The split the problem belongs to.
        template: The frames it was generated from; None for collected problems.
    """

    id: str
    question: str
    gold: Fraction | None
    solution: str = ""
    steps: tuple[Step, ...] = ()
    split: str = "unknown"
    template: str | None = None

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise ProblemError(f"problem {self.id!r} has an empty question", fix="give every problem a question")
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

    @property
    def answer(self) -> str | None:
        """The gold answer as text; None where there is none."""
        return None if self.gold is None else format_number(self.gold)

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
        """Hash of what the model sees and is graded on: the question and the gold answer."""
        return hashlib.sha256(json.dumps([self.question, self.answer]).encode()).hexdigest()[:16]

    def answer_with(self, step: int, value: int | Fraction) -> Counterfactual:
        """The answer if step `step` had `value`, everything after it recomputed through the graph.

        Args:
            step: 0-based step index.
            value: The value put in the place of the step's own.

        Returns:
            The counterfactual answer, or the reason why it is undefined: a later value that is not a whole
            positive number, or an answer that does not depend on the step as far as the graph knows.

        Raises:
            ProblemError: The problem has no such step.
        """
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
                new = Fraction(value)
            else:
                left, right = (values[x.step] if isinstance(x, Ref) else x for x in (s.left, s.right))
                if s.op == "/" and right == 0:
                    return Counterfactual(None, f"step {index} divides by zero")
                new = APPLY[s.op](left, right)
            if index >= step and (new.denominator != 1 or new <= 0):
                return Counterfactual(None, f"step {index} becomes {format_number(new)}, not a whole positive number")
            values.append(new)
        return Counterfactual(values[-1])

    def _reaches_answer(self, step: int) -> bool:
        reached = {step}
        for index, s in enumerate(self.steps):
            if any(isinstance(x, Ref) and x.step in reached for x in (s.left, s.right)):
                reached.add(index)
        return len(self.steps) - 1 in reached


@dataclass(frozen=True)
class ProblemSet(Sequence[Problem]):
    """An ordered list of problems with unique ids and one content hash."""

    problems: tuple[Problem, ...]
    name: str = "problems"
    content_hash: str = field(init=False)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for problem in self.problems:
            if problem.id in seen:
                raise ProblemError(f"problem id {problem.id!r} occurs twice in {self.name}", fix="make ids unique")
            seen.add(problem.id)
        digest = hashlib.sha256("\n".join(p.content_hash for p in self.problems).encode()).hexdigest()[:16]
        object.__setattr__(self, "content_hash", digest)

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> ProblemSet: ...
    def __getitem__(self, index: int | slice) -> Problem | ProblemSet:
        if isinstance(index, slice):
            return ProblemSet(self.problems[index], self.name)
        return self.problems[index]

    def by_id(self, problem_id: str) -> Problem:
        """The problem with this id.

        Raises:
            ProblemError: No problem has it.
        """
        for problem in self.problems:
            if problem.id == problem_id:
                return problem
        raise ProblemError(f"no problem {problem_id!r} in {self.name}", expected="an id of this problem set")
