"""Which problems a study takes: a block of the seeded permutation of a split, without those that were used before."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from thoughtgraft.errors import PlanError
from thoughtgraft.problems import ProblemSet, load_problems


@dataclass(frozen=True)
class Sample:
    """The block, and how many problems of the split are left for a later run."""

    problems: ProblemSet
    left: int


def draw_sample(
    spec: str, *, first: int, n: int, seed: int, used: Collection[str] = (), at_most: bool = False
) -> Sample:
    """The first `n` problems from position `first` of the permutation that are not among `used`.

    Args:
        spec: The split, as for `load_problems`.
        first: 0-based position in the permutation.
        n: How many, before any other filter.
        seed: Seeds the permutation.
        used: Ids of problems that must not be taken, such as a pilot's.
        at_most: Take all that are left where they are fewer than `n`.

    Raises:
        PlanError: The split does not hold so many.
        ProblemError: The split is unknown or cannot be read.
    """
    order = load_problems(spec, seed=seed)
    free = [problem for problem in order[first:] if problem.id not in used]
    if at_most and free:
        n = min(n, len(free))
    if len(free) < n:
        raise PlanError(
            f"{spec} does not hold so many problems",
            got=f"{n} wanted from position {first}, {len(used)} of {len(order)} used before",
            expected=f"at most {len(free)}",
            fix="use a smaller --hosts, or a larger problem set",
        )
    return Sample(ProblemSet(tuple(free[:n]), spec), len(order) - n - len({p.id for p in order} & set(used)))
