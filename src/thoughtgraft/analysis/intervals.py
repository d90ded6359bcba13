"""Intervals of a family of means, one by one and all together: what every verdict is made from.

Three methods. Means that vary in many hosts: the two-way clustered t. Shares, and differences of graded answers, that
vary in few hosts: Clopper-Pearson on the number of independent tries that the clustered variance implies (Korn and
Graubard 1998), lost and gained joined by MOVER (Zou and Donner 2008). One single value in all cells: the exact bound.
Each is made twice, at alpha and at the level at which the whole family holds (max-t). docs/statistics.md has the
formulas, and the simulation that says where they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special, stats

from thoughtgraft.analysis.cells import Floats, Ints
from thoughtgraft.analysis.clustered import Covariance, Estimate, clustered_total, twoway_covariance
from thoughtgraft.analysis.multiplicity import simultaneous_level

FEW = 20
"""With fewer hosts that differ than this, a t interval is too short (docs/statistics.md)."""
MIN_HOSTS, MIN_DONORS = 20, 5
"""Smaller designs have no interval that is known to hold."""


@dataclass(frozen=True)
class Sample:
    """What one member of a family is estimated from: a weighted mean over cells, less what chance alone gives.

    Hosts and donors are numbered alike in the whole family, so that members' errors can be told to be shared.

    Attributes:
        values: One outcome per cell; cells without a finite one are left out.
        host: Host of each cell.
        donor: Donor of each cell; None for arms without donors.
        weight: Non-negative weights, of any sum.
        kind: "difference" of graded answers, in {-1, 0, 1}; "share", in {0, 1}; "real", anything.
        null: For a share: the share by chance, subtracted from the mean.
        null_influence: Each cell's influence on `null` (sum 0), for its error; None where it has none.
    """

    values: Floats
    host: Ints
    donor: Ints | None
    weight: Floats
    kind: Literal["difference", "share", "real"]
    null: float = 0.0
    null_influence: Floats | None = None


@dataclass(frozen=True)
class Bounds:
    """An estimate with its interval alone and its interval within the family, in the unit of the values.

    Attributes:
        estimate: Mean, standard errors, counts and p; its `low` and `high` are those of this interval.
        low: Lower end of the unadjusted interval; NaN where undefined, like the others.
        high: Its upper end.
        sim_low: Lower end of the simultaneous interval.
        sim_high: Its upper end.
        method: "two-way t", "proportions", "exact", or "" where there is no interval.
        too_small: Whether no interval is known to hold for a design of this size.
        note: Why something is undefined, or which method was taken and why.
    """

    estimate: Estimate
    low: float
    high: float
    sim_low: float
    sim_high: float
    method: str
    too_small: bool
    note: str


@dataclass(frozen=True)
class _Parts:
    """A mean as plus - minus, each with its influences [cell]; `differ` = hosts with another value than most."""

    plus: float
    minus: float
    u_plus: Floats
    u_minus: Floats
    differ: int
    flat: bool

    @classmethod
    def of(cls, sample: Sample, weight: Floats) -> _Parts:
        v = sample.values
        if sample.kind == "real":
            plus, minus = float(weight @ v), 0.0
            u_plus, u_minus = weight * (v - plus), np.zeros(len(v))
        elif sample.kind == "share":
            plus, minus = float(weight @ v), sample.null
            u_plus = weight * (v - plus)
            u_minus = np.zeros(len(v)) if sample.null_influence is None else sample.null_influence
        else:
            plus, minus = float(weight @ (v == 1)), float(weight @ (v == -1))
            u_plus, u_minus = weight * ((v == 1) - plus), weight * ((v == -1) - minus)
        counted = weight > 0
        found, counts = np.unique(v[counted], return_counts=True)
        usual = found[counts.argmax()]
        differ = len(np.unique(sample.host[counted & (v != usual)]))
        return cls(plus, minus, u_plus, u_minus, differ, len(found) == 1)


def _finite(sample: Sample) -> Sample:
    """The sample without cells whose value is not finite."""
    ok = np.isfinite(sample.values)
    if ok.all():
        return sample
    donor = None if sample.donor is None else sample.donor[ok]
    influence = None if sample.null_influence is None else sample.null_influence[ok]
    kept = replace(sample, values=sample.values[ok], host=sample.host[ok], donor=donor)
    return replace(kept, weight=sample.weight[ok], null_influence=influence)


def _joint(samples: Sequence[Sample], weights: Sequence[Floats], parts: Sequence[_Parts]) -> Covariance:
    """Covariance of [all means, all plus parts, all minus parts], aligned by host and donor."""
    donors = [np.full(len(s.host), -1) if s.donor is None else s.donor for s in samples]
    pairs = [np.stack([s.host, donor], axis=1) for s, donor in zip(samples, donors, strict=True)]
    cells, place = np.unique(np.concatenate(pairs), axis=0, return_inverse=True)
    member = np.repeat(np.arange(len(samples)), [len(p) for p in pairs])
    shape = (len(cells), len(samples))

    def table(columns: Sequence[Floats]) -> Floats:
        flat = np.ravel_multi_index((place.ravel(), member), shape)
        return np.bincount(flat, np.concatenate(columns), shape[0] * shape[1]).reshape(shape)

    plus, minus = table([p.u_plus for p in parts]), table([p.u_minus for p in parts])
    present, share = table([np.ones(len(w)) for w in weights]) > 0, table(weights)
    u = np.concatenate([plus - minus, plus, minus], axis=1)
    return twoway_covariance(u, cells, np.tile(present, 3), np.tile(share, 3))


def korn_graubard(share: Floats, variance: Floats, n: Floats, units: Floats, df: Floats, level: Floats) -> Floats:
    """Clopper-Pearson bounds of clustered shares, shape [2, share] (Korn, Graubard 1998, Survey Methodology 24(2)).

    The effective sample size is share (1 - share) / variance times (t_{n-1} / t_df)^2, at most the number of
    independent units: few events cannot show how they cluster.

    Args:
        share: Estimated shares in [0, 1].
        variance: Their clustered variances.
        n: Number of cells.
        units: Number of independent units, the smaller of hosts and donors.
        df: Degrees of freedom of the variances.
        level: Two-sided error of the interval.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        shrink = (special.stdtrit(n - 1, 1 - level / 2) / special.stdtrit(df, 1 - level / 2)) ** 2
        tries = np.where(variance > 0, share * (1 - share) / variance * shrink, units)
    tries = np.minimum(tries, units)
    hits = share * tries
    low = np.where(hits > 0, special.betaincinv(hits, tries - hits + 1, level / 2), 0.0)
    high = np.where(hits < tries, special.betaincinv(hits + 1, tries - hits, 1 - level / 2), 1.0)
    return np.stack([low, high])


