"""GSM8K from the Hugging Face hub."""

from __future__ import annotations

from thoughtgraft.arguments import closest
from thoughtgraft.errors import ProblemError
from thoughtgraft.problems.problem import Problem, ProblemSet
from thoughtgraft.problems.rows import problem_from_row

REPOSITORY, CONFIG = "openai/gsm8k", "main"

PARTS = {"test": ("test",), "train": ("train",), "all": ("test", "train"), "validation": ("train",)}
"""What each name of a split holds, in order."""
VALIDATION = 300
"""The last problems of train, which `validation` holds: for learning curves, and never trained on beside them."""


def gsm8k(split: str = "test") -> ProblemSet:
    """GSM8K's problems, with ids like `test_51` (split and row, 0-based).

    Args:
        split: `test` (1,319 problems), `train` (7,473), `all` (test, then train), or `validation` (the last 300 of
            train; training leaves out what it is validated on).

    Raises:
        ProblemError: There is no such split, or the data is neither cached nor reachable.
    """
    problems = [problem for part in PARTS[check_split(split)] for problem in _part(part)]
    if split == "validation":
        problems = problems[-VALIDATION:]
    return ProblemSet(tuple(problems), name=f"gsm8k:{split}")


def check_split(split: str) -> str:
    """The split, if there is one of this name.

    Raises:
        ProblemError: There is none.
    """
    if split not in PARTS:
        raise ProblemError(
            "there is no such split of GSM8K",
            got=repr(split),
            expected="gsm8k:test, gsm8k:train, gsm8k:validation or gsm8k:all",
            fix=None if (close := closest(split, PARTS)) is None else f"did you mean 'gsm8k:{close}'?",
        )
    return split


def _part(split: str) -> list[Problem]:
    # Here and not above: importing datasets takes seconds, and most commands never need it.
    import datasets

    try:
        rows = datasets.load_dataset(REPOSITORY, CONFIG, split=split)
    except Exception as error:  # whatever the hub, its cache or the network raises: it is the same news to the user
        raise ProblemError(
            f"GSM8K ({REPOSITORY}, {split}) could not be loaded",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            fix="connect once so that it is cached (HF_HOME; unset HF_HUB_OFFLINE), or pass a local file: "
            f"--problems path/to/{split}.jsonl with 'question' and 'answer' in every line",
        ) from error
    return [
        problem_from_row(row, where=f"{REPOSITORY} {split}, row {index}", split=split, index=index)
        for index, row in enumerate(rows)
    ]
