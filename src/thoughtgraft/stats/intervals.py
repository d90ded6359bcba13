"""Intervals of a family of means, one by one and all together: what every verdict is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import special

from thoughtgraft.errors import AnalysisError
from thoughtgraft.stats.clustered import (
    Clustered,
    Estimate,
    effective_number,
    estimates_of,
    group_totals,
    no_cells,
    twoway,
)
from thoughtgraft.stats.resampling import simultaneous_level

Floats = np.ndarray
Ints = np.ndarray

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


MIN_HOSTS, MIN_DONORS = 20, 5
"""Smaller designs are too small for a verdict (docs/statistics.md)."""
TOO_SMALL = f"too small for any interval that is known to hold: fewer than {MIN_HOSTS} hosts or {MIN_DONORS} donors"


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
        estimate: Mean, standard errors and counts; its `low`, `high` and `p` are those of the unadjusted interval: p
            is the level at which it would just leave 0 out (NaN for a share that cannot be below 0).
        low: Lower end of the unadjusted interval; NaN where undefined, like the others.
        high: Its upper end.
        sim_low: Lower end of the simultaneous interval.
        sim_high: Its upper end.
        method: "two-way t", "proportions", "exact", or "" where there is no interval.
        too_small: Whether the design is too small for a verdict (`MIN_HOSTS`, `MIN_DONORS`), or has no interval.
        note: Why something is undefined, or why another method than t was taken.
    """

    estimate: Estimate
    low: float
    high: float
    sim_low: float
    sim_high: float
    method: str
    too_small: bool
    note: str


_VALUES = {"difference": {-1.0, 0.0, 1.0}, "share": {0.0, 1.0}}


@dataclass(frozen=True)
class _Member:
    """A sample's mean as plus - minus (lost - gained; share - chance), with its influences [cell].

    `side` is 1 or -1 for cells above or below the value that most cells have, else 0.
    """

    sample: Sample
    weight: Floats
    plus: float
    minus: float
    u_plus: Floats
    u_minus: Floats
    side: Ints

    @classmethod
    def of(cls, sample: Sample) -> _Member | None:
        """None where no cell has a value and a weight."""
        ok = np.isfinite(sample.values)
        if not sample.weight[ok].sum() > 0:
            return None
        if not ok.all():
            donor = None if sample.donor is None else sample.donor[ok]
            chance = None if sample.null_influence is None else sample.null_influence[ok]
            kept = (sample.values[ok], sample.host[ok], donor, sample.weight[ok])
            sample = Sample(*kept, sample.kind, sample.null, chance)
        weight, values = np.asarray(sample.weight / sample.weight.sum()), sample.values
        found, place = np.unique(values[weight > 0], return_inverse=True)
        if not set(found.tolist()) <= _VALUES.get(sample.kind, set(found.tolist())):
            odd = next(value for value in found.tolist() if value not in _VALUES[sample.kind])
            wanted = ", ".join(f"{value:g}" for value in sorted(_VALUES[sample.kind]))
            raise AnalysisError(f"a {sample.kind} has other values than it can have", got=f"{odd:g}", expected=wanted)
        side = np.where(weight > 0, np.sign(values - found[np.bincount(place).argmax()]), 0)
        up = values == 1 if sample.kind == "difference" else values
        # Equal values have exactly that mean, not one that rounding moved.
        plus = float(weight @ up) if side.any() else float(up[weight > 0][0])
        if sample.kind == "difference":
            down = values == -1
            minus = float(weight @ down) if side.any() else float(down[weight > 0][0])
            u_minus = weight * (down - minus)
        else:
            minus = sample.null
            u_minus = np.zeros(len(values)) if sample.null_influence is None else sample.null_influence
        return cls(sample, weight, plus, minus, weight * (up - plus), u_minus, side)

    @property
    def donors(self) -> Ints:
        """Donor of each cell, -1 where there is none."""
        return np.full(len(self.weight), -1) if self.sample.donor is None else self.sample.donor


