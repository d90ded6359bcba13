"""Do two methods agree on which slots matter? Swap against each ablation, with a ceiling, intervals and a verdict."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pandas as pd
from scipy import stats

from thoughtgraft.analysis.cells import Cells, paired
from thoughtgraft.analysis.clustered import group_totals
from thoughtgraft.analysis.estimate import TOO_SMALL
from thoughtgraft.analysis.frame import Frame, as_frame
from thoughtgraft.analysis.intervals import MIN_DONORS, MIN_HOSTS
from thoughtgraft.analysis.permutation import exact_correlation_p
from thoughtgraft.analysis.power import correlation_power, critical_correlation
from thoughtgraft.analysis.profiles import Interval, Joint, Profile, correlate, joint, percentile, rank_correlate
from thoughtgraft.analysis.resampling import family_rng, multiplicities
from thoughtgraft.analysis.rule import RULE, Rule
from thoughtgraft.analysis.verdicts import Agreement, agreement_verdict

AT_LEAST_1 = "at least 1: the profiles' noise exceeds their difference"
OTHERS = ("mean", "zero", "skip", "noise")
COLUMNS = (
    "method_a", "method_b", "slots", "n_slots", "n_hosts", "n_donors", "r", "r_low", "r_high", "rho", "rho_low",
    "rho_high", "critical_r", "power_at_half", "p_exact_exploratory", "reliability_a", "reliability_b", "ceiling",
    "r_disattenuated", "r_dis_low", "r_dis_high", "interaction_f", "interaction_p", "verdict", "note",
)  # fmt: skip
_AT_ONCE = 400_000  # host means that are held at once


@dataclass(frozen=True)
class Interaction:
    """Test that two methods' profiles differ by more than a constant: F with (df1, df2) degrees of freedom."""

    f: float
    df1: float
    df2: float
    p: float


def position_by_method(first: list[Cells], second: list[Cells]) -> Interaction:
    """Position x method interaction on the difference of paired losses, with host- and donor-clustered covariance.

    Per cell, z_k = loss under the first method at slot k - loss under the second, less its mean over slots; a
    Hotelling-type F of "every z_k is 0 on average". The covariance is V_host + V_donor without subtracting V_cell:
    a little too large, but never indefinite.

    Args:
        first: Arms of one method, one per slot, all with the same cells.
        second: Arms of the other, likewise.
    """
    columns = []
    base = first[0]
    for a, b in zip(first, second, strict=True):
        left, right = paired(a, b)
        column = np.full(len(base), np.nan)
        # Cells are sorted by pair; one that the first arm lacks (a failure there) has no place.
        place = np.minimum(np.searchsorted(base.pair, a.pair[left]), len(base) - 1)
        known = base.pair[place] == a.pair[left]
        column[place[known]] = (a.difference[left] - b.difference[right])[known]
        columns.append(column)
    z = np.stack(columns, axis=1)
    whole = np.isfinite(z).all(1)
    z, host, donor = z[whole], base.host[whole], base.donor[whole]
    k = z.shape[1]
    contrast = z[:, :-1] - z[:, 1:]
    weight = base.weight[whole] / base.weight[whole].sum() if whole.any() else base.weight[whole]
    mean = weight @ contrast
    u = weight[:, None] * (contrast - mean)
    covariance = np.zeros((k - 1, k - 1))
    sizes = []
    for ids in (host, donor) if base.has_donors else (host,):
        totals = group_totals(u, ids)
        sizes.append(len(totals))
        if len(totals) > 1:
            covariance += totals.T @ totals * len(totals) / (len(totals) - 1)
    return _hotelling(mean, covariance, min(sizes, default=0) - 1)


def _hotelling(mean: np.ndarray, covariance: np.ndarray, df: int) -> Interaction:
    """F of "the mean is 0" where it varies; slots that both methods leave alone in every cell say nothing against it.

    Undefined with too few degrees of freedom, or where a mean that is not 0 does not vary.
    """
    values, vectors = np.linalg.eigh(covariance)
    varies = values > 1e-12 * max(float(values.max(initial=0.0)), 1e-12)
    q, along = int(varies.sum()), vectors.T @ mean
    if df < 1 or df - q + 1 < 1 or (np.abs(along[~varies]) > 1e-9).any():
        return Interaction(np.nan, q, np.nan, np.nan)
    if q == 0:
        return Interaction(0.0, 0, df, 1.0)
    f = float((along[varies] ** 2 / values[varies]).sum()) * (df - q + 1) / (df * q)
    return Interaction(f, q, df - q + 1, float(stats.f.sf(f, q, df - q + 1)))


