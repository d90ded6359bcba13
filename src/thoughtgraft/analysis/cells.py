"""One arm's generations as aligned arrays: hosts, donors, draws, paired differences, coded answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Floats = np.ndarray
Ints = np.ndarray


@dataclass(frozen=True, order=True)
class ArmKey:
    """What defines an arm in the analysis; `stratum` is "" for arms without donors."""

    method: str
    slots: tuple[int, ...]
    downstream: str = "recompute"
    stratum: str = ""

    @property
    def family(self) -> tuple[str, str, str]:
        """The arms that one multiplicity correction covers: same method, downstream and stratum."""
        return self.method, self.downstream, self.stratum


@dataclass(frozen=True)
class Cells:
    """The finished generations of one arm, one entry per cell, sorted by host, then donor or draw.

    `host` and `donor` are 0-based indices into the run's `Frame.hosts` and `Frame.donors` (donor -1: none), so
    that arms align. `pred`, `base_pred`, `gold`, `donor_pred` are codes of exact numbers (-1: nothing parsed);
    two codes are equal exactly when the numbers are. Everything has shape [cell].
    """

    arm: ArmKey
    n_failed: int
    host: Ints
    donor: Ints
    draw: Ints
    base_correct: Floats
    correct: Floats
    changed: Floats
    valid: Floats
    dlogp: Floats
    kl: Floats
    pred: Ints
    base_pred: Ints
    gold: Ints
    donor_pred: Ints

    def __len__(self) -> int:
        return len(self.host)

    @property
    def difference(self) -> Floats:
        """Paired loss of accuracy, base_correct - correct, in {-1, 0, 1}; shape [cell]."""
        return np.asarray(self.base_correct - self.correct)

    @property
    def has_donors(self) -> bool:
        """Whether every cell has a donor."""
        return bool(len(self)) and bool((self.donor >= 0).all())

    @property
    def n_hosts(self) -> int:
        """Number of distinct hosts."""
        return len(np.unique(self.host))

    @property
    def n_donors(self) -> int:
        """Number of distinct donors; 0 without donors."""
        return len(np.unique(self.donor[self.donor >= 0]))

    @cached_property
    def weight(self) -> Floats:
        """Weights that sum to 1 and count every host equally, however many draws it has; shape [cell]."""
        counts = np.bincount(self.host)
        return np.asarray(1.0 / (counts[self.host] * (counts > 0).sum()))

    @cached_property
    def pair(self) -> Ints:
        """A key of (host, donor), or (host, draw) without donors, by which two arms are paired; shape [cell]."""
        other = self.donor if self.has_donors else self.draw
        return np.asarray(self.host.astype(np.int64) * 1_000_000 + other)

    def grid(self, values: Floats) -> Floats:
        """`values` [cell] as a matrix [host, draw]; rows are the arm's hosts in order, NaN where a draw is missing."""
        hosts, row = np.unique(self.host, return_inverse=True)
        out = np.full((len(hosts), int(self.draw.max()) + 1), np.nan)
        out[row, self.draw] = values
        return out

    def host_mean(self, values: Floats, n_hosts: int) -> Floats:
        """Mean of `values` [cell] by host of the run, shape [n_hosts]; NaN for hosts that the arm lacks."""
        counts = np.bincount(self.host, minlength=n_hosts)
        sums = np.bincount(self.host, weights=values, minlength=n_hosts)
        return np.asarray(np.divide(sums, counts, out=np.full(n_hosts, np.nan), where=counts > 0))


def paired(first: Cells, second: Cells) -> tuple[Ints, Ints]:
    """Positions in `first` and `second` of the cells that both hold (same host, and donor or draw).

    When only `first` has donors, each of its cells is paired with its host's first cell in `second`.
    """
    if first.has_donors != second.has_donors:
        one = np.unique(second.host, return_index=True)
        where = {int(h): int(i) for h, i in zip(*one, strict=True)}
        left = np.flatnonzero(np.isin(first.host, one[0]))
        return left, np.array([where[int(h)] for h in first.host[left]], dtype=np.int64)
    _, left, right = np.intersect1d(first.pair, second.pair, assume_unique=True, return_indices=True)
    return left, right