@dataclass(frozen=True)
class _Joint:
    """The members' errors, clustered together; columns [means, plus parts, minus parts].

    `differ` counts the hosts, or the donors if they are fewer, that differ; `heavy` how many equally heavy ones those
    are worth, above or below (lost or gained), whichever is fewer. Both [member].
    """

    clustered: Clustered
    differ: Floats
    heavy: Floats

    @classmethod
    def of(cls, members: Sequence[_Member]) -> _Joint:
        m = len(members)
        host, donor = (np.concatenate(x) for x in ([k.sample.host for k in members], [k.donors for k in members]))
        width = int(donor.max()) + 2
        pairs, place = np.unique(host.astype(np.int64) * width + donor + 1, return_inverse=True)
        host, donor = pairs // width, pairs % width - 1
        slot = place * m + np.repeat(np.arange(m), [len(k.weight) for k in members])

        def table(columns: Sequence[Floats]) -> Floats:
            return np.bincount(slot, np.concatenate(columns), len(pairs) * m).reshape(-1, m)

        plus, minus = table([k.u_plus for k in members]), table([k.u_minus for k in members])
        share = table([k.weight for k in members])
        clustered = twoway(np.concatenate([plus - minus, plus, minus], axis=1), host, donor, share)
        alone, crossed = clustered.n_donors == 0, donor >= 0

        def fewest(events: Floats, number: Callable[[Floats], Floats]) -> Floats:
            hosts, donors = number(group_totals(events, host)), number(group_totals(events[crossed], donor[crossed]))
            return np.where(alone, hosts, np.minimum(hosts, donors))

        above, below = (table([k.weight * (k.side == sign) for k in members]) for sign in (1, -1))
        differ = fewest(above + below, lambda totals: (totals > 0).sum(0))
        heavy = [np.where(part.any(0), fewest(part, effective_number), np.inf) for part in (above, below)]
        return cls(clustered, differ, np.minimum(*heavy))

    def variance(self, part: int) -> Floats:
        """Variances [member] of the means (0), the plus parts (1) or the minus parts (2)."""
        m = len(self.differ)
        return np.diag(self.clustered.covariance)[part * m : (part + 1) * m]

    def proportions(self, members: Sequence[_Member]) -> Proportions:
        """The members as shares less shares; what is said of real-valued ones has no meaning."""
        m, found = len(members), self.clustered
        plus, minus = (np.array([getattr(k, name) for k in members]) for name in ("plus", "minus"))
        counted = np.array([k.sample.kind == "difference" for k in members])
        flat = np.array([not k.side.any() for k in members])
        scale = np.sqrt(self.variance(1) * self.variance(2))
        cross = np.diagonal(found.covariance[m : 2 * m, 2 * m :])
        # Only what lengthens an interval counts: few events cannot show a positive correlation, and a share and its
        # chance level rise with the same events (in a null world of 24 hosts one run in five then showed adoption).
        correlation = np.clip(np.divide(cross, scale, out=np.zeros(m), where=scale > 0), -1.0, 0.0)
        # Where every cell is lost, or every one gained, what one share falls short the other may have.
        correlation = np.where(flat & counted & (plus + minus > 0), -1.0, correlation)
        n_hosts, n_donors = found.n_hosts, found.n_donors
        return Proportions(
            plus=np.clip(plus, 0.0, 1.0),
            minus=minus,
            v_plus=self.variance(1),
            v_minus=self.variance(2),
            correlation=correlation,
            counted=counted,
            flat=flat,
            differ=self.differ,
            cells=np.array([1 / (k.weight**2).sum() for k in members]),
            units=np.where(n_donors > 0, np.minimum(n_hosts, n_donors), n_hosts),
            df=found.df,
        )


