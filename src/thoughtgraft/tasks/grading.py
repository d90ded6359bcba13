"""Graders: how an answer is read from a text, compared with another, and found again in the text to be scored.

Outside this room an answer is its canonical text. A new kind of answer is one subclass of `Grader`: its name then
works in `Problem(grader=...)` and `load_problems(grader=...)`, in records and in run.json.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from thoughtgraft.arguments import answers_for_calls, choice
from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.numbers import as_number, extract_answer, extract_official, format_number, number_start

GRADERS: dict[str, Grader] = {}
"""Every grader by its name, in the order of definition; filled by subclassing."""


@dataclass(frozen=True)
class Grader(ABC):
    """The rule by which answers are read, compared and scored. It holds nothing, so that two of a kind are equal.

    Attributes:
        name: What records and run.json call it.
        wanted: What a gold answer has to be, in words, for errors.
        noun: What an answer is called there: "number".
    """

    name: ClassVar[str]
    wanted: ClassVar[str]
    noun: ClassVar[str]

    def __init_subclass__(cls) -> None:
        GRADERS[cls.name] = cls()

    @abstractmethod
    def canonical(self, answer: Any) -> str | None:
        """The one text for an answer that somebody wrote down: a gold answer of any type, a recorded one, a token.

        Args:
            answer: A value, or a text that holds the answer and nothing else.

        Returns:
            The text that all equal answers share; None where the value is no answer of this kind. The canonical text
            of a canonical text is itself.
        """

    @abstractmethod
    def parse(self, text: str) -> str | None:
        """The answer that a model's text gives.

        Args:
            text: What the model generated, with all of its words.

        Returns:
            The answer as canonical text; None where the text gives none.
        """

    @abstractmethod
    def scored(self, text: str) -> int | None:
        """Where the answer that `parse` reads begins in the text: from there on its tokens are scored.

        Args:
            text: What the model generated.

        Returns:
            The 0-based character; None where the text gives no answer.
        """

    def same(self, a: str | None, b: str | None) -> bool:
        """Whether two answers are the same one; no answer is the same as nothing, another missing one included."""
        return a is not None and b is not None and a == b


class Number(Grader):
    """The last number of the text, compared exactly: `4,096` is 4096, `0.50` is 1/2."""

    name = "number"
    wanted = "a number, or its text, of at most 300 digits"
    noun = "number"

    def canonical(self, answer: Any) -> str | None:
        """See `Grader`; numbers of any library, and texts such as `$1,430`, `3/4` and `50%` (= 50)."""
        number = as_number(answer)
        return None if number is None else format_number(number)

    def parse(self, text: str) -> str | None:
        """See `Grader` and `numbers.extract_answer`."""
        number = extract_answer(text)
        return None if number is None else format_number(number)

    def scored(self, text: str) -> int | None:
        """See `Grader`; a minus sign belongs to the number."""
        return number_start(text)


class Official(Number):
    """The last number as CODI's official code reads it, compared as floats: the grader of the published accuracies."""

    name = "official"

    def parse(self, text: str) -> str | None:
        """See `Grader` and `numbers.extract_official`."""
        return self.canonical(extract_official(text))

    def same(self, a: str | None, b: str | None) -> bool:
        """Whether both are the same number as floats."""
        return a is not None and b is not None and _as_float(a) == _as_float(b)


def _as_float(answer: str) -> float:
    return float(Fraction(answer)) if "/" in answer else float(answer)


NUMBER = GRADERS[Number.name]
OFFICIAL = GRADERS[Official.name]


@answers_for_calls(ProblemError)
def grader(name: str | Grader) -> Grader:
    """The grader of a name; a grader is itself.

    Raises:
        ProblemError: There is none of that name.
    """
    return name if isinstance(name, Grader) else GRADERS[choice(name, "grader", GRADERS, ProblemError)]