def mover(
    plus: Floats, minus: Floats, plus_bounds: Floats, minus_bounds: Floats, correlation: Floats
) -> tuple[Floats, Floats]:
    """Interval of plus - minus from the interval of each (Zou, Donner 2008, Stat. Med. 27(10); Zou 2008 for r)."""
    below, above = plus - plus_bounds[0], plus_bounds[1] - plus
    under, over = minus - minus_bounds[0], minus_bounds[1] - minus
    low = np.sqrt(np.maximum(below**2 + over**2 - 2 * correlation * below * over, 0.0))
    high = np.sqrt(np.maximum(above**2 + under**2 - 2 * correlation * above * under, 0.0))
    return plus - minus - low, plus - minus + high


def exact_bounds(sample: Sample, value: float, units: int, level: float) -> tuple[float, float]:
    """Bounds of a mean where every cell has the same value: another one's share is below 1 - level^(1/units)."""
    other = 1 - level ** (1 / units)
    if sample.kind == "share":
        return max(value - other, 0.0) - sample.null, min(value + other, 1.0) - sample.null
    if value == 0:
        return -other, other
    return max(value - 2 * other, -1.0), min(value + 2 * other, 1.0)


def _range(sample: Sample) -> tuple[float, float]:
    """The values that the estimate can take."""
    if sample.kind == "share":
        return -sample.null, 1.0 - sample.null
    return (-1.0, 1.0) if sample.kind == "difference" else (-np.inf, np.inf)


def family_bounds(samples: Sequence[Sample], *, alpha: float = 0.05) -> list[Bounds]:
    """Estimates of the members of one family, each with its interval alone and with the one that holds for all.

    A member whose effect is 0 by construction does not belong in the family: leave it out. Members without an interval
    of their own (no cells, one host) are returned as undefined and do not widen the others' intervals.

    Args:
        samples: The members, for example the single slots of one method, downstream rule and stratum.
        alpha: Error of each interval alone, and of all simultaneous ones together.

    Returns:
        One `Bounds` per member, in order.
    """
    samples = [_finite(s) for s in samples]
    empty = [i for i, s in enumerate(samples) if not s.weight.sum() > 0]
    out: dict[int, Bounds] = {i: _no_cells() for i in empty}
    full = [i for i in range(len(samples)) if i not in out]
    if full:
        found = _bounds([samples[i] for i in full], alpha)
        out |= dict(zip(full, found, strict=True))
    return [out[i] for i in range(len(samples))]


