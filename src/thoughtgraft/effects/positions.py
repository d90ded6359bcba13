"""The position table: what each arm did to accuracy, answers and log-probabilities; adoption and its null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from thoughtgraft.edits.edit import change_of
from thoughtgraft.edits.known import Noop
from thoughtgraft.effects.frame import PLACE, Cells, Frame, arm_table, as_frame
from thoughtgraft.effects.gates import NOTHING_KNOWN, Known, Rule
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.stats.clustered import Estimate, clustered_mean
from thoughtgraft.stats.intervals import TOO_SMALL, Bounds, Sample, family_bounds
from thoughtgraft.stats.power import detectable_pp, exact_upper_bound, power_within
from thoughtgraft.stats.resampling import family_rng, holm, multiplicities, sign_flip_max_t
from thoughtgraft.stats.verdicts import Verdict, verdict

COLUMNS = (
    *PLACE, "n_hosts", "n_donors", "n_gen", "base_acc", "acc",
    "impact_pp", "ci_low", "ci_high", "sim_low", "sim_high", "verdict", "se_host", "se_donor", "se_twoway", "lost",
    "gained", "impact_given_correct_pp", "impact_given_correct_ci_low", "impact_given_correct_ci_high",
    "impact_given_correct_sim_low", "impact_given_correct_sim_high", "impact_given_correct_verdict", "n_hosts_right",
    "changed_rate",
    "adoption_rate", "adoption_null", "adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high",
    "adoption_excess_sim_low", "adoption_excess_sim_high", "adoption_excess_verdict", "adoption_p_holm", "n_eligible",
    "dlogp", "dlogp_ci_low", "dlogp_ci_high", "dlogp_sim_low", "dlogp_sim_high", "kl", "p", "p_holm", "p_maxT",
    "mde80_pp", "power_within", "zero_bound_pp", "interval", "n_failed", "note",
)  # fmt: skip
VERDICTS = ("verdict", "impact_given_correct_verdict", "adoption_excess_verdict")
DEAD = "no vector put into this slot reaches the answer: its effect is 0 by construction"
SHARED = "every problem is fed the same vector here, so that this edit is the identity"
STILL = "not even a logit moved in any cell: nothing reads this vector, and its effect is 0 by construction"
OF_IMPACT, OF_GIVEN, OF_EXCESS = "impact: ", "given correct: ", "adoption: "
"""How notes on one of a row's estimates begin."""
_KEPT = (*PLACE, "n_hosts", "n_donors", "n_gen", "base_acc", "acc", "n_failed")
# What a slot that nothing was seen to read still has: counts and shares, all of them 0 or clean, and no interval.
_MEASURED = (
    *_KEPT, "impact_pp", "lost", "gained", "impact_given_correct_pp", "n_hosts_right", "changed_rate", "dlogp", "kl",
)  # fmt: skip


def _sample(cells: Cells, values: np.ndarray, kind: str, kept: np.ndarray | None = None) -> Sample:
    rows = slice(None) if kept is None else kept
    donor = cells.donor[rows] if cells.has_donors else None
    return Sample(values[rows], cells.host[rows], donor, cells.weight[rows], kind)  # type: ignore[arg-type]


def arm_mean(cells: Cells, values: np.ndarray) -> Estimate:
    """Mean over hosts of `values` [cell], two-way clustered where the arm has donors, else by host."""
    return clustered_mean(values, cells.host, cells.donor if cells.has_donors else None, cells.weight)


def impact(cells: Cells, alpha: float = 0.05) -> Estimate:
    """Accuracy lost by one arm, paired by host, as a fraction, with its own interval at the level 1 - alpha."""
    return family_bounds([_sample(cells, cells.difference, "difference")], alpha=alpha)[0].estimate


def still(cells: Cells) -> bool:
    """Whether not even the logits moved in any cell: the edited vector is read by nothing."""
    measured = np.isfinite(cells.kl) | np.isfinite(cells.dlogp)
    unmoved = (np.nan_to_num(cells.kl) == 0) & (np.nan_to_num(cells.dlogp) == 0) & (cells.changed == 0)
    return bool(len(cells)) and bool(measured.all() and unmoved.all())


def by_construction(arm: ArmKey, known: Known) -> str:
    """Why an arm's effect is 0 whatever the model learned; "" where it is not."""
    if arm.site is None or change_of(arm.method).checks:
        return ""
    if set(arm.slots) <= set(known.dead_slots):
        return DEAD
    # What is fed may be alike where the streams above it are not: they have read the question.
    alike = arm.site.kind == "fed" and change_of(arm.method).of_others and set(arm.slots) <= known.null_slots
    return SHARED if alike else ""


