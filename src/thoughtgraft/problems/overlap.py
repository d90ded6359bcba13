"""Problems that a held-out set holds too: the same by content hash, or near-duplicates by their words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from thoughtgraft.problems.problem import Problem

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
