"""One row of question and answer into a Problem, or an error that names the place and the field."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from thoughtgraft.arguments import shown
from thoughtgraft.errors import ProblemError
from thoughtgraft.problems.annotations import steps_from
from thoughtgraft.problems.answers import as_number
from thoughtgraft.problems.problem import Problem

ANSWER_MARK = "####"


def problem_from_row(row: object, *, where: str, split: str, index: int) -> Problem:
    """A problem from a mapping with `question` and `answer`.

    Args:
        row: The row. `answer` is a number, the text of a number, or a solution that ends in `#### N`.
        where: The place in words, for errors: `problems.jsonl, line 3`.
        split: The split the problem belongs to.
        index: The row's place in its split, 0-based.

    Returns:
        The problem, with the id `{split}_{index}` and the steps that its annotations give.

    Raises:
        ProblemError: The row is not a mapping, or a field is missing or unusable.
    """
    if not isinstance(row, Mapping):
        raise ProblemError(
            f"{where}: not an object with fields", got=shown(row), expected='{"question": ..., "answer": ...}'
        )
    question = _field(row, "question", where)
    if not isinstance(question, str) or not question.strip():
        raise ProblemError(
            f"{where}: the field 'question' holds no text", got=shown(question), expected="the question as text"
        )
    answer = _field(row, "answer", where)
    gold = _gold(answer, where)
    solution = answer if isinstance(answer, str) and ANSWER_MARK in answer else ""
    return Problem(
        id=f"{split}_{index}",
        question=question,
        gold=gold,
        solution=solution,
        steps=steps_from(solution, question=question, gold=gold),
        split=split,
    )


def _field(row: Mapping[object, object], name: str, where: str) -> object:
    if name not in row:
        raise ProblemError(
            f"{where}: the field '{name}' is missing",
            got="the fields " + (", ".join(repr(key) for key in row) or "(none)"),
            expected="'question' and 'answer'",
            fix=f"add '{name}' to the row, or rename the field that holds it",
        )
    return row[name]


def _gold(answer: object, where: str) -> Fraction:
    number = as_number(answer.rpartition(ANSWER_MARK)[2] if isinstance(answer, str) else answer)
    if number is None:
        raise ProblemError(
            f"{where}: the field 'answer' holds no number",
            got=shown(answer),
            expected=f"a number, or a solution that ends in '{ANSWER_MARK} 42'",
        )
    return number
