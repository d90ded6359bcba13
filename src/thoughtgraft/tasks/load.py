"""Problems from whatever stands for them: a name, a file, or rows in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thoughtgraft.arguments import answers_for_calls, closest, seed_of, shown, whole
from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.files import SUFFIXES, check_file, problem_of_row, read_problems, rows_of
from thoughtgraft.tasks.grading import NUMBER, Grader
from thoughtgraft.tasks.grading import grader as grader_named
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.tasks.task import tasks

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

Sampling = Literal["permutation", "cot-exploration"]

COT_EXPLORATION_SEED = 42

_GIVEN = "given"
"""Name and split of a user's own rows."""


@answers_for_calls(ProblemError)
def load_problems(
    spec: str | Path | Iterable[Problem | Mapping[str, Any]] | pd.DataFrame | Dataset,
    *,
    n: int | None = None,
    seed: int | None = None,
    sampling: Sampling = "permutation",
    grader: str | Grader = NUMBER,
) -> ProblemSet:
    """The problems that a name stands for, or a reproducible part of them.

    Args:
        spec: `arithmetic[:split]` (test unless said), `gsm8k:test|train|all`, a path to a local file, or rows of
            your own with `question` and `answer`: a list (of mappings or Problems), a DataFrame, or a
            `datasets.Dataset`. The table that a run keeps of its problems is read as it was, with its ids and steps.
        n: How many problems; None takes all.
        seed: Permutes the whole set before the first `n` are taken, so that sets drawn with one seed are nested;
            None keeps the set's own order.
        sampling: `permutation` as above, or `cot-exploration`: the draw of the CoT_Exploration experiments,
            `random.seed(42); sorted(random.sample(range(N), n))`, which needs `n` and has its own seed.
        grader: How answers in a file or in rows are read, or the name of the rule; a named set has its own.

    Returns:
        The problems, named by `spec` (`given` for rows, with the ids `given_0`, ...); their hash is of what was taken.

    Raises:
        ProblemError: The spec is unknown, the data cannot be read, or `n` does not fit.
    """
    n = None if n is None else whole(n, "the number of problems", ProblemError)
    seed = None if seed is None else seed_of(seed, ProblemError)
    rule = grader_named(grader)
    problems = find_problems(spec, rule)() if isinstance(spec, str | Path) else as_problems(spec, rule)
    size = len(problems)
    if n is not None and not 1 <= n <= size:
        raise ProblemError(
            f"{problems.name} cannot give the number of problems asked for",
            got=f"n={n}",
            expected=f"1..{size}",
            fix=f"ask for at most {size}" if n > size else "ask for at least one problem",
        )
    return ProblemSet(tuple(problems[i] for i in _order(size, n, seed, sampling)), name=problems.name)


def as_problems(given: Any, grader: Grader = NUMBER) -> ProblemSet:
    """A problem set from what stands for one in Python: itself, or rows with questions and answers.

    Raises:
        ProblemError: It is something else (the name of a set among them), empty, or a row cannot be used.
    """
    if isinstance(given, ProblemSet):
        return given
    if isinstance(given, str | Path):
        fix = f"load_problems({str(given)!r}) gives them"
        raise ProblemError("problems are wanted, not their name", got=shown(str(given)), fix=fix)
    rows = rows_of(given)
    if not rows:
        raise ProblemError("there are no problems", got=f"an empty {type(given).__name__}", expected="at least one row")
    found = (
        row if isinstance(row, Problem) else problem_of_row(row, f"row {i}", _GIVEN, i, grader)
        for i, row in enumerate(rows)
    )
    return ProblemSet(tuple(found), _GIVEN)


def find_problems(spec: str | Path, grader: Grader = NUMBER) -> Callable[[], ProblemSet]:
    """What loads the problems of a name; nothing is read yet. A named set has a grader of its own.

    Raises:
        ProblemError: There are none of that name, or no file there.
    """
    name, colon, split = str(spec).partition(":")
    if isinstance(spec, Path) or _is_a_path(spec):
        return partial(read_problems, check_file(spec), grader)
    if task := tasks().get(name):
        return partial(task.load, task.split(split if colon else None))
    known = tasks()
    close = closest(spec, [*known, *(f"{name}:{part}" for name, task in known.items() for part in task.splits)])
    if close in known and known[close].default is None:
        close = f"{close}:{known[close].splits[0]}"
    raise ProblemError("unknown problems", got=shown(spec), expected=specs(), fix=close and f"did you mean {close!r}?")


def specs() -> str:
    """What may stand for problems, in words."""
    return f"{', '.join(map(str, tasks().values()))}, or a .jsonl, .json or .parquet file"


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
