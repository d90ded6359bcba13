"""Questions varied with their arithmetic kept: which numbers of the text are which of the steps."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, pairwise
from math import ceil
from typing import NamedTuple

from thoughtgraft.tasks.problem import APPLY, Operand, Problem, Ref, Step
from thoughtgraft.tasks.steps import ANNOTATION, solution_text, steps_from
from thoughtgraft.training.augment.numerals import Numeral, implied_values, numerals, spelled_numbers

NO_STEPS = "its steps are unknown"
NOT_WHOLE = "its answer is not a whole positive number"
DANGLING = "a step does not reach the answer"
TWO_SOURCES = "a number could come from the text or from a step"
NO_SOURCE = "an operand is not in the question"
OUTSIDE = "its solution computes outside its steps"
UNUSED = "a number of the question is in no step"
NOTHING_FREE = "no number is free to change"
NONE_FOUND = "no other numbers keep every value whole and positive"
REASONS = (NO_STEPS, NOT_WHOLE, DANGLING, TWO_SOURCES, NO_SOURCE, OUTSIDE, UNUSED, NOTHING_FREE, NONE_FOUND)
"""Why a problem is not varied."""

# Below this a number may be a count that nobody wrote, so two operands of its value may have two sources.
_COUNTABLE = 10
_LIST = re.compile(r"((?:[^,.;:?!]{1,40},\s+)+)(?:[^,.;:?!]{1,40}\s)?(?:and|or)\b")
_TWO_NAMES = re.compile(r"\b[A-Z]\w+ (?:and|or) [A-Z]\w+|\beach other\b|\bbetween\b")
# Sums that the world knows: days of a week, hours of a day, months of a year.
_WHOLES = {"plain": {7, 12, 24, 60}, "percent": {100}, "money": set[int](), "cents": {100}}


class Refused(Exception):
    """A problem cannot be varied; the text is one of `REASONS`."""


def bind(problem: Problem) -> Variation:
    """What of a problem may change.

    Raises:
        Refused: Nothing may, with the reason.
    """
    steps, question = problem.steps, problem.question
    if not steps or steps[-1].result != problem.gold:
        raise Refused(NO_STEPS)
    if (last := steps[-1].value).denominator != 1 or last <= 0:
        raise Refused(NOT_WHOLE)
    if len(_reaching(steps, len(steps) - 1)) != len(steps):
        raise Refused(DANGLING)
    found, spelled = numerals(question), spelled_numbers(question)
    implied = implied_values(question).union(*(n.implied for n in found))
    fixed_only = implied | {Fraction(1), Fraction(2)}
    leaves = [x for step in steps for x in (step.left, step.right) if not isinstance(x, Ref)]
    values = {step.value for step in steps}
    references = {steps[x.step].value for step in steps for x in (step.left, step.right) if isinstance(x, Ref)}
    readings = {reading for n in found for reading in n.readings}
    if values & {*leaves, *readings} or references & fixed_only:
        raise Refused(TWO_SOURCES)
    sources = {leaf: [i for i, n in enumerate(found) if leaf in n.readings] for leaf in leaves}
    if any(not found_in and leaf not in implied for leaf, found_in in sources.items()):
        raise Refused(NO_SOURCE)
    derived = {leaf for leaf, found_in in sources.items() if not found_in} - {Fraction(100)}
    used = {i for found_in in sources.values() for i in found_in} | {
        i for i, n in enumerate(found) if n.implied & derived
    }
    given = {n.value for n in found} | implied
    if any(i not in used and n.value != 1 for i, n in enumerate(found)) or any(
        n > 3 and n not in leaves for n in spelled
    ):
        raise Refused(UNUSED)
    outside = {n.value for n in numerals(ANNOTATION.sub(" ", problem.solution))}
    if outside - values - set(leaves) - given:
        raise Refused(OUTSIDE)
    free = set(_free(problem, found, sources, implied))
    if not free:
        raise Refused(NOTHING_FREE)

    def slotted(operand: Operand) -> Operand | Slot:
        if isinstance(operand, Ref) or not (at := [i for i in sources[operand] if i in free]):
            return operand
        return Slot(at[0], 1 if operand == found[at[0]].value else 100)

    graph = tuple((slotted(step.left), step.op, slotted(step.right)) for step in steps)
    return Variation(problem, tuple(found), tuple(sorted(free)), tuple(spelled), graph)


def _free(
    problem: Problem, found: Sequence[Numeral], sources: dict[Fraction, list[int]], implied: frozenset[Fraction]
) -> Iterator[int]:
    """Which numerals may change, 0-based."""
    steps = problem.steps
    uses = Counter(x for step in steps for x in (step.left, step.right) if not isinstance(x, Ref))
    unsure = implied | _counts(problem) | _bound(found, spelled_numbers(problem.question))
    for i, numeral in enumerate(found):
        mine = [leaf for leaf, at in sources.items() if i in at]
        twice = sum(uses[leaf] for leaf in mine) > 1 and numeral.value < _COUNTABLE
        shared = any(len(sources[leaf]) > 1 for leaf in mine) or any(
            set(numeral.readings) & set(other.readings) for j, other in enumerate(found) if j != i
        )
        if not numeral.movable or not mine or twice or shared or unsure.intersection([*numeral.readings, *mine]):
            continue
        reached = {k for leaf in mine for k in _reached_by(steps, leaf)}
        if all(steps[k].value.denominator == 1 and steps[k].value > 0 for k in reached):
            yield i


def _counts(problem: Problem) -> frozenset[Fraction]:
    """How many things the text lists or the steps add up: a number with such a value may count them."""
    counts = {size for match in _LIST.finditer(problem.question) for size in _sizes(match[1])}
    if _TWO_NAMES.search(problem.question):
        counts.add(2)
    terms: list[int] = []
    inner: set[int] = set()
    for step in problem.steps:
        added = [x.step for x in (step.left, step.right) if isinstance(x, Ref) and problem.steps[x.step].op == "+"]
        terms.append(sum(terms[k] for k in added) + 2 - len(added) if step.op == "+" else 0)
        inner |= set(added) if step.op == "+" else set()
    return frozenset(Fraction(n) for n in {*counts, *(n for k, n in enumerate(terms) if n and k not in inner)})


def _sizes(listed: str) -> tuple[int, int]:
    return listed.count(",") + 1, listed.count(",") + 2


def _bound(found: Sequence[Numeral], spelled: Sequence[int]) -> frozenset[Fraction]:
    """Values that the text may tie to each other: terms and total of a sum or a product that it states."""
    bound: set[Fraction] = set()
    for kind in ("plain", "money", "percent", "cents"):
        given = {n.value for n in found if n.kind == kind and n.value > 1}
        stated = given | {Fraction(n) for n in spelled if kind == "plain"}
        for size in (2, 3):
            for terms in combinations(sorted(stated), size):
                for total in (sum(terms, Fraction(0)), *([terms[0] * terms[1]] if size == 2 else [])):
                    if total in stated or total in _WHOLES[kind]:
                        bound |= {*terms, total}
    return frozenset(bound)


def _reaching(steps: Sequence[Step], last: int) -> set[int]:
    """The steps that a step depends on, itself included."""
    reached = {last}
    for k in range(last, -1, -1):
        if k in reached:
            reached |= {x.step for x in (steps[k].left, steps[k].right) if isinstance(x, Ref)}
    return reached


def _reached_by(steps: Sequence[Step], leaf: Fraction) -> set[int]:
    """The steps that depend on an operand of this value."""
    reached: set[int] = set()
    for k, step in enumerate(steps):
        if any(x.step in reached if isinstance(x, Ref) else x == leaf for x in (step.left, step.right)):
            reached.add(k)
    return reached


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
        if steps is None or steps[-1].result == self.problem.gold:
            return None
        question = self.problem.question
        for i in reversed(self.free):
            numeral = self.numerals[i]
            question = question[: numeral.start] + numeral.write(numbers[i]) + question[numeral.end :]
        gold, solution = steps[-1].result, solution_text(steps)
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
