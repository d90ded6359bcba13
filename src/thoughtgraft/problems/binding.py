"""Which of a question's numbers are free to change, because text and steps agree about them beyond doubt.

A number is free only if it stands in the question once, in digits that may change (`numerals.py`), no word of the
question may mean it too (`numberwords.py`), and every operand with its value is it. All other operands keep their
value, and must come from a numeral or a word: one from nowhere was computed outside the steps, and would not follow.
A small number that two operands could be is not free. What the text may say besides the steps is kept by leaving
alone whatever could say it: the terms and total of a sum or product that the numbers make, a count of what is listed
or added.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations

from thoughtgraft.problems.annotations import ANNOTATION
from thoughtgraft.problems.numberwords import implied_values, spelled_numbers
from thoughtgraft.problems.numerals import Numeral, numerals
from thoughtgraft.problems.problem import Operand, Problem, Ref, Step
from thoughtgraft.problems.variation import Slot, Variation

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
    if not steps or steps[-1].value != problem.gold:
        raise Refused(NO_STEPS)
    if problem.gold.denominator != 1 or problem.gold <= 0:
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
