"""Intervals of clustered proportions and their differences: Clopper-Pearson on independent tries, joined by MOVER."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from thoughtgraft.analysis.cells import Floats

LEAST, FEW, FEW_OF = 10, 30, 0.3
"""Hosts, or donors, that differ are few below 3 in 10 of them, at least 10 and at most 30 (docs/statistics.md)."""
_SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Proportions:
    """Several estimates, each a share (`plus`) less another (`minus`); every array has shape [estimate].

    Lost less gained answers, both shares of cells; or, where `counted` is False, a share less a mean that is no share
    of cells (adoption by chance), whose own interval is a t.

    Attributes:
        plus: The first share, 0..1.
        minus: What is taken off.
        v_plus: Clustered variance of `plus`.
        v_minus: That of `minus`.
        correlation: Correlation of the two.
        counted: Whether `minus` is a share of cells.
        flat: Whether all cells have one value.
        differ: Hosts, or donors if they are fewer, with a cell of another value than most.
        cells: Number of cells, counted by their weights (Kish).
        units: Number of hosts, or of donors if they are fewer.
        df: Degrees of freedom of the variances.
    """

    plus: Floats
    minus: Floats
    v_plus: Floats
    v_minus: Floats
    correlation: Floats
    counted: Floats
    flat: Floats
    differ: Floats
    cells: Floats
    units: Floats
    df: Floats

    @cached_property
    def tries(self) -> tuple[Floats, Floats]:
        """Independent tries behind `plus` and `minus`: cells over their design effect.

        The design effect is the clustered variance over the binomial one, at least 1: of the share itself or of both
        together, the larger (a share without events clusters as the other does). But few events cannot show how they
        cluster. So it is drawn to the worst case, in which a host, or a donor, is a single try: all the way where
        nothing differs, less with each host that does, and no longer where they are not few.
        """
        minus = np.where(self.counted, self.minus, 0.0)
        binomial = [p * (1 - p) / self.cells for p in (self.plus, minus)]
        variance = [self.v_plus, np.where(self.counted, self.v_minus, 0.0)]
        both = _ratio(variance[0] + variance[1], binomial[0] + binomial[1])
        worst, few = self.cells / self.units, np.clip(FEW_OF * self.units, LEAST, FEW)
        drawn = np.clip(1 - self.differ / few, 0.0, 1.0)
        out = []
        for v, b in zip(variance, binomial, strict=True):
            effect = np.maximum(np.maximum(_ratio(v, b), both), 1.0)
            out.append(self.cells / np.maximum(effect, (1 - drawn) * effect + drawn * worst))
        return out[0], out[1]

    def bounds(self, level: Floats) -> tuple[Floats, Floats]:
        """Lower and upper ends of plus - minus at the two-sided errors `level` [estimate]."""
        t = -special.stdtrit(self.df, level / 2)
        # Korn and Graubard's correction for the variance's degrees of freedom; without a variance, none.
        shrink = (special.stdtrit(np.maximum(self.cells - 1, 1), level / 2) / t) ** 2
        shrink = np.where(self.flat, 1.0, np.minimum(shrink, 1.0))
        # Where all cells agree only one end can be missed, and it gets the whole error.
        error = np.where(self.flat, np.minimum(2 * level, 1.0), level)
        plus = clopper_pearson(self.plus, self.tries[0] * shrink, error)
        half = np.where(self.v_minus > 0, t * np.sqrt(self.v_minus), 0.0)
        shared = clopper_pearson(self.minus, self.tries[1] * shrink, error)
        minus = np.where(self.counted, shared, np.stack([self.minus - half, self.minus + half]))
        return mover(self.plus, plus, self.minus, minus, self.correlation)

    def p_values(self) -> Floats:
        """Two-sided p of "plus - minus is 0": the level at which the interval just leaves 0 out."""
        low, high = np.full(self.plus.shape, np.log(_SMALLEST_P)), np.zeros(self.plus.shape)
        for _ in range(14):  # to within 0.2% of p
            middle = (low + high) / 2
            ends = self.bounds(np.exp(middle))
            rejected = (ends[0] > 0) | (ends[1] < 0)
            low, high = np.where(rejected, low, middle), np.where(rejected, middle, high)
        return np.exp(high)


def clopper_pearson(share: Floats, tries: Floats, level: Floats) -> Floats:
    """Bounds of shares seen in `tries` independent tries, which need not be whole numbers; shape [2, share].

    On the effective number of tries these are Korn and Graubard's (1998, Survey Methodology 24(2)).
    """
    hits = np.clip(share, 0.0, 1.0) * tries
    misses = tries - hits
    # Less than half an independent event is none: no share is above 0 because one cell of 1,000 is lost.
    some, not_all = hits >= 0.5, misses >= 0.5
    low = special.betaincinv(np.where(some, hits, 1.0), misses + 1, level / 2)
    high = special.betainccinv(hits + 1, np.where(not_all, misses, 1.0), level / 2)
    return np.stack([np.where(some, low, 0.0), np.where(not_all, high, 1.0)])


def mover(
    first: Floats, first_bounds: Floats, second: Floats, second_bounds: Floats, correlation: Floats
) -> tuple[Floats, Floats]:
    """Interval of first - second from an interval of each (Zou, Donner 2008, Stat. Med. 27(10)).

    Args:
        first: Estimates.
        first_bounds: Their lower and upper bounds, shape [2, estimate].
        second: What is taken off.
        second_bounds: Bounds of `second`.
        correlation: Correlation of the two estimates.
    """
    below, above = first - first_bounds[0], first_bounds[1] - first
    under, over = second - second_bounds[0], second_bounds[1] - second
    low = np.sqrt(np.maximum(below**2 + over**2 - 2 * correlation * below * over, 0.0))
    high = np.sqrt(np.maximum(above**2 + under**2 - 2 * correlation * above * under, 0.0))
    return first - second - low, first - second + high


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros(np.shape(a)), where=b > 0)