@dataclass(frozen=True)
class _Effects:
    """One arm's estimates, each with its interval alone and in its family."""

    impact: Bounds
    given: Bounds
    dlogp: Bounds
    adopted: Adoption | None
    excess: Bounds | None


def _effects(frame: Frame, family: Sequence[Cells], alpha: float) -> list[_Effects]:
    impacts = family_bounds([_sample(c, c.difference, "difference") for c in family], alpha=alpha)
    givens = family_bounds([_sample(c, 1 - c.correct, "share", c.base_correct == 1) for c in family], alpha=alpha)
    dlogps = family_bounds([_sample(c, c.dlogp, "real") for c in family], alpha=alpha)
    if not family[0].arm.donors:
        return [_Effects(*one, None, None) for one in zip(impacts, givens, dlogps, strict=True)]
    shape = len(frame.hosts), len(frame.donors)
    taken = [adoption(c, donor_answers(c, *shape)) for c in family]
    return [_Effects(*one) for one in zip(impacts, givens, dlogps, taken, adoption_bounds(taken, alpha), strict=True)]


def _columns(name: str, bounds: Bounds, scale: float) -> dict[str, float]:
    ends = {"ci_low": bounds.low, "ci_high": bounds.high, "sim_low": bounds.sim_low, "sim_high": bounds.sim_high}
    return {f"{name}{end}": scale * value for end, value in ends.items()}


def _judge(bounds: Bounds, rule: Rule) -> Verdict:
    return verdict(bounds.sim_low, bounds.sim_high, rule.margin, too_small=bounds.too_small)


def _notes(frame: Frame, cells: Cells, found: _Effects) -> list[str]:
    """Every NaN in a row has its reason here, and every verdict that a small design cannot give."""
    notes = []
    for name, bounds in ((OF_IMPACT, found.impact), (OF_GIVEN, found.given), (OF_EXCESS, found.excess)):
        if bounds is None:
            notes.append("no donors: adoption undefined")
            continue
        empty = bounds is found.given and not bounds.estimate.n
        notes += [name + "no host is right at baseline"] if empty else [name + bounds.note] if bounds.note else []
        notes += [name + TOO_SMALL] if bounds.too_small and np.isfinite(bounds.sim_low) else []
    if cells.n_failed:
        notes.append(f"{cells.n_failed} failed cells left out")
    if cells.n_hosts < len(frame.hosts):
        notes.append(f"covers {cells.n_hosts} of {len(frame.hosts)} hosts")
    if np.isnan(found.dlogp.estimate.value):
        notes.append("no log-probabilities in the records")
    return notes


def _blank(frame: Frame, cells: Cells) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan) | frame.columns(cells.arm)
    row |= {"n_failed": cells.n_failed, "n_gen": len(cells), "interval": "", "note": ""}
    row |= {"n_hosts": cells.n_hosts, "n_donors": cells.n_donors, "lost": 0, "gained": 0}
    row |= dict.fromkeys(VERDICTS, Verdict.UNDEFINED)
    return row


def _row(frame: Frame, cells: Cells, found: _Effects, rule: Rule) -> dict[str, Any]:
    """One row of the table, without the columns that depend on other arms (p_holm, p_maxT)."""
    effect = found.impact.estimate
    notes = _notes(frame, cells, found)
    # Rounded far below 1 / n_gen, so that the one baseline prints as one number whatever the weights' rounding.
    accuracies = [round(float(cells.weight @ right), 12) for right in (cells.base_correct, cells.correct)]
    row = _blank(frame, cells) | {"base_acc": accuracies[0], "acc": accuracies[1]}
    row |= {"impact_pp": 100 * effect.value, "interval": found.impact.method, "verdict": _judge(found.impact, rule)}
    row |= _columns("", found.impact, 100)
    row |= {"se_host": 100 * effect.se_host, "se_donor": 100 * effect.se_donor, "se_twoway": 100 * effect.se}
    row |= {"lost": int((cells.difference == 1).sum()), "gained": int((cells.difference == -1).sum())}
    row |= {"impact_given_correct_pp": 100 * found.given.estimate.value}
    row |= {"impact_given_correct_verdict": _judge(found.given, rule), "n_hosts_right": found.given.estimate.n_hosts}
    row |= _columns("impact_given_correct_", found.given, 100)
    row |= {"changed_rate": float(cells.weight @ cells.changed), "kl": arm_mean(cells, cells.kl).value}
    row |= {"dlogp": found.dlogp.estimate.value} | _columns("dlogp_", found.dlogp, 1)
    row |= {"p": effect.p, "mde80_pp": detectable_pp(effect.se, effect.df, alpha=rule.alpha)}
    if effect.se > 0 and np.isnan(row["mde80_pp"]):
        notes.append("no MDE: not even a loss of 100 pp would be found with 80% power")
    half = (found.impact.sim_high - found.impact.sim_low) / 2
    row |= {"power_within": power_within(effect.se, effect.df, rule.margin, half)}
    if effect.se == 0 and effect.value == 0:
        row["zero_bound_pp"] = 100 * exact_upper_bound(effect.units, rule.alpha)
    if found.adopted is not None and found.excess is not None:
        row |= {"adoption_rate": found.adopted.rate, "adoption_null": found.adopted.null}
        row |= {"adoption_excess": found.excess.estimate.value, "n_eligible": found.adopted.n_eligible}
        row |= _columns("adoption_excess_", found.excess, 1)
        row |= {"adoption_excess_verdict": _judge(found.excess, rule), "adoption_p_holm": found.excess.estimate.p}
    return row | {"note": "; ".join(notes)}


