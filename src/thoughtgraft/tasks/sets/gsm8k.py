"""GSM8K: grade school word problems with their solutions, from the hub or its cache."""

from __future__ import annotations

from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.files import problem_from_row
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.tasks.task import Task

REPOSITORY, CONFIG = "openai/gsm8k", "main"

PARTS = {"test": ("test",), "train": ("train",), "all": ("test", "train"), "validation": ("train",)}
"""What each name of a split holds, in order."""
VALIDATION = 300
"""The last problems of train, which `validation` holds: for learning curves, and never trained on beside them."""


def gsm8k(split: str) -> ProblemSet:
    """GSM8K's problems, with ids like `test_51` (split and row, 0-based).

    Args:
        split: `test` (1,319 problems), `train` (7,473), `all` (test, then train), or `validation` (the last 300 of
            train; training leaves out what it is validated on).

    Raises:
        ProblemError: The data is neither cached nor reachable.
    """
    problems = [problem for part in PARTS[split] for problem in _part(part)]
    if split == "validation":
        problems = problems[-VALIDATION:]
    return ProblemSet(tuple(problems), name=f"gsm8k:{split}")


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


TASK = Task("gsm8k", tuple(PARTS), gsm8k)
