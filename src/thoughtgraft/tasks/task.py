"""A task: a named source of problems with the rule by which their answers are read.

A new data set is one file in `tasks/sets/` that defines `TASK`: its name then works wherever problems are named.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from thoughtgraft.arguments import closest
from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.grading import NUMBER, Grader
from thoughtgraft.tasks.problem import ProblemSet


@dataclass(frozen=True)
class Task:
    """A data set by name.

    Attributes:
        name: What it is called before the colon: `gsm8k`.
        splits: The names that may stand after the colon.
        load: The problems of one split. Whatever it needs from a hub or a disk is read only when it is called.
        grader: How answers to its problems are read.
        chance: The accuracy of somebody who guesses; None where there is no such number.
        default: The split that the bare name stands for; None where a split has to be named.
    """

    name: str
    splits: tuple[str, ...]
    load: Callable[[str], ProblemSet]
    grader: Grader = NUMBER
    chance: float | None = None
    default: str | None = None

    def split(self, name: str | None) -> str:
        """The split of this name; the default one for None.

        Raises:
            ProblemError: There is no such split, or there is no default.
        """
        if name is None and self.default is not None:
            return self.default
        if name is None or name not in self.splits:
            raise ProblemError(
                f"{self.name} needs a split" if name is None else f"{self.name} has no split {name!r}",
                expected=", ".join(f"{self.name}:{split}" for split in self.splits),
                fix=f"did you mean '{self.name}:{closest(name, self.splits) or self.splits[0]}'?",
            )
        return name

    def __str__(self) -> str:
        splits = "|".join(self.splits)
        return f"{self.name}:{splits}" if self.default is None else f"{self.name}[:{splits}]"


@cache
def tasks() -> dict[str, Task]:
    """Every task by its name: what the files of `tasks/sets/` define."""
    from thoughtgraft.tasks import sets

    files = (module.name for module in pkgutil.iter_modules(sets.__path__, f"{sets.__name__}."))
    found: dict[str, Task] = {}
    for name in sorted(files):
        task = getattr(import_module(name), "TASK", None)
        if not isinstance(task, Task):
            raise ProblemError(f"{name} defines no data set", expected="TASK = Task(name, splits, load)")
        if task.name in found:
            raise ProblemError(f"{name} defines a data set that there is already", got=repr(task.name))
        found[task.name] = task
    return found
