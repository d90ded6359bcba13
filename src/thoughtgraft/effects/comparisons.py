"""Comparisons of arms: contrasts, mediation, dose, and whether two methods tell one story of the slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from thoughtgraft.edits.known import Mean, Noise, Skip, Swap, Zero
from thoughtgraft.effects.frame import PLACE, Cells, Frame, arm_table, as_frame, paired, reaches_end
from thoughtgraft.effects.gates import NOTHING_KNOWN, Known
from thoughtgraft.effects.positions import impact
from thoughtgraft.records.schema import Family
from thoughtgraft.stats.clustered import Estimate, group_totals
from thoughtgraft.stats.intervals import MIN_DONORS, MIN_HOSTS, TOO_SMALL, Sample, family_bounds
from thoughtgraft.stats.paired import Interval, Joint, Profile, correlate, joint, percentile, rank_correlate
from thoughtgraft.stats.power import correlation_power, critical_correlation
from thoughtgraft.stats.resampling import exact_correlation_p, family_rng, holm, multiplicities
from thoughtgraft.stats.verdicts import Agreement, agreement_verdict

FREEZES = ("freeze_input", "freeze_kv")


def paired_differences(pairs: Sequence[tuple[Cells, Cells]]) -> list[Estimate]:
    """Means of (first's accuracy loss - second's) over the cells both have, as fractions, each with its 95% interval.

    Args:
        pairs: Two arms each.
    """
    samples = []
    for first, second in pairs:
        left, right = paired(first, second)
        # The baseline is the same, so that the difference of two losses is that of two grades.
        values = second.correct[right] - first.correct[left]
        donor = first.donor[left] if first.has_donors else None
        samples.append(Sample(values, first.host[left], donor, first.weight[left], "difference"))
    return [bounds.estimate for bounds in family_bounds(samples)]


def paired_difference(first: Cells, second: Cells) -> Estimate:
    """That of two arms."""
    return paired_differences([(first, second)])[0]


def contrast_table(records: pd.DataFrame | Frame) -> pd.DataFrame:
    """Every pair of single slots within one method, downstream and stratum: impact of slot_a - impact of slot_b.

    Returns:
        Columns method, site_kind, site_layer, downstream, donor_stratum, slot_a, slot_b (0-based), label ("CT0 − CT3"),
        difference_pp, ci_low, ci_high, se, n_hosts, n_donors, n_pairs, p, p_holm (over the family's pairs, 15 for six
        slots), note.
    """
    frame = as_frame(records)
    rows = []
    for family in frame.families():
        pairs = list(combinations(frame.singles(family).items(), 2))
        found = paired_differences([(first, second) for (_, first), (_, second) in pairs])
        adjusted = holm(np.array([est.p for est in found], dtype=float))
        for ((a, first), (b, second)), est, p_holm in zip(pairs, found, adjusted, strict=True):
            label = f"{first.arm.place()} − {second.arm.place()}"
            row = frame.columns(first.arm) | {"slot_a": a, "slot_b": b, "label": label}
            row |= {"difference_pp": 100 * est.value, "ci_low": 100 * est.low, "ci_high": 100 * est.high}
            row |= {"se": 100 * est.se, "n_hosts": est.n_hosts, "n_donors": est.n_donors, "n_pairs": est.n}
            rows.append(row | {"p": est.p, "p_holm": p_holm, "note": est.note})
    names = "method site_kind site_layer downstream donor_stratum slot_a slot_b label difference_pp ci_low ci_high se"
    return arm_table(rows, [*names.split(), "n_hosts", "n_donors", "n_pairs", "p", "p_holm", "note"])


def mediation_table(records: pd.DataFrame | Frame) -> pd.DataFrame:
    """Total, direct and indirect effect of each edit (pp), from the arms that freeze what follows it.

    Total = recompute; direct = the same edit with the later slots held at the host's clean values; indirect = total
    - direct on the same pairs (Pearl 2001; Vig et al. 2020 for language models). Where no unedited slot follows the
    edit, freezing changes nothing and the indirect effect is 0 by construction, and marked so.

    Returns:
        One row per edit, donors, slot set and freeze, with the columns `PLACE` but `downstream`, `freeze` in its place,
        total_pp, direct_pp, indirect_pp, each with _low and _high, indirect_p and indirect_p_holm (over the single
        slots), counts, by_construction and note.
    """
    frame = as_frame(records)
    frozen = {key.family for key in frame.arms if key.after in FREEZES}
    rows: list[dict[str, object]] = []
    for held in sorted(frozen, key=lambda family: (family.name, family.donors, family.after)):
        family = held._replace(after="recompute")
        made = []
        for key in [key for key in frame.arms if key.family == family and key.slots]:
            total, direct = frame.get(family, key.slots), frame.get(held, key.slots)
            last = reaches_end(key.slots, frame.n_slots)
            if total is not None and (last or direct is not None):
                made.append(_mediated(frame, total, total if last or direct is None else direct, held.after, last))
        tested = [row for row in made if len(row["slots"]) == 1 and not row["by_construction"]]
        for row, p in zip(tested, holm(np.array([row["indirect_p"] for row in tested], dtype=float)), strict=True):
            row["indirect_p_holm"] = p
        rows += made
    names = "freeze n_hosts n_donors n_pairs total_pp total_low total_high direct_pp direct_low direct_high indirect_pp"
    names += " indirect_low indirect_high indirect_p indirect_p_holm by_construction note"
    return arm_table(rows, [*(name for name in PLACE if name != "downstream"), *names.split()])


def _mediated(frame: Frame, total: Cells, direct: Cells, freeze: str, last: bool) -> dict[str, Any]:
    """One row: an edit's total effect, its direct one, and the difference, which is 0 where no slot follows."""
    row: dict[str, Any] = frame.columns(total.arm) | {"freeze": freeze, "n_hosts": total.n_hosts}
    row |= {"n_donors": total.n_donors, "n_pairs": len(total), "indirect_p_holm": np.nan, "by_construction": last}
    effects = {"total": impact(total), "direct": impact(direct)}
    effects |= {} if last else {"indirect": paired_difference(total, direct)}
    notes = []
    for name, est in effects.items():
        row |= {f"{name}_pp": 100 * est.value, f"{name}_low": 100 * est.low, f"{name}_high": 100 * est.high}
        notes += [f"{name}: {est.note}"] if est.note else []
    if last:
        row |= {"indirect_pp": 0.0, "indirect_low": np.nan, "indirect_high": np.nan, "indirect_p": np.nan}
        notes.append("no slot follows: indirect is 0 by construction")
    else:
        row |= {"indirect_p": effects["indirect"].p, "n_pairs": effects["indirect"].n}
    return row | {"note": "; ".join(notes)}


