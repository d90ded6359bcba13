"""Problems by name: which set, which of them, in which order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thoughtgraft.arguments import answers_for_calls, choice, closest, items, seed_of, shown, whole
from thoughtgraft.errors import ProblemError
from thoughtgraft.problems.files import SUFFIXES, check_file, read_problems
from thoughtgraft.problems.gsm8k import PARTS, check_split, gsm8k
from thoughtgraft.problems.problem import Problem, ProblemSet
from thoughtgraft.problems.rows import problem_from_row

if TYPE_CHECKING:
    import pandas as pd

Sampling = Literal["permutation", "cot-exploration"]

SPECS = "arithmetic[:split], gsm8k:test, gsm8k:train, gsm8k:all, or a .jsonl, .json or .parquet file"

COT_EXPLORATION_SEED = 42

_GIVEN = "given"
"""Name and split of a user's own rows."""


@answers_for_calls(ProblemError)
def load_problems(
    spec: str | Path | Iterable[Problem | Mapping[str, Any]] | pd.DataFrame,
    *,
    n: int | None = None,
    seed: int | None = None,
    sampling: Sampling = "permutation",
) -> ProblemSet:
    """The problems that a name stands for, or a reproducible part of them.

    Args:
        spec: `arithmetic[:split]` (test unless said), `gsm8k:test|train|all`, a path to a local file, or rows of
            your own: a DataFrame or a list (of Problems, or of mappings) with `question` and `answer`.
        n: How many problems; None takes all.
        seed: Permutes the whole set before the first `n` are taken, so that sets drawn with one seed are nested;
            None keeps the set's own order.
        sampling: `permutation` as above, or `cot-exploration`: the draw of the CoT_Exploration experiments,
            `random.seed(42); sorted(random.sample(range(N), n))`, which needs `n` and has its own seed.

    Returns:
        The problems, named by `spec` (`given` for rows, with the ids `given_0`, ...); their hash is of what was taken.

    Raises:
        ProblemError: The spec is unknown, the data cannot be read, or `n` does not fit.
    """
    n = None if n is None else whole(n, "the number of problems", ProblemError)
    seed = None if seed is None else seed_of(seed, ProblemError)
    problems = as_problems(spec) if not isinstance(spec, str | Path) else find_problems(spec)()
    size = len(problems)
    if n is not None and not 1 <= n <= size:
        raise ProblemError(
            f"{problems.name} cannot give the number of problems asked for",
            got=f"n={n}",
            expected=f"1..{size}",
            fix=f"ask for at most {size}" if n > size else "ask for at least one problem",
        )
    return ProblemSet(tuple(problems[i] for i in _order(size, n, seed, sampling)), name=problems.name)


def as_problems(given: Any) -> ProblemSet:
    """A problem set from what stands for one in Python: itself, or a list or DataFrame with questions and answers.

    Raises:
        ProblemError: It is something else (the name of a set among them), empty, or a row cannot be used.
    """
    if isinstance(given, ProblemSet):
        return given
    if isinstance(given, str | Path):
        fix = f"load_problems({str(given)!r}) gives them"
        raise ProblemError("problems are wanted, not their name", got=shown(str(given)), fix=fix)
    table = hasattr(given, "to_dict") and hasattr(given, "columns")
    expected = "a ProblemSet, or a list of rows with 'question' and 'answer'"
    fix = "put a single problem into a list; of data in splits, take one"
    rows = items(given.to_dict("records") if table else given, "problems", ProblemError, expected=expected, fix=fix)
    if not rows:
        raise ProblemError("there are no problems", got=f"an empty {type(given).__name__}", expected="at least one row")
    found = (
        row if isinstance(row, Problem) else problem_from_row(row, where=f"row {i}", split=_GIVEN, index=i)
        for i, row in enumerate(rows)
    )
    return ProblemSet(tuple(found), _GIVEN)


def find_problems(spec: str | Path) -> Callable[[], ProblemSet]:
    """What loads the problems of a name; nothing is read yet.

    Raises:
        ProblemError: There are none of that name, or no file there.
    """
    name, colon, split = str(spec).partition(":")
    if name == "arithmetic" and bool(colon) == bool(split):
        from thoughtgraft.problems.arithmetic import SPLIT_SIZES, arithmetic

        return partial(arithmetic, choice(split or "test", "split of 'arithmetic'", SPLIT_SIZES, ProblemError))
    if name == "gsm8k" and split:
        return partial(gsm8k, check_split(split))
    if isinstance(spec, Path) or _is_a_path(spec):
        return partial(read_problems, check_file(spec))
    close = closest(spec, ["arithmetic", *(f"gsm8k:{part}" for part in PARTS), "gsm8k"])
    meant = f"{close}:test" if close == "gsm8k" else close
    raise ProblemError("unknown problems", got=shown(spec), expected=SPECS, fix=meant and f"did you mean {meant!r}?")


def _is_a_path(spec: str) -> bool:
    """Whether a name is meant as that of a file, there or not."""
    return Path(spec).suffix.lower() in SUFFIXES or spec.startswith("~") or "/" in spec or "\\" in spec


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
