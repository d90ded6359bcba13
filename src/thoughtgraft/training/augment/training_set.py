"""A training set grown from worked problems, without overlap with what is tested."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.training.augment.binding import NONE_FOUND, REASONS, Refused, bind

if TYPE_CHECKING:
    pass

# Draws in vain, one after the other, before a problem is taken to have no more variations.
_IN_VAIN = 3


@dataclass(frozen=True)
class Coverage:
    """How many problems could be varied, and why the others could not.

    Attributes:
        problems: How many there were.
        varied: How many have at least one variation.
        made: Variations altogether.
        asked: Variations wanted of each.
        refused: How many problems each reason kept out; every reason is named, in the order in which it is checked.
    """

    problems: int
    varied: int
    made: int
    asked: int
    refused: Mapping[str, int]

    @property
    def share(self) -> float:
        """The part of the problems that could be varied, 0..1."""
        return self.varied / self.problems if self.problems else 0.0

    def rows(self) -> list[tuple[str, int]]:
        """What became of the problems, with counts that add up to all of them."""
        return [("varied", self.varied), *self.refused.items()]

    def __str__(self) -> str:
        head = f"{self.varied} of {self.problems} problems varied ({self.share:.1%}), {self.made} variations"
        return "\n".join([head, *(f"  {n:6d} not: {reason}" for reason, n in self.refused.items() if n)])


@dataclass(frozen=True)
class TrainingSet:
    """Problems to learn from, and what was left out of them.

    Attributes:
        problems: The usable originals, then their variations.
        originals: How many of them are originals.
        unusable: How many problems have no steps that compute a whole answer.
        overlaps: Those left out because a held-out set has them, or nearly; their variations were never made.
        coverage: What of the originals could be varied; None where no variations were asked for.
    """

    problems: ProblemSet
    originals: int
    unusable: int
    overlaps: tuple[Overlap, ...]
    coverage: Coverage | None

    def __str__(self) -> str:
        same = sum(overlap.same for overlap in self.overlaps)
        lines = [
            f"{len(self.problems)} problems: {self.originals} of their source and "
            f"{len(self.problems) - self.originals} variations",
            f"left out: {self.unusable} without steps that compute a whole answer, {same} that are in the held-out "
            f"set, {len(self.overlaps) - same} near-duplicates of it",
        ]
        return "\n".join([*lines, *([str(self.coverage)] if self.coverage else [])])


def usable(problems: ProblemSet) -> ProblemSet:
    """The problems that can be learnt from: a whole answer, and steps whose last value it is.

    Raises:
        ProblemError: There is none.
    """
    kept = tuple(p for p in problems if p.steps and p.steps[-1].value.denominator == 1 and p.steps[-1].result == p.gold)
    if not kept:
        raise ProblemError(
            f"{problems.name} holds no problem to learn from",
            expected="whole answers, and solutions with <<expression=value>> annotations that lead to them",
        )
    return ProblemSet(kept, problems.name)


def augment(problem: Problem, seed: int = 0) -> Problem | None:
    """One problem with other numbers, under the id `{id}~1`; None where it cannot be varied (see `binding.py`).

    The question has new numerals in the old places and format; steps, answer and solution are recomputed from them.
    The solution is equations alone: the original's sentences would still tell the old numbers.

    Args:
        problem: The original, with its steps.
        seed: Seed of the numbers; with the problem's id it decides them.
    """
    try:
        found = _variations(problem, 1, seed)
    except Refused:
        return None
    return found[0]


def augmented(problems: Iterable[Problem], *, copies: int, seed: int = 0) -> tuple[ProblemSet, Coverage]:
    """Variations of problems, each with numbers of its own, without the originals.

    Args:
        problems: The originals.
        copies: Variations wanted of each; a problem whose numbers leave fewer gives fewer.
        seed: Seed of the numbers. A problem's variations depend on its id and text alone, and the first of many are
            those of few.

    Returns:
        The variations, all first ones before all second ones, with ids `{id}~1` .. `{id}~{copies}`; and what could
        be varied.

    Raises:
        ProblemError: `copies` is less than one.
    """
    if copies < 1:
        raise ProblemError("variations of a problem are counted from one", got=f"copies={copies}", expected="1 or more")
    originals = list(problems)
    refused = Counter[str]()
    made: list[list[Problem]] = []
    for problem in originals:
        try:
            made.append(_variations(problem, copies, seed))
        except Refused as reason:
            refused[str(reason)] += 1
    rounds = [[found[k] for found in made if k < len(found)] for k in range(copies)]
    variations = tuple(p for one in rounds for p in one)
    counts = {reason: refused[reason] for reason in REASONS}
    return ProblemSet(variations, "augmented"), Coverage(len(originals), len(made), len(variations), copies, counts)


def _variations(problem: Problem, copies: int, seed: int) -> list[Problem]:
    """One to `copies` variations, no two the same.

    Raises:
        Refused: There is none.
    """
    source = bind(problem)
    rng = random.Random(f"thoughtgraft-augment-{seed}-{problem.id}")
    found: dict[str, Problem] = {}
    in_vain = 0
    while len(found) < copies and in_vain < _IN_VAIN:
        drawn = source.draw(rng)
        if drawn is None:
            break
        in_vain = in_vain + 1 if drawn.question in found else 0
        found.setdefault(drawn.question, drawn)
    if not found:
        raise Refused(NONE_FOUND)
    return [replace(p, id=f"{problem.id}~{k}") for k, p in enumerate(found.values(), start=1)]


def training_set(problems: ProblemSet, *, held_out: Iterable[Problem], copies: int = 0, seed: int = 0) -> TrainingSet:
    """Problems to learn from: the usable ones, without what is held out, and variations of them.

    What it makes of GSM8K's 7,473 training problems, held against the test split: 596 have no usable steps, and 16 are
    near-duplicates of a test problem (none is a copy). 6,861 are left. Of these 2,318 (34%) can be varied; four
    variations wanted of each make 8,435.

    Args:
        problems: The source, `gsm8k:train` for example.
        held_out: What the model will be measured on, `gsm8k:test` for example.
        copies: Variations wanted of each; 0 makes none.
        seed: Seed of the variations.

    Raises:
        ProblemError: Nothing is left, or `copies` is negative.
    """
    kept = usable(problems)
    finder = OverlapFinder(held_out)
    overlaps = finder.find(kept)
    out = {overlap.id for overlap in overlaps}
    originals = tuple(p for p in kept if p.id not in out)
    if not originals:
        raise ProblemError(f"every problem of {problems.name} is in the held-out set, or nearly so", fix="use others")
    variations: tuple[Problem, ...] = ()
    coverage = None
    if copies:
        made, coverage = augmented(originals, copies=copies, seed=seed)
        leaked = {overlap.id for overlap in finder.find(made)}
        variations = tuple(p for p in made if p.id not in leaked)
    return TrainingSet(
        ProblemSet((*originals, *variations), problems.name),
        len(originals),
        len(problems) - len(kept),
        tuple(overlaps),
        coverage,
    )


JACCARD, CONTAINED = 0.15, 0.4
"""Where two questions are near-duplicates: shared runs of five words over all of either, or over the held-out one's.