def _families(arms: Sequence[ArmKey], n_slots: int) -> list[list[ArmKey]]:
    """Arms whose intervals hold together: of one method, downstream and stratum, the single slots; all slots; others.

    All slots at once are one question by themselves; doses between one and all are a family of their own.
    """
    found: dict[tuple[object, ...], list[ArmKey]] = {}
    for key in arms:
        found.setdefault((key.family, key.span(n_slots)), []).append(key)
    return list(found.values())


def _max_t(frame: Frame, family: Sequence[Cells], seed: int, resamples: int) -> np.ndarray:
    means = np.stack([c.host_mean(c.difference, len(frame.hosts)) for c in family], axis=1)
    means = means[np.isfinite(means).all(1)]
    return sign_flip_max_t(means, family_rng(seed, "maxT", *family[0].arm.family.seeds), resamples)


def position_table(
    records: pd.DataFrame | Frame,
    *,
    seed: int = 0,
    resamples: int = 9_999,
    known: Known = NOTHING_KNOWN,
) -> pd.DataFrame:
    """One row per edited arm, with the columns of `COLUMNS`.

    Args:
        records: Records, or the frame made of them.
        seed: Seeds the sign flips of p_maxT, the only random column.
        resamples: Number of sign vectors.
        known: The rule, and the slots whose effect is 0 by construction.

    Returns:
        Impacts, standard errors and mde80 in percentage points; accuracies and rates as fractions (adoption too); dlogp
        and kl in nats. `ci_*` are unadjusted intervals, `sim_*` those that hold together over a family (the single
        slots of one method, downstream and stratum; all slots by themselves), clustered over hosts and donors (by host
        for arms without donors); every verdict column is `verdicts.verdict` of its own `sim_*` columns and the margin.
        `interval` names the method of the impact's interval. `p_holm` (and `adoption_p_holm`) cover the same family;
        `p_maxT` is conditional on the donors drawn. `power_within` is the power that such a run has to find an impact
        of 0 NEGLIGIBLE. What is undefined is NaN, and `note` says why; `zero_bound_pp` is the exact upper bound where
        every difference is 0. Rows whose effect is 0 by construction have no intervals and are in no family.

    Raises:
        AnalysisError: The records cannot be used; see `build_frame`.
    """
    frame = as_frame(records)
    arms = [key for key in frame.arms if key.slots or key.method == Noop.name]
    rule, why = known.rule, {key: by_construction(key, known) for key in arms}
    why |= {k: STILL for k in arms if not why[k] and not change_of(k.method).checks and still(frame.arms[k])}
    rows: dict[ArmKey, dict[str, Any]] = {}
    for family in _families([key for key in arms if len(frame.arms[key]) and not why[key]], frame.n_slots):
        cells = [frame.arms[key] for key in family]
        made = [_row(frame, c, found, rule) for c, found in zip(cells, _effects(frame, cells, rule.alpha), strict=True)]
        for name, p in (("p_holm", "p"), ("adoption_p_holm", "adoption_p_holm")):
            for row, adjusted in zip(made, holm(np.array([r[p] for r in made], dtype=float)), strict=True):
                row[name] = adjusted
        if len(family[0].slots) == 1:
            for row, p_max in zip(made, _max_t(frame, cells, seed, resamples), strict=True):
                row["p_maxT"] = p_max
        rows |= zip(family, made, strict=True)
    for key in arms:
        if key not in rows:
            rows[key] = _without_interval(frame, frame.arms[key], why[key], rule)
    return arm_table([rows[key] for key in arms], COLUMNS)