def family_bounds(samples: Sequence[Sample], *, alpha: float = 0.05) -> list[Bounds]:
    """Estimates of the members of one family, each with its interval alone and with the one that holds for all.

    A member whose effect is 0 by construction does not belong in the family: leave it out. Members that can have no
    verdict (no cells, one host, too small) do not widen the intervals of the others.

    Args:
        samples: The members, for example the single slots of one method, downstream rule and stratum.
        alpha: Error of each interval alone, and of all simultaneous ones together.

    Returns:
        One `Bounds` per member, in order.

    Raises:
        AnalysisError: A difference or a share has a value that it cannot have.
    """
    members = [_Member.of(sample) for sample in samples]
    found = iter(_bounds([member for member in members if member is not None], alpha))
    nan = np.nan
    nothing = Bounds(no_cells(), nan, nan, nan, nan, "", True, no_cells().note)
    return [nothing if member is None else next(found) for member in members]


def _bounds(members: Sequence[_Member], alpha: float) -> list[Bounds]:
    if not members:
        return []
    m, joint = len(members), _Joint.of(members)
    value = np.array([k.plus - k.minus for k in members])
    estimates = estimates_of(value, joint.clustered)
    se, df, p = (np.array([getattr(e, name) for e in estimates]) for name in ("se", "df", "p"))
    small = _too_small(joint.clustered)
    counted = (se >= 0) & (~small | small.all())
    levels = (alpha, _family_level(joint.clustered.covariance[:m, :m], se, df, counted, alpha))
    varied = np.array([k.side.any() for k in members])
    by_t = np.array([k.sample.kind == "real" for k in members]) | ((joint.heavy >= FEW) & varied)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = [np.where(se > 0, -special.stdtrit(df, level / 2) * se, np.nan) for level in levels]
        ends = [end for h in half for end in (value - h, value + h)]
        if not by_t.all():
            shares = joint.proportions(members)
            other = [end for level in levels for end in shares.bounds(np.full(m, level))]
            ends = [np.where(by_t, mine, theirs) for mine, theirs in zip(ends, other, strict=True)]
            p = np.where(by_t, p, shares.p_values())
    return [
        _one(k, e, [float(end[i]) for end in ends], float(p[i]), bool(by_t[i]), int(joint.differ[i]), bool(small[i]))
        for i, (k, e) in enumerate(zip(members, estimates, strict=True))
    ]


def _one(member: _Member, est: Estimate, ends: list[float], p: float, by_t: bool, differ: int, small: bool) -> Bounds:
    """One member's bounds, cut to the possible range, with the reason for its method."""
    sample, method, note = member.sample, "two-way t", est.note
    if not est.se >= 0 or (by_t and est.se == 0):
        return Bounds(replace(est, low=np.nan, high=np.nan, p=np.nan), *(np.nan,) * 4, "", True, note)
    if not by_t and not member.side.any():
        method, note = "exact", "every cell is equal: exact bounds"
    elif not by_t:
        who = "host or donor" if differ == 1 else "hosts or donors"
        method, note = "proportions", f"few differ ({differ} {who}): interval of proportions"
    never_negative = sample.kind == "share" and sample.null == 0 and sample.null_influence is None
    bottom = -np.inf if sample.kind == "real" else 0.0 if never_negative else -1.0
    low, high, sim_low, sim_high = (float(np.clip(end, bottom, -bottom if bottom else 1.0)) for end in ends)
    n = int((member.weight > 0).sum())  # draws of one host included, which share a row of the joint table
    estimate = replace(est, low=low, high=high, p=np.nan if never_negative else p, n=n, note=note)
    return Bounds(estimate, low, high, sim_low, sim_high, method, small, note)


def _too_small(found: Clustered) -> np.ndarray:
    return (found.n_hosts < MIN_HOSTS) | ((found.n_donors > 0) & (found.n_donors < MIN_DONORS))


def _family_level(covariance: Floats, se: Floats, df: Floats, counted: np.ndarray, alpha: float) -> float:
    """The level of each member within the family; those without variation count as independent of the others."""
    if not counted.any():
        return alpha
    varies = counted & (se > 0)
    known = np.where(np.outer(varies, varies), covariance, 0.0)
    known[np.diag_indices(len(known))] = np.where(varies, np.diag(known), 1.0)
    return simultaneous_level(known[np.ix_(counted, counted)], float(df[varies].min(initial=np.inf)), alpha)
