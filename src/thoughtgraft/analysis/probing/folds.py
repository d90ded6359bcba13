"""Folds: repeated, stratified by label, grouped by question, so that no question is both learnt and asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from thoughtgraft.analysis.probing.rows import FEWEST, Rows
from thoughtgraft.errors import AnalysisError

# A quantity is stratified by this many bins of equal size.
BINS = 5


@dataclass(frozen=True)
class Fold:
    """One division of the rows: places (0-based) to learn from and to be asked about."""

    repeat: int
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Folds:
    """All divisions of one analysis, shared by every probe and control so that they are compared on the same rows."""

    folds: tuple[Fold, ...]
    k: int
    repeats: int

    @property
    def label(self) -> str:
        """For tables: `10-fold x 5, grouped`."""
        return f"{self.k}-fold x {self.repeats}, grouped"

    def first(self, repeats: int) -> Folds:
        """Only the first repeats."""
        n = min(repeats, self.repeats)
        return Folds(tuple(f for f in self.folds if f.repeat < n), self.k, n)

    def within(self, keep: np.ndarray) -> Folds | None:
        """The same folds of some of the rows (a mask), counted anew; None where a fold is left without test rows."""
        place = np.cumsum(keep) - 1
        parts = tuple(Fold(f.repeat, place[f.train[keep[f.train]]], place[f.test[keep[f.test]]]) for f in self.folds)
        return Folds(parts, self.k, self.repeats) if all(len(f.test) for f in parts) else None


def make_folds(rows: Rows, k: int, repeats: int, seed: int) -> Folds:
    """Draw the folds; k is lowered to the number of distinct questions in the smallest class.

    Raises:
        AnalysisError: Fewer than 3 folds are possible.
    """
    strata = strata_of(rows)
    sizes = [len(np.unique(rows.groups[strata == s])) for s in np.unique(strata)]
    possible = min(k, *sizes)
    if possible < FEWEST:
        raise AnalysisError(
            f"too few problems to probe {rows.target!r}",
            got=f"{min(sizes)} distinct questions in the smallest class",
            expected=f"at least {FEWEST}",
            fix="label more problems, or leave that class out",
        )
    made = []
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(n_splits=possible, shuffle=True, random_state=seed + repeat)
        for train, test in splitter.split(np.zeros(len(rows)), strata, rows.groups):
            if len(test):
                made.append(Fold(repeat, train, test))
    return Folds(tuple(made), possible, repeats)


def strata_of(rows: Rows) -> np.ndarray:
    """What folds are balanced by: the class, or the bin of a quantity; shape [row]."""
    if rows.kind == "class":
        return rows.values
    ranks = pd.Series(rows.values).rank(method="first").to_numpy()
    return np.minimum((ranks - 1) * BINS // len(ranks), BINS - 1).astype(int)
