"""Who gives: strata of problems, and the donors of each host."""

from __future__ import annotations

import random
from collections.abc import Callable

from thoughtgraft.arguments import choice
from thoughtgraft.errors import PlanError
from thoughtgraft.tasks.problem import Problem, ProblemSet

STRATA: dict[str, Callable[[Problem], object]] = {
    "random": lambda problem: None,
    "operation": lambda problem: problem.operation,
    "steps": lambda problem: len(problem.steps),
    "answer": lambda problem: problem.gold,
}
"""What a donor has in common with its host: nothing in particular, the operation, how many steps, or the answer."""


def check_donors(n_donors: int, n_problems: int) -> None:
    """Raise a PlanError if so many problems cannot give every host so many donors, itself not among them."""
    if not 1 <= n_donors <= n_problems - 1:
        raise PlanError(
            f"{n_donors} donors for each of {n_problems} problems",
            expected=f"1..{n_problems - 1}" if n_problems > 1 else "at least 2 problems",
            fix="ask for fewer donors, or load more problems",
        )


def draw_donors(problems: ProblemSet, n_donors: int, seed: int, stratum: str = "random") -> dict[int, list[int]]:
    """Donor indices of each host.

    Args:
        problems: Hosts and donors, the same block.
        n_donors: Distinct donors of each host, D.
        seed: The run's seed.
        stratum: random, or the same operation, steps or answer as the host. In a stratum smaller than D
            a host gets what exists; it is never filled up.

    Raises:
        PlanError: An unknown stratum, D < 1, or D > n - 1.
    """
    key = STRATA[choice(stratum, "donor stratum", STRATA, PlanError)]
    check_donors(n_donors, len(problems))
    donors: dict[int, list[int]] = {}
    for host, problem in enumerate(problems):
        pool = [i for i, other in enumerate(problems) if i != host and key(other) == key(problem)]
        rng = random.Random(f"donors-{seed}-{stratum}-{problem.content_hash}")
        donors[host] = rng.sample(pool, min(n_donors, len(pool)))
    return donors