def _no_cells() -> Bounds:
    nan = np.nan
    none = Estimate(nan, nan, nan, nan, nan, nan, nan, nan, 0, 0, 0, "no cells")
    return Bounds(none, nan, nan, nan, nan, "", True, "no cells")


def _bounds(samples: Sequence[Sample], alpha: float) -> list[Bounds]:
    weights = [np.asarray(s.weight / s.weight.sum()) for s in samples]
    parts = [_Parts.of(s, w) for s, w in zip(samples, weights, strict=True)]
    estimates = [
        clustered_total(p.u_plus - p.u_minus, p.plus - p.minus, s.host, s.donor, w)
        for s, w, p in zip(samples, weights, parts, strict=True)
    ]
    m = len(samples)
    joint = _joint(samples, weights, parts)
    variance, df = np.diag(joint.matrix).reshape(3, m), joint.df[:m]
    varies = np.array([e.se > 0 for e in estimates])
    counted = np.array([e.se >= 0 for e in estimates])
    level = _family_level(joint.matrix[:m, :m], df, varies, counted, alpha)
    plus, minus = np.array([p.plus for p in parts]), np.array([p.minus for p in parts])
    units = np.array([min(e.n_hosts, e.n_donors or e.n_hosts) for e in estimates], dtype=float)
    n = np.array([e.n for e in estimates], dtype=float)
    both = np.sqrt(variance[1] * variance[2])
    crossing = np.diagonal(joint.matrix[m : 2 * m, 2 * m :])
    correlation = np.clip(np.divide(crossing, both, out=np.zeros(m), where=both > 0), -1.0, 1.0)
    graded = np.array([s.kind == "difference" for s in samples])

    def proportions(error: float) -> tuple[Floats, Floats]:
        errors = np.full(m, error)
        first = korn_graubard(np.clip(plus, 0, 1), variance[1], n, units, df, errors)
        second = korn_graubard(np.clip(minus, 0, 1), variance[2], n, units, df, errors)
        half = special.stdtrit(df, 1 - error / 2) * np.sqrt(variance[2])
        second = np.where(graded, second, np.stack([minus - half, minus + half]))
        return mover(plus, minus, first, second, correlation)

    alone, together = proportions(alpha), proportions(level)
    out = []
    for i, (sample, part, est) in enumerate(zip(samples, parts, estimates, strict=True)):
        small = est.n_hosts < MIN_HOSTS or (sample.donor is not None and est.n_donors < MIN_DONORS)
        bottom, top = _range(sample)
        note = est.note
        if not est.se >= 0:
            ends, method = (np.nan,) * 4, ""
        elif part.flat and sample.kind != "real":
            pair = [exact_bounds(sample, float(sample.values[0]), int(units[i]), a) for a in (alpha, level)]
            ends, method, note = (*pair[0], *pair[1]), "exact", "every cell is equal: exact bounds"
        elif sample.kind != "real" and part.differ < FEW:
            ends, method = (alone[0][i], alone[1][i], together[0][i], together[1][i]), "proportions"
            note = f"only {part.differ} {'host differs' if part.differ == 1 else 'hosts differ'}: proportions' interval"
        elif est.se == 0:
            ends, method = (np.nan,) * 4, ""
        else:
            one, all_ = est.se * stats.t.ppf(1 - np.array([alpha, level]) / 2, est.df)
            ends = (est.value - one, est.value + one, est.value - all_, est.value + all_)
            method = "two-way t"
        low, high, sim_low, sim_high = (float(np.clip(end, bottom, top)) for end in ends)
        estimate = replace(est, low=low, high=high, note=note)
        out.append(Bounds(estimate, low, high, sim_low, sim_high, method, small, note))
    return out


def _family_level(matrix: Floats, df: Floats, varies: np.ndarray, counted: np.ndarray, alpha: float) -> float:
    """The level of each member; those without variation count as independent of the others."""
    if not counted.any():
        return alpha
    known = matrix[np.ix_(counted, counted)].copy()
    still = ~varies[counted]
    known[still], known[:, still] = 0.0, 0.0
    known[still, still] = 1.0
    return simultaneous_level(known, float(df[varies].min()) if varies.any() else np.inf, alpha)
