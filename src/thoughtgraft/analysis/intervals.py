"""Intervals of a family of means, one by one and all together: what every verdict is made from.

Graded answers that differ in many hosts and donors, and real values: the two-way clustered t. Graded answers that
differ in few: intervals of proportions. In none: the exact bound. Each is made twice, at alpha and at the level at
which the whole family holds (max-t). docs/statistics.md has the formulas, and the simulation that says where they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special

from thoughtgraft.analysis.cells import Floats, Ints
from thoughtgraft.analysis.clustered import (
    Clustered,
    Estimate,
    effective_number,
    estimates_of,
    group_totals,
    no_cells,
    twoway,
)
from thoughtgraft.analysis.multiplicity import simultaneous_level
from thoughtgraft.analysis.proportions import FEW, Proportions
from thoughtgraft.errors import AnalysisError

MIN_HOSTS, MIN_DONORS = 20, 5
"""Smaller designs are too small for a verdict (docs/statistics.md)."""


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
