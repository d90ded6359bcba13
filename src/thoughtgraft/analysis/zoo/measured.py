"""What was measured of one model of a zoo: answers, generations, decoded thoughts and states, as plain tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.errors import AnalysisError

THINKING = ("codi", "coconut")
"""Methods whose models are fed their own states."""
PAUSE = "pause"
"""The method that feeds the same vectors whatever the problem: the control of every claim about slots."""


@dataclass(frozen=True)
class Measured:
    """One model.

    Attributes:
        name: What it is called.
        method: The method that it was trained by.
        num_latents: Slots, K >= 0.
        card: Facts of its card: steps, seed, parameters, ...
        main: The condition that is its plain answer.
        correct: `problem_id`, `n_steps`, `operation` and a column of booleans for each condition, null
            where the answer failed; one row per problem.
        certificate: Outcome of the checks; None where there is none.
        records: Generations of the resampling study; None without slots.
        decoded: Decoded thoughts; None without slots.
        states: `hidden`, float32 [problem, K + 1, d], in the order of `correct`.
        why_no_slots: Why it is fed no thought, where it is not.
    """

    name: str
    method: str
    num_latents: int
    card: Mapping[str, Any]
    main: str
    correct: pd.DataFrame
    certificate: Mapping[str, Any] | None
    records: pd.DataFrame | None
    decoded: pd.DataFrame | None
    states: np.ndarray
    why_no_slots: str = ""

    @property
    def thinks(self) -> bool:
        """Whether it is fed its own states."""
        return self.method in THINKING

    @property
    def n_failed(self) -> int:
        """Answers and generations without an outcome, which no figure counts."""
        records = 0 if self.records is None or "error" not in self.records else self.records["error"].notna().sum()
        return int(self.correct[self.conditions].isna().to_numpy().sum() + records)

    @property
    def conditions(self) -> list[str]:
        """What it was measured under, its plain answer first."""
        return [name for name in self.correct.columns if name not in ("problem_id", "n_steps", "operation")]


def check_zoo(zoo: tuple[Measured, ...]) -> None:
    """Refuse models that were not asked the same problems, or share a name.

    Raises:
        AnalysisError: They cannot be compared.
    """
    names = [model.name for model in zoo]
    if not names or len(set(names)) < len(names):
        raise AnalysisError("a zoo is of different models", got=", ".join(names) or "none", fix="name each model once")
    for model in zoo[1:]:
        if list(model.correct.problem_id) != list(zoo[0].correct.problem_id):
            raise AnalysisError(
                "the models were not asked the same problems", got=model.name, expected=f"those of {zoo[0].name}"
            )