def _without_interval(frame: Frame, cells: Cells, why: str, rule: Rule) -> dict[str, Any]:
    """The row of an arm that is in no family: 0 by construction, or with no finished cell."""
    blank = _blank(frame, cells)
    if not len(cells):
        return blank | {"note": f"all {cells.n_failed} cells failed"}
    full = _row(frame, cells, _effects(frame, [cells], rule.alpha)[0], rule)
    kept = _MEASURED if why == STILL else _KEPT
    judged = dict.fromkeys(VERDICTS if cells.arm.donors else VERDICTS[:2], Verdict.BY_CONSTRUCTION)
    return blank | {"lost": np.nan, "gained": np.nan} | {name: full[name] for name in kept} | judged | {"note": why}


@dataclass(frozen=True)
class Adoption:
    """Shares (0..1) of eligible cells; `sample` is what the excess, rate - null, is estimated from.

    NaN, an empty sample and a `note` where there is nothing to estimate.
    """

    rate: float
    null: float
    n_eligible: int
    sample: Sample
    note: str = ""


def donor_answers(cells: Cells, n_hosts: int, n_donors: int) -> np.ndarray:
    """The answer that each donor offers each host, as codes, shape [host, donor]; -1 where it is not eligible.

    A donor's answer is eligible if it parsed and differs from both the host's clean answer and its gold answer:
    otherwise giving it would not show that the donor's was adopted. Undefined for the `same answer` stratum.
    """
    offered = np.full(n_donors, -1, dtype=np.int64)
    offered[cells.donor] = cells.donor_pred
    table = np.broadcast_to(offered, (n_hosts, n_donors)).copy()
    for own in (cells.base_pred, cells.gold):
        mine = np.full(n_hosts, -2, dtype=np.int64)
        mine[cells.host] = own
        table[table == mine[:, None]] = -1
    return table


def adoption(cells: Cells, offered: np.ndarray) -> Adoption:
    """Adoption rate, its permutation null, and the excess.

    The null is the rate when donors are exchanged between hosts (each host meeting the donors of the *other* hosts)
    and eligibility is applied again. It is computed in closed form, as matches / eligible pairs over all such
    exchanges: what drawing ever more permutations converges to, without their noise. Both ratios are linearised, and
    every exchange is charged to its host and to its donor, so that the interval includes the null's own error.

    Args:
        cells: One arm with donors.
        offered: Codes of what counts as adopted, shape [host of the run, donor of the run], -1 = not eligible;
            `donor_answers` for the donor's answer, or counterfactual answers.

    Returns:
        The shares, and the sample of the excess: eligible cells weigh alike.
    """
    n_hosts, n_donors = offered.shape
    eligible = offered >= 0
    own = eligible[cells.host, cells.donor]
    hit = own & (offered[cells.host, cells.donor] == cells.pred)
    n_own = int(own.sum())

    # others[h, d]: how many cells of other hosts use donor d, that is, how often an exchange brings d to h.
    met = np.zeros((n_hosts, n_donors))
    np.add.at(met, (cells.host, cells.donor), 1.0)
    others = np.where(eligible, met.sum(0) - met, 0.0)
    agrees = offered[cells.host] == cells.pred[:, None]
    match_row = (agrees * others[cells.host]).sum(1)
    pairs_row = others.sum(1)[cells.host]
    # The same pairs seen from the cell that lends its donor.
    per_host = np.zeros((n_hosts, n_donors))
    # Cells are sorted by host, so each host's are one block.
    hosts, first = np.unique(cells.host, return_index=True)
    per_host[hosts] = np.add.reduceat((agrees & eligible[cells.host]).astype(float), first, axis=0)
    size = np.bincount(cells.host, minlength=n_hosts).astype(float)
    reach = eligible * size[:, None]
    match_column = per_host.sum(0)[cells.donor] - per_host[cells.host, cells.donor]
    pairs_column = reach.sum(0)[cells.donor] - reach[cells.host, cells.donor]

    total_pairs = float(pairs_row.sum())
    rate = float(hit.sum() / n_own) if n_own else np.nan
    if n_own == 0 or total_pairs == 0:
        why = "no eligible donor answer" if n_own == 0 else "no other host's donor to compare with"
        return Adoption(rate, np.nan, n_own, _adoption_sample(cells, hit, np.zeros(len(cells))), why)
    null = float(match_row.sum() / total_pairs)
    influence = (match_row + match_column - null * (pairs_row + pairs_column)) / total_pairs
    return Adoption(rate, null, n_own, _adoption_sample(cells, hit, own.astype(float), null, influence))