Chosen by eye on GSM8K's 7,473 training problems against its 1,319 test problems: 19 are above it, of which about
twelve tell the same story (a train or a plane, 48 backpacks or 48 sneakers for $576) and the others ask the same thing
in the same words; below it pairs share a phrase (`How many liters of water were left`)."""

_RUN = 5
_TOKEN = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?|[^\W\d_]+(?:['\u2019][^\W\d_]+)?")

_Run = tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """A problem that is in a held-out set, or nearly so.

    Attributes:
        id: The problem.
        held_out: The held-out problem that it is closest to.
        same: Whether question and answer are the same by content hash; what the words share is then 1.
        jaccard: Shared runs of five words over all of either question, numerals masked; 0..1.
        contained: Shared runs over the held-out question's; 0..1.
    """

    id: str
    held_out: str
    same: bool
    jaccard: float
    contained: float


class OverlapFinder:
    """A held-out set, indexed by its runs of five words with numerals masked and case ignored.

    Args:
        held_out: The problems that training must not hold.
    """

    def __init__(self, held_out: Iterable[Problem]) -> None:
        self.problems = list(held_out)
        self._by_hash = {p.content_hash: p for p in self.problems}
        self._where: dict[_Run, list[int]] = defaultdict(list)
        self._sizes: list[int] = []
        for index, problem in enumerate(self.problems):
            runs = _runs(problem.question)
            self._sizes.append(len(runs))
            for run in runs:
                self._where[run].append(index)

    def find(self, problems: Iterable[Problem]) -> list[Overlap]:
        """The problems that are in the held-out set, or nearly so, in order, each with its closest."""
        # Variations of one problem differ in numerals alone, so their words are looked up once.
        seen: dict[frozenset[_Run], tuple[int, float, float] | None] = {}
        found = []
        for problem in problems:
            if (same := self._by_hash.get(problem.content_hash)) is not None:
                found.append(Overlap(problem.id, same.id, True, 1.0, 1.0))
                continue
            runs = _runs(problem.question)
            if runs not in seen:
                seen[runs] = self._closest(runs)
            if (closest := seen[runs]) is not None:
                index, jaccard, contained = closest
                found.append(Overlap(problem.id, self.problems[index].id, False, jaccard, contained))
        return found

    def _closest(self, runs: frozenset[_Run]) -> tuple[int, float, float] | None:
        shared: Counter[int] = Counter()
        for run in runs:
            shared.update(self._where.get(run, ()))
        near = []
        for index, n in shared.items():
            jaccard, contained = n / (len(runs) + self._sizes[index] - n), n / self._sizes[index]
            if jaccard >= JACCARD or contained >= CONTAINED:
                near.append((index, jaccard, contained))
        return max(near, key=lambda item: (max(item[1] / JACCARD, item[2] / CONTAINED), -item[0]), default=None)


def _runs(question: str) -> frozenset[_Run]:
    words = ["0" if word[0].isdigit() else word for word in _TOKEN.findall(question.lower())]
    return frozenset(tuple(words[i : i + _RUN]) for i in range(max(1, len(words) - _RUN + 1)))