def dose_table(records: pd.DataFrame | Frame) -> pd.DataFrame:
    """Accuracy against the number of slots edited, from the first slot on and back from the last.

    Returns:
        The columns `PLACE`, series ("from first": CT0..k; "to last": k..last), n_slots, acc (fraction), impact_pp,
        ci_low, ci_high, step_pp (this dose - the one before, on the same pairs; the dose before the first is no edit),
        step_low, step_high, step_p, n_hosts, n_gen, note.
    """
    frame = as_frame(records)
    sizes = range(1, frame.n_slots + 1)
    series = {"from first": [frame.every[:n] for n in sizes], "to last": [frame.every[-n:] for n in sizes]}
    rows: list[dict[str, object]] = []
    for family in frame.families():
        for name, sets in series.items():
            arms = [frame.get(family, slots) for slots in sets]
            # A single slot alone is no dose-response.
            if sum(arm is not None for arm in arms) < 2:
                continue
            for n, (before, arm) in enumerate(pairwise([None, *arms]), start=1):
                if arm is not None:
                    rows.append(frame.columns(arm.arm) | {"series": name, "n_slots": n} | _dosed(arm, before, n))
    names = "series n_slots acc impact_pp ci_low ci_high step_pp step_low step_high step_p n_hosts n_gen note"
    return arm_table(rows, [*PLACE, *names.split()])


def _dosed(arm: Cells, before: Cells | None, n: int) -> dict[str, object]:
    """The effect of a dose of n slots, and its step beyond the dose before it."""
    est = impact(arm)
    step = est if n == 1 else paired_difference(arm, before) if before is not None else None
    row: dict[str, object] = {"acc": float(arm.weight @ arm.correct), "impact_pp": 100 * est.value}
    row |= {"ci_low": 100 * est.low, "ci_high": 100 * est.high, "n_hosts": arm.n_hosts, "n_gen": len(arm)}
    if step is None:
        nothing = dict.fromkeys(("step_pp", "step_low", "step_high", "step_p"), np.nan)
        return row | nothing | {"note": "the dose before it was not run"}
    steps = {"step_pp": 100 * step.value, "step_low": 100 * step.low, "step_high": 100 * step.high, "step_p": step.p}
    return row | steps | {"note": est.note}


AT_LEAST_1 = "at least 1: the profiles' noise exceeds their difference"
OTHERS = tuple(edit.name for edit in (Mean, Zero, Skip, Noise))
"""The ablations whose profile over slots is compared with the swaps'."""
COLUMNS = (
    "method_a", "method_b", "label", "slots", "n_slots", "n_hosts", "n_donors", "r", "r_low", "r_high", "rho",
    "rho_low", "rho_high", "critical_r", "power_at_half", "p_exact_exploratory", "reliability_a", "reliability_b",
    "ceiling", "r_disattenuated", "r_dis_low", "r_dis_high", "interaction_f", "interaction_p", "verdict", "note",
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


def _row(frame: Frame, other: str, seed: int, resamples: int, known: Known) -> dict[str, object] | None:
    rule = known.rule
    arms_a, arms_b = frame.singles(frame.primary), frame.singles(Family(other))
    slots = [slot for slot in arms_a if slot in arms_b and slot not in known.null_slots]
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
    label = ", ".join(cells.arm.place() for cells in a)
    values = (
        Swap.name, other, label, tuple(slots), len(slots), n, n_donors, *figures, *limits,
        exact_correlation_p(drawn.first[0], drawn.second[0]), rel_a, rel_b, ceiling, dis.value, dis.low, dis.high,
        test.f, test.p, said, "; ".join(notes),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def agreement_table(
    records: pd.DataFrame | Frame,
    *,
    seed: int = 0,
    resamples: int = 2_000,
    known: Known = NOTHING_KNOWN,
) -> pd.DataFrame:
    """Swap against mean, zero, skip and noise: one row per ablation that was run at three slots or more.

    r and rho compare the two methods' mean impacts over slots; their intervals, and that of the disattenuated r,
    resample hosts jointly for both methods and, independently, donors (Owen 2007, The pigeonhole bootstrap). The
    verdict rests on the disattenuated r and the interaction, never on a p-value of six means.

    Args:
        records: Records or their frame.
        seed: Seeds the resampling.
        resamples: Number of resamples.
        known: The rule, which gives the intervals their level, and the bar; and the slots whose effect is 0 by
            construction: they are no evidence of agreement.

    Returns:
        The columns of `COLUMNS`. A disattenuated r above 1 is given as 1, with a note that says so.
    """
    frame = as_frame(records)
    rows = [row for other in OTHERS if (row := _row(frame, other, seed, resamples, known)) is not None]
    return pd.DataFrame(rows, columns=list(COLUMNS))