def _adoption_sample(
    cells: Cells, hit: np.ndarray, own: np.ndarray, null: float = 0.0, influence: np.ndarray | None = None
) -> Sample:
    # Cells that are not eligible weigh nothing, but have their part in the null.
    return Sample(hit.astype(float), cells.host, cells.donor, own, "share", null, influence)


def adoption_bounds(family: Sequence[Adoption], alpha: float = 0.05) -> list[Bounds]:
    """Intervals of the excesses of one family.

    Where no cell adopted, nothing is tested and p is 1: the variances see the null's error only, and the p that they
    give would count against other slots in Holm's adjustment.
    """
    out = []
    for found, bounds in zip(family, family_bounds([one.sample for one in family], alpha=alpha), strict=True):
        if found.note:
            bounds = replace(bounds, note=found.note)
        elif found.rate == 0:
            estimate = replace(bounds.estimate, p=1.0)
            bounds = replace(bounds, estimate=estimate, note="none adopted: exact bounds")
        out.append(bounds)
    return out


@dataclass(frozen=True)
class BootstrapInterval:
    """Percentile interval and standard deviation of the resampled means, in the unit of the values."""

    value: float
    se: float
    low: float
    high: float
    resamples: int


def pigeonhole(
    values: np.ndarray,
    host: np.ndarray,
    donor: np.ndarray | None,
    rng: np.random.Generator,
    *,
    resamples: int = 2_000,
    level: float = 0.95,
) -> BootstrapInterval:
    """Interval of the mean from resampling hosts and donors independently.

    Each resample draws hosts and donors with replacement, and a cell counts as often as its host times its donor
    (Owen 2007, The pigeonhole bootstrap, Ann. Appl. Stat. 1(2)). It over-covers: the cell's own variation is counted
    about three times. Without donors it is the ordinary bootstrap over hosts.

    Args:
        values: One value per cell, finite.
        host: 0-based host of each cell.
        donor: 0-based donor of each cell, or None.
        rng: Source of the resamples.
        resamples: Number of resamples.
        level: Coverage wanted.
    """
    if not len(values):
        return BootstrapInterval(np.nan, np.nan, np.nan, np.nan, resamples)
    rows = np.unique(host, return_inverse=True)[1]
    columns = np.zeros_like(rows) if donor is None else np.unique(donor, return_inverse=True)[1]
    shape = (columns.max() + 1, rows.max() + 1)
    # Few of all hosts and donors ever meet.
    total, count = (sparse.coo_array((x, (columns, rows)), shape=shape).tocsr() for x in (values, np.ones(len(rows))))
    w = np.ascontiguousarray(multiplicities(shape[1], resamples, rng).T)
    v = np.ones((1, resamples)) if donor is None else multiplicities(shape[0], resamples, rng).T
    drawn = ((count @ w) * v).sum(0)
    # A resample of a sparse crossing may meet no cell at all; it says nothing about the mean.
    means = (((total @ w) * v).sum(0))[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(float(values.mean()), float(means.std(ddof=1)), float(low), float(high), resamples)


def bootstrap_impact(cells: Cells, rng: np.random.Generator, resamples: int = 2_000) -> BootstrapInterval:
    """Pigeonhole interval of an arm's accuracy loss, as a fraction."""
    donor = cells.donor if cells.has_donors else None
    return pigeonhole(cells.difference, cells.host, donor, rng, resamples=resamples)


def bootstrap_table(records: pd.DataFrame | Frame, *, seed: int = 0, resamples: int = 2_000) -> pd.DataFrame:
    """Pigeonhole intervals (pp) of every edited arm, labelled as the second opinion that they are.

    Returns:
        Columns `PLACE`, impact_pp, se, ci_low, ci_high, resamples, note; a resampled interval without width is
        undefined (NaN).
    """
    frame = as_frame(records)
    rows = []
    for key, cells in frame.arms.items():
        if not key.slots or not len(cells):
            continue
        found = bootstrap_impact(cells, family_rng(seed, "bootstrap", *key.family.seeds, str(key.slots)), resamples)
        flat = found.low == found.high
        low, high = (np.nan, np.nan) if flat else (100 * found.low, 100 * found.high)
        note = "no variation between cells: undefined" if flat else "conservative"
        row = frame.columns(key) | {"impact_pp": 100 * found.value, "se": 100 * found.se, "resamples": resamples}
        rows.append(row | {"ci_low": low, "ci_high": high, "note": note})
    return arm_table(rows, [*PLACE, "impact_pp", "se", "ci_low", "ci_high", "resamples", "note"])
