"""Paired comparisons: accuracies of two models on the same problems, and profiles of slots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats


@dataclass(frozen=True)
class Interval:
    """An estimate with a percentile interval; NaN with a `note` where undefined."""

    value: float
    low: float
    high: float
    note: str = ""


def correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r along the last axis; NaN where a profile is flat. Shapes [..., slot] -> [...]."""
    a, b = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    flat = scale <= 1e-12
    return np.where(flat, np.nan, (a * b).sum(-1) / np.where(flat, 1.0, scale))


def rank_correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rho along the last axis (mean ranks for ties)."""
    return correlate(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


def percentile(value: float, draws: np.ndarray, what: str, level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap draws; undefined if over 5% of them are."""
    lost = float(np.mean(~np.isfinite(draws)))
    if not np.isfinite(value) or lost > 0.05:
        why = f"{what} is undefined" + (f" in {lost:.0%} of the resamples" if np.isfinite(value) else "")
        return Interval(value, np.nan, np.nan, why)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True)
class Profile:
    """One method's outcomes by slot, each slot on the same cells.

    Attributes:
        values: Outcome of each cell at each slot, shape [cell, slot].
        host: 0-based host of each cell, alike in both methods of a comparison.
        donor: 0-based donor of each cell; None for a method without donors.
    """

    values: np.ndarray
    host: np.ndarray
    donor: np.ndarray | None

    def drawn(self, hosts: np.ndarray, donors: np.ndarray) -> Drawn:
        """The profile in resamples of hosts and donors.

        Args:
            hosts: How often each host is drawn, shape [host, resample].
            donors: How often each donor is drawn, shape [donor, resample]; not used without donors.
        """
        shape = (len(hosts), len(donors))
        donor = np.zeros_like(self.host) if self.donor is None else self.donor
        times = np.ones((len(donors), hosts.shape[1])) if self.donor is None else donors

        def table(values: np.ndarray) -> sparse.csr_array:
            return sparse.coo_array((values, (self.host, donor)), shape=shape).tocsr()

        met = table(np.ones(len(self.host))) @ times
        weight = np.where(met > 0, hosts, 0.0)
        per_cell = np.divide(weight, met, out=np.zeros_like(weight), where=met > 0)
        squares, pairs = weight.sum(0) ** 2 - (weight**2).sum(0), np.zeros(hosts.shape[1])
        centred = self.values - self.values.mean(1, keepdims=True)
        means, product = [], np.zeros(hosts.shape[1])
        for k in range(self.values.shape[1]):
            column = table(centred[:, k])
            mean = np.divide(column @ times, met, out=np.zeros_like(met), where=met > 0)
            means.append(mean)
            product += ((weight * mean).sum(0)) ** 2 - ((weight * mean) ** 2).sum(0)
            if self.donor is not None:
                product -= ((column.T @ per_cell * times) ** 2).sum(0)
        if self.donor is None:
            pairs = squares
        else:
            # What neither a host nor a donor shares: all, less one host's, less one donor's, plus the cell's own.
            own, ones = table((centred**2).sum(1)), table(np.ones(len(self.host)))
            product += ((own.T @ per_cell**2) * times**2).sum(0)
            pairs = squares - ((ones.T @ per_cell * times) ** 2).sum(0)
            pairs = pairs + ((ones.T @ per_cell**2) * times**2).sum(0)
        return Drawn(weight, np.stack(means), np.divide(product, pairs, out=np.zeros_like(pairs), where=pairs > 0))


@dataclass(frozen=True)
class Drawn:
    """A profile, centred over slots, in each resample.

    Attributes:
        weight: How often each host counts, shape [host, resample]; 0 for a host none of whose donors was drawn.
        means: Mean of each host at each slot, shape [slot, host, resample].
        variance: What products of cells that share neither host nor donor say of the true profile's sum of squares,
            shape [resample].
    """

    weight: np.ndarray
    means: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class Joint:
    """Two methods' profiles side by side, in each resample: shape [resample, slot], and [resample]."""

    first: np.ndarray
    second: np.ndarray
    disattenuated: np.ndarray
    reliability: tuple[np.ndarray, np.ndarray]


def joint(a: Drawn, b: Drawn) -> Joint:
    """Both mean profiles, and their correlation freed of sampling noise, in each resample.

    The textbook correction r / sqrt(rel_x rel_y) (Spearman 1904) supposes that the errors of the two profiles are
    independent. Here they are not. Both profiles come from the same hosts: what is odd about a host is in both, which
    pushes r up. The cells of one method share donors: what is odd about a donor looks like the method's profile, which
    pushes r down.

    Two cells that share neither host nor donor share no error. So only products of such cells are summed. The sums
    xy, xx and yy over slots are then unbiased for those of the true profiles, and xy / sqrt(xx yy) is the
    disattenuated r. A resample holds copies of hosts and donors, and copies of one are never multiplied with each
    other either. The reliability of a mean profile is the part of its sum of squares that is left.
    """
    weight = np.where(b.weight > 0, a.weight, 0.0)
    pairs = weight.sum(0) ** 2 - (weight**2).sum(0)
    own = ((weight**2) * (a.means * b.means).sum(0)).sum(0)
    total = weight.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = ((weight * m).sum(1) / total for m in (a.means, b.means))
        xy = (total**2 * (first * second).sum(0) - own) / pairs
        scale = a.variance * b.variance
        ok = (a.variance > 1e-12) & (b.variance > 1e-12)
        r = np.where(ok, xy / np.sqrt(np.where(ok, scale, 1.0)), np.nan)
        reliability = a.variance / (first**2).sum(0), b.variance / (second**2).sum(0)
    return Joint(first.T, second.T, r, reliability)