def _shared_cells(arms: Sequence[Cells]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses of the cells that every arm has, shape [cell, slot], and each one's host and donor."""
    pairs = reduce(np.intersect1d, [arm.pair for arm in arms])
    rows = [np.flatnonzero(np.isin(arm.pair, pairs, assume_unique=True)) for arm in arms]
    values = np.stack([arm.difference[row] for arm, row in zip(arms, rows, strict=True)], axis=1)
    return values, arms[0].host[rows[0]], arms[0].donor[rows[0]]


def _profiles(a: Sequence[Cells], b: Sequence[Cells], n_hosts: int) -> tuple[Profile, Profile, int]:
    """The swap's profile by cell and the ablation's by host, on the hosts that have both; and the number of donors."""
    values, host, donor = _shared_cells(a)
    means = np.stack([c.host_mean(c.difference, n_hosts) for c in b], axis=1)
    both = np.isfinite(means).all(1) & np.isin(np.arange(n_hosts), host)
    place = np.cumsum(both) - 1
    kept = both[host]
    donors, donor = np.unique(donor[kept], return_inverse=True)
    swap = Profile(values[kept], place[host[kept]], donor)
    return swap, Profile(means[both], np.arange(int(both.sum())), None), len(donors)


def _resampled(swap: Profile, other: Profile, n_donors: int, rng: np.random.Generator, resamples: int) -> Joint:
    """Both profiles in resamples of hosts and, independently, of donors; the first entry is the sample itself."""
    n = len(other.host)
    hosts = np.concatenate([np.ones((1, n)), multiplicities(n, resamples, rng)]).T
    donors = np.concatenate([np.ones((1, n_donors)), multiplicities(n_donors, resamples, rng)]).T
    step = max(1, _AT_ONCE // (n * swap.values.shape[1]))
    parts = []
    for start in range(0, resamples + 1, step):
        chosen = hosts[:, start : start + step], donors[:, start : start + step]
        parts.append(joint(swap.drawn(*chosen), other.drawn(*chosen)))
    first, second, dis = (np.concatenate([getattr(p, f) for p in parts]) for f in ("first", "second", "disattenuated"))
    return Joint(first, second, dis, parts[0].reliability)


def _cut(found: Interval) -> Interval:
    """A disattenuated r and its interval as people can read them: none is above 1."""
    if not found.value > 1:
        return replace(found, high=min(found.high, 1.0), low=min(found.low, 1.0))
    note = "; ".join(x for x in (found.note, AT_LEAST_1) if x)
    return Interval(1.0, min(found.low, 1.0), min(found.high, 1.0), note)


def _row(
    frame: Frame, other: str, null_slots: Collection[int], seed: int, resamples: int, rule: Rule
) -> dict[str, object] | None:
    arms_a, arms_b = frame.singles("swap", "recompute", frame.primary_stratum()), frame.singles(other)
    slots = [slot for slot in arms_a if slot in arms_b and slot not in null_slots]
    if len(slots) < 3:
        return None
    a, b = [arms_a[s] for s in slots], [arms_b[s] for s in slots]
    swap, ablation, n_donors = _profiles(a, b, len(frame.hosts))
    n = len(ablation.host)
    if not n:
        return None
    drawn = _resampled(swap, ablation, n_donors, family_rng(seed, "agreement", other), resamples)
    level = 1 - rule.alpha
    raw, ranks = correlate(drawn.first, drawn.second), rank_correlate(drawn.first, drawn.second)
    named = ((raw, "r"), (ranks, "rho"), (drawn.disattenuated, "the disattenuated r"))
    r, rho, dis = (percentile(float(x[0]), x[1:], what, level) for x, what in named)
    dis = _cut(dis)
    rel_a, rel_b = (float(x[0]) for x in drawn.reliability)
    ceiling = float(np.sqrt(rel_a * rel_b)) if rel_a > 0 and rel_b > 0 else np.nan
    test = position_by_method(a, b)
    small = n < MIN_HOSTS or n_donors < MIN_DONORS
    said = Agreement.UNRESOLVED if small else agreement_verdict(
        dis.low, dis.high, rule.agreement_bar, test.p, rule.alpha
    )  # fmt: skip
    notes = list(dict.fromkeys(part.note for part in (r, rho, dis) if part.note))
    notes += [] if np.isfinite(ceiling) else ["a profile is not reliable: no ceiling"]
    notes += (
        [] if np.isfinite(test.p) else ["interaction undefined: too few clusters, or a difference without variation"]
    )
    notes += [TOO_SMALL] if small else []
    notes.append(f"no p-value on {len(slots)} means; the exact permutation p is exploratory")
    figures = (r.value, r.low, r.high, rho.value, rho.low, rho.high)
    limits = (critical_correlation(len(slots)), correlation_power(0.5, len(slots)))
    values = (
        "swap", other, ", ".join(frame.label((s,)) for s in slots), len(slots), n, n_donors, *figures, *limits,
        exact_correlation_p(drawn.first[0], drawn.second[0]), rel_a, rel_b, ceiling, dis.value, dis.low, dis.high,
        test.f, test.p, said, "; ".join(notes),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def agreement_table(
    records: pd.DataFrame | Frame,
    *,
    seed: int = 0,
    resamples: int = 2_000,
    null_slots: Collection[int] = (),
    rule: Rule = RULE,
) -> pd.DataFrame:
    """Swap against mean, zero, skip and noise: one row per ablation that was run at three slots or more.

    r and rho compare the two methods' mean impacts over slots; their intervals, and that of the disattenuated r,
    resample hosts jointly for both methods and, independently, donors (Owen 2007, The pigeonhole bootstrap). The
    verdict rests on the disattenuated r and the interaction, never on a p-value of six means.

    Args:
        records: Records or their frame.
        seed: Seeds the resampling.
        resamples: Number of resamples.
        null_slots: 0-based slots whose effect is 0 by construction: they are no evidence of agreement.
        rule: Gives the intervals their level, and the bar.

    Returns:
        The columns of `COLUMNS`. A disattenuated r above 1 is given as 1, with a note that says so.
    """
    frame = as_frame(records)
    rows = [row for other in OTHERS if (row := _row(frame, other, null_slots, seed, resamples, rule)) is not None]
    return pd.DataFrame(rows, columns=list(COLUMNS))
