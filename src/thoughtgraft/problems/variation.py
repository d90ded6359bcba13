"""One problem with other numbers: a draw that keeps every step true and the text's own comparisons.

New numbers have the old ones' scale, roundness and format, and keep their order (money among money, percent among
percent), so that what the text compares in words stays true. Every value that changes is whole and positive.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from thoughtgraft.problems.annotations import steps_from
from thoughtgraft.problems.arithmetic import solution_text
from thoughtgraft.problems.numerals import Numeral
from thoughtgraft.problems.problem import APPLY, Operand, Problem, Ref, Step

_TRIES = 400
# How far a number may go from the old one, as parts of it; less far where the world knows what is usual.
_SPREAD, _NARROW = (Fraction(3, 5), Fraction(8, 5)), (Fraction(3, 4), Fraction(5, 4))
_USUAL = re.compile(r"\bold\b|\bages?\b|\baged\b|birthday|degrees|\bmph\b|miles (?:per|an) hour|\btall", re.IGNORECASE)
_GRAINS = [Fraction(base) * 10**power for power in range(9, -1, -1) for base in (5, 1)]
_SMALL_GRAINS = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 10), Fraction(1, 20)]


class Slot(NamedTuple):
    """An operand that a free numeral gives: its index, 0-based, and what divides its number (100 for 0.2 of 20%)."""

    numeral: int
    divisor: int


@dataclass(frozen=True)
class Variation:
    """A problem whose free numbers can be drawn anew.

    Attributes:
        problem: The original.
        numerals: Its question's numerals, in order.
        free: Which of them change, 0-based.
        spelled: The numbers that the question spells.
        graph: Its steps as (left, operator, right), where free numbers stand as slots.
    """

    problem: Problem
    numerals: tuple[Numeral, ...]
    free: tuple[int, ...]
    spelled: tuple[int, ...]
    graph: tuple[tuple[Operand | Slot, str, Operand | Slot], ...]

    def draw(self, rng: random.Random) -> Problem | None:
        """The problem with other numbers, under its own id; None where none of 400 tries will do.

        At first all free numbers change at once; after 100 tries each changes half of the time.
        """
        spread = _NARROW if _USUAL.search(self.problem.question) else _SPREAD
        for attempt in range(_TRIES):
            moved = [i for i in self.free if attempt < _TRIES // 4 or rng.random() < 0.5]
            numbers = [n.value for n in self.numerals]
            for i in moved:
                grain, low, high = _grid(self.numerals[i].value, self.numerals[i].decimals, spread)
                numbers[i] = rng.randint(low, high) * grain
            if moved and self._keeps_its_text(numbers) and (varied := self._with(numbers)) is not None:
                return varied
        return None

    def _keeps_its_text(self, numbers: Sequence[Fraction]) -> bool:
        question = self.problem.question
        for i in self.free:
            old, new = self.numerals[i], numbers[i]
            if not _alike(old, new):
                return False
            if re.search(r"\ban? [$£€]?$", question[: old.start]) and _vowel(old.write(new)) != _vowel(old.text):
                return False
        for kind in {self.numerals[i].kind for i in self.free}:
            pairs = [(n.value, new) for n, new in zip(self.numerals, numbers, strict=True) if n.kind == kind]
            if kind == "plain":
                pairs += [(Fraction(n), Fraction(n)) for n in self.spelled]
            pairs.sort()
            if any((a[0] < b[0]) != (a[1] < b[1]) for a, b in pairwise(pairs)):
                return False
        return True

    def _with(self, numbers: Sequence[Fraction]) -> Problem | None:
        steps = self._steps(numbers)
        if steps is None or steps[-1].value == self.problem.gold:
            return None
        question = self.problem.question
        for i in reversed(self.free):
            numeral = self.numerals[i]
            question = question[: numeral.start] + numeral.write(numbers[i]) + question[numeral.end :]
        gold, solution = steps[-1].value, solution_text(steps)
        # Read back as any solution is: the new numbers must not have made a reference uncertain.
        if steps_from(solution, question=question, gold=gold) != steps:
            return None
        return replace(self.problem, question=question, gold=gold, solution=solution, steps=steps)

    def _steps(self, numbers: Sequence[Fraction]) -> tuple[Step, ...] | None:
        """The steps recomputed; None where a value that changed is not whole and positive."""
        steps: list[Step] = []
        for (left, op, right), old in zip(self.graph, self.problem.steps, strict=True):
            operands: list[Operand] = [
                numbers[x.numeral] / x.divisor if isinstance(x, Slot) else x for x in (left, right)
            ]
            a, b = (steps[x.step].value if isinstance(x, Ref) else x for x in operands)
            value = APPLY[op](a, b)
            if value != old.value and (value.denominator != 1 or value <= 0):
                return None
            steps.append(Step(operands[0], op, operands[1], value))
        return tuple(steps)


@lru_cache(maxsize=4096)
def _grid(old: Fraction, decimals: int, spread: tuple[Fraction, Fraction]) -> tuple[Fraction, int, int]:
    """The grain of a number, as round as the old one, and how many grains another may have; at least 2 where whole."""
    grains = [g for g in _GRAINS if g * 4 <= old] if old.denominator == 1 else _SMALL_GRAINS
    smallest = Fraction(1) if old.denominator == 1 else Fraction(1, 10**decimals)
    grain = next((g for g in grains if (old / g).denominator == 1), smallest)
    low, high = ceil(spread[0] * old / grain), int(spread[1] * old / grain)
    # A few grains each way for the small.
    own = int(old / grain)
    return grain, max(min(low, own - 2), 2 if grain == 1 else 1), max(high, own + 3)


def _alike(numeral: Numeral, new: Fraction) -> bool:
    """Whether a number fits in a numeral's place: whole where that is, below what bounds it, of one size with it."""
    old = numeral.value
    return (
        (new.denominator == 1) == (old.denominator == 1)
        and (new < 1) == (old < 1)
        and all((new <= bound) == (old <= bound) for bound in (100, 999))
        and (numeral.most is None or new <= numeral.most)
    )


def _vowel(written: str) -> bool:
    """Whether a number is spoken with a vowel first, so that `an` stands before it."""
    head = written.partition(".")[0].split(",")[0]
    return head.startswith("8") or (head in ("11", "18") and len(head) == 2)
