"""Invented residual streams whose readable place is known, with questions that say nothing, or everything."""

from __future__ import annotations

import numpy as np
import pandas as pd

from thoughtgraft.records.states import States

CLASSES = np.array(["addition", "mixed", "multiplication"])
OBJECTS = "apples pears books shells rings coins cards beads cups hats keys pens".split()
LEAKS = np.array(["altogether", "each of those", "later than before"])
POSITIONS = ("BOT", "CT0", "CT1")
LAYERS = (2, 5)


def labels(n: int, *, leak: bool = False, seed: int = 0, split: str = "test") -> pd.DataFrame:
    """`n` problems in three equal classes; with `leak`, a phrase of the question gives the class away."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    objects, first, second = rng.integers(0, len(OBJECTS), n), rng.integers(2, 99, n), rng.integers(2, 99, n)
    questions = [
        f"There are {first[i]} {OBJECTS[objects[i]]} in box {i}" + (f" {LEAKS[codes[i]]}." if leak else ".")
        for i in range(n)
    ]
    return pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)],
            "operation": CLASSES[codes],
            "question": questions,
            "split": split,
            "amount": second.astype(float),
        }
    )


def features(
    table: pd.DataFrame, *, planted: float = 0.0, place: tuple[int, int] = (1, 2), d: int = 24, seed: int = 0
) -> States:
    """Noise everywhere; at `place` (layer, position by index) class means stand `planted` standard deviations out."""
    rng = np.random.default_rng(seed)
    n = len(table)
    values = rng.normal(size=(n, len(LAYERS), len(POSITIONS), d)).astype(np.float32)
    codes = np.searchsorted(CLASSES, table.operation)
    values[:, place[0], place[1], :3] += planted * np.eye(3, dtype=np.float32)[codes]
    return States.of(values.swapaxes(1, 2), table.id, LAYERS, POSITIONS)
