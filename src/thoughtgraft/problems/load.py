"""Problems by name: which set, which of them, in which order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

from thoughtgraft.errors import ProblemError
from thoughtgraft.problems.files import SUFFIXES, read_problems
from thoughtgraft.problems.gsm8k import gsm8k
from thoughtgraft.problems.problem import ProblemSet

Sampling = Literal["permutation", "cot-exploration"]

SPECS = "arithmetic[:split], gsm8k:test, gsm8k:train, gsm8k:all, or a .jsonl, .json or .parquet file"

COT_EXPLORATION_SEED = 42


def load_problems(
    spec: str, *, n: int | None = None, seed: int | None = None, sampling: Sampling = "permutation"
) -> ProblemSet:
    """The problems that a name stands for, or a reproducible part of them.

    Args:
        spec: `arithmetic[:split]` (test unless said), `gsm8k:test|train|all`, or a path to a local file.
        n: How many problems; None takes all.
        seed: Permutes the whole set before the first `n` are taken, so that sets drawn with one seed are nested;
            None keeps the set's own order.
        sampling: `permutation` as above, or `cot-exploration`: the draw of the CoT_Exploration experiments,
            `random.seed(42); sorted(random.sample(range(N), n))`, which needs `n` and has its own seed.

    Returns:
        The problems, named by `spec`; their hash is of what was taken.

    Raises:
        ProblemError: The spec is unknown, the data cannot be read, or `n` does not fit.
    """
    problems = _whole(spec)
    size = len(problems)
    if n is not None and not 1 <= n <= size:
        raise ProblemError(
            f"{spec} cannot give the number of problems asked for",
            got=f"n={n}",
            expected=f"1..{size}",
            fix=f"ask for at most {size}" if n > size else "ask for at least one problem",
        )
    return ProblemSet(tuple(problems[i] for i in _order(size, n, seed, sampling)), name=spec)


def _whole(spec: str) -> ProblemSet:
    if Path(spec).suffix in SUFFIXES:
        return read_problems(spec)
    name, colon, split = spec.partition(":")
    if name == "arithmetic" and bool(colon) == bool(split):
        from thoughtgraft.problems.arithmetic import arithmetic

        problems = arithmetic(split or "test")
    elif name == "gsm8k" and split:
        problems = gsm8k(split)
    else:
        raise ProblemError("unknown problems", got=repr(spec), expected=SPECS)
    if not len(problems):
        raise ProblemError(f"{spec} holds no problems")
    return problems


def _order(size: int, n: int | None, seed: int | None, sampling: Sampling) -> list[int]:
    """The 0-based rows to take, in order."""
    if sampling == "permutation":
        rows = list(range(size))
        if seed is not None:
            random.Random(seed).shuffle(rows)
        return rows[:n]
    if sampling != "cot-exploration":
        raise ProblemError("unknown sampling", got=repr(sampling), expected="'permutation' or 'cot-exploration'")
    if n is None:
        raise ProblemError("cot-exploration sampling needs a number of problems", fix="give n")
    if seed is not None and seed != COT_EXPLORATION_SEED:
        raise ProblemError(
            "cot-exploration sampling has its own seed",
            got=f"seed={seed}",
            expected=f"none, or {COT_EXPLORATION_SEED}",
            fix="leave the seed out, or use sampling='permutation'",
        )
    return sorted(random.Random(COT_EXPLORATION_SEED).sample(range(size), n))
