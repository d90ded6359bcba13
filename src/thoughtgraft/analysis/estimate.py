"""The position table: what each arm did to accuracy, answers and log-probabilities, with intervals, tests and n."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.analysis.adoption import adoption, donor_answers
from thoughtgraft.analysis.cells import Cells
from thoughtgraft.analysis.clustered import Estimate, clustered_mean
from thoughtgraft.analysis.equivalence import equivalence, exact_upper_bound, independent_units
from thoughtgraft.analysis.frame import ArmKey, Frame, as_frame
from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.permutation import sign_flip_max_t
from thoughtgraft.analysis.power import detectable_pp
from thoughtgraft.analysis.resampling import family_rng

COLUMNS = (
    "slots", "method", "downstream", "donor_stratum", "n_hosts", "n_donors", "n_gen", "base_acc", "acc",
    "impact_pp", "ci_low", "ci_high", "se_host", "se_donor", "se_twoway", "lost", "gained",
    "impact_given_correct_pp", "impact_given_correct_ci_low", "impact_given_correct_ci_high", "changed_rate",
    "adoption_rate", "adoption_null", "adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high",
    "dlogp", "dlogp_ci_low", "dlogp_ci_high", "kl", "p", "p_holm", "p_maxT", "tost_p", "tost_power", "verdict",
    "mde80_pp", "zero_bound_pp", "n_failed", "note",
)  # fmt: skip
CONTROLS = ("noop", "self")
NULL, IDENTITY = "structurally null", "nothing to swap"
"""Verdicts on rows whose effect is 0 by construction: their figures stay empty, never 0."""
_KEPT = (
    "slots",
    "method",
    "downstream",
    "donor_stratum",
    "n_hosts",
    "n_donors",
    "n_gen",
    "base_acc",
    "acc",
    "n_failed",
)
# In simulation, intervals of rare losses (5 in 100) cover 91-96% at 100 x 10 and 82-90% at 20 x 5.
FEW = 10


def arm_mean(cells: Cells, values: np.ndarray) -> Estimate:
    """Mean over hosts of `values` [cell], two-way clustered where the arm has donors, else by host."""
    return clustered_mean(values, cells.host, cells.donor if cells.has_donors else None, cells.weight)


def impact(cells: Cells) -> Estimate:
    """Accuracy lost by the arm, paired by host, as a fraction; its interval is cut at -1 and 1, beyond which none is.

    Where every cell lost (or every one gained), the t interval is undefined and an exact one takes its place: at
    least .025^(1/n) of units change so, hence the mean is at least 2 * .025^(1/n) - 1; p is the sign test's.
    """
    est = arm_mean(cells, cells.difference)
    n = independent_units(est)
    if est.se == 0 and n and abs(est.value) == 1:
        near = max(2 * 0.025 ** (1 / n) - 1, -1.0)
        low, high = (near, 1.0) if est.value > 0 else (-1.0, -near)
        return replace(est, low=low, high=high, p=min(1.0, 2 * 0.5**n), note="every cell differs alike: exact interval")
    return replace(est, low=float(np.maximum(est.low, -1.0)), high=float(np.minimum(est.high, 1.0)))


def impact_given_correct(cells: Cells) -> Estimate:
    """Share of answers lost on hosts right at baseline, as a fraction.

    It cannot be negative, so the interval is cut at 0 and 1. All lost or none: exact one-sided bounds as in `impact`
    (none: the interval stays undefined and the note gives the upper bound).
    """
    right = cells.base_correct == 1
    donor = cells.donor[right] if cells.has_donors else None
    est = clustered_mean(1 - cells.correct[right], cells.host[right], donor, cells.weight[right])
    n = independent_units(est)
    if est.n == 0:
        return replace(est, note="no host is right at baseline")
    if est.se == 0 and est.value == 1 and n:
        return replace(est, low=0.025 ** (1 / n), high=1.0, note="all lost: exact interval")
    if est.se == 0 and est.value == 0 and n:
        return replace(est, note=f"none lost: exact 95% upper bound {100 * exact_upper_bound(n):.2f} pp")
    return replace(est, low=float(np.maximum(est.low, 0.0)), high=float(np.minimum(est.high, 1.0)))


def structurally_null(cells: Cells) -> bool:
    """Whether not even the logits moved in any cell: the edited vector is read by nothing."""
    measured = np.isfinite(cells.kl) | np.isfinite(cells.dlogp)
    still = (np.nan_to_num(cells.kl) == 0) & (np.nan_to_num(cells.dlogp) == 0) & (cells.changed == 0)
    return bool(len(cells)) and bool(measured.all() and still.all())


def by_construction(arm: ArmKey, dead_slots: Collection[int], shared_slots: Collection[int]) -> tuple[str, str] | None:
    """(verdict, reason) where an arm's effect is 0 whatever the model learned; None where it is not."""
    if not arm.slots or arm.method in CONTROLS:
        return None
    if set(arm.slots) <= set(dead_slots):
        return NULL, "no vector put into this slot reaches the answer: its effect is 0 by construction"
    if arm.method in ("swap", "mean") and set(arm.slots) <= {*dead_slots, *shared_slots}:
        return IDENTITY, "every problem is fed the same vector here, so that this edit is the identity"
    return None


def arm_row(frame: Frame, cells: Cells) -> dict[str, Any]:
    """One row of the position table, without the columns that depend on other arms (p_holm, p_maxT)."""
    key = cells.arm
    row: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan)
    row |= {"slots": frame.label(key.slots), "method": key.method, "downstream": key.downstream}
    row |= {"donor_stratum": key.stratum, "n_failed": cells.n_failed, "n_gen": len(cells)}
    row |= {"n_hosts": cells.n_hosts, "n_donors": cells.n_donors, "lost": 0, "gained": 0}
    if not len(cells):
        return row | {"verdict": "undefined", "note": f"all {cells.n_failed} cells failed"}
    effect, given, dlogp = impact(cells), impact_given_correct(cells), arm_mean(cells, cells.dlogp)
    same = equivalence(effect, float(cells.difference.var()))
    # A figure from several notes: every NaN in the row has its reason here.
    notes = [] if not effect.note else [effect.note]
    if effect.se == 0 and effect.value == 0:
        bound = exact_upper_bound(independent_units(effect))
        row["zero_bound_pp"] = 100 * bound
        notes = [f"every difference is 0: exact 95% upper bound {100 * bound:.2f} pp instead of an interval"]
    moved = len(np.unique(cells.host[cells.difference != 0]))
    if 0 < moved < FEW:
        hosts = "host differs" if moved == 1 else "hosts differ"
        notes.append(f"only {moved} {hosts}: the t interval may be too short")
    if given.note:
        notes.append(f"given correct: {given.note}")
    if not key.stratum:
        notes.append("no donors: adoption undefined")
    if cells.n_failed:
        notes.append(f"{cells.n_failed} failed cells left out")
    if cells.n_hosts < len(frame.hosts):
        notes.append(f"covers {cells.n_hosts} of {len(frame.hosts)} hosts")
    if np.isnan(dlogp.value):
        notes.append("no log-probabilities in the records")

    # Rounded far below 1 / n_gen, so that the one baseline prints as one number whatever the weights' rounding.
    accuracies = [round(float(cells.weight @ right), 12) for right in (cells.base_correct, cells.correct)]
    row |= {"base_acc": accuracies[0], "acc": accuracies[1]}
    row |= {"impact_pp": 100 * effect.value, "ci_low": 100 * effect.low, "ci_high": 100 * effect.high}
    row |= {"se_host": 100 * effect.se_host, "se_donor": 100 * effect.se_donor, "se_twoway": 100 * effect.se}
    row |= {"lost": int((cells.difference == 1).sum()), "gained": int((cells.difference == -1).sum())}
    row |= {"impact_given_correct_pp": 100 * given.value}
    row |= {"impact_given_correct_ci_low": 100 * given.low, "impact_given_correct_ci_high": 100 * given.high}
    row |= {"changed_rate": float(cells.weight @ cells.changed)}
    row |= {"dlogp": dlogp.value, "dlogp_ci_low": dlogp.low, "dlogp_ci_high": dlogp.high}
    row |= {"kl": arm_mean(cells, cells.kl).value, "p": effect.p, "tost_p": same.p, "tost_power": same.power}
    row |= {"mde80_pp": detectable_pp(effect.se, effect.df)}
    if effect.se > 0 and np.isnan(row["mde80_pp"]):
        notes.append("no MDE: not even a loss of 100 pp would be found with 80% power")
    row["verdict"] = NULL if key.method not in CONTROLS and structurally_null(cells) else same.verdict
    if key.stratum:
        taken = adoption(cells, donor_answers(cells, len(frame.hosts), len(frame.donors)))
        row |= {"adoption_rate": taken.rate, "adoption_null": taken.null, "adoption_excess": taken.excess.value}
        row |= {"adoption_excess_ci_low": taken.excess.low, "adoption_excess_ci_high": taken.excess.high}
        if taken.excess.note:
            notes.append(f"adoption: {taken.excess.note}")
    return row | {"note": "; ".join(notes)}


def _adjust(table: pd.DataFrame, frame: Frame, seed: int, resamples: int) -> None:
    """Fill p_holm and p_maxT: one family is the single slots of one method, downstream and stratum."""
    for family in frame.families():
        arms = frame.singles(*family)
        if not arms:
            continue
        method, downstream, stratum = family
        labels = [frame.label((slot,)) for slot in arms]
        here = (table.method == method) & (table.downstream == downstream) & (table.donor_stratum == stratum)
        rows = [table.index[here & (table.slots == label)][0] for label in labels]
        table.loc[rows, "p_holm"] = holm(table.loc[rows, "p"].to_numpy(dtype=float))
        means = np.stack([c.host_mean(c.difference, len(frame.hosts)) for c in arms.values()], axis=1)
        means = means[np.isfinite(means).all(1)]
        table.loc[rows, "p_maxT"] = sign_flip_max_t(means, family_rng(seed, "maxT", *family), resamples)


def position_table(
    records: pd.DataFrame | Frame,
    *,
    seed: int = 0,
    resamples: int = 9_999,
    dead_slots: Collection[int] = (),
    shared_slots: Collection[int] = (),
) -> pd.DataFrame:
    """One row per edited arm, with the columns of `COLUMNS`.

    Args:
        records: Records, or the frame made of them.
        seed: Seeds the sign flips of p_maxT, the only random column.
        resamples: Number of sign vectors.
        dead_slots: 0-based slots that cannot reach the output, as the certificate says.
        shared_slots: 0-based slots at which every problem is fed the same vector.

    Returns:
        Impacts, their interval (`ci_low`, `ci_high`), standard errors and mde80 in percentage points; accuracies and
        rates as fractions (adoption too); dlogp and kl in nats. The interval and `p` are two-way clustered over hosts
        and donors (by host for arms without donors); `p_holm` covers the single slots of one method, downstream and
        stratum; `p_maxT` is conditional on the donors drawn. What is undefined is NaN, and `note` says why;
        `zero_bound_pp` is the exact 95% upper bound where every difference is 0.

    Raises:
        AnalysisError: The records cannot be used; see `build_frame`.
    """
    frame = as_frame(records)
    arms = [key for key in frame.arms if key.slots or key.method == "noop"]
    table = pd.DataFrame([arm_row(frame, frame.arms[key]) for key in arms], columns=list(COLUMNS))
    _adjust(table, frame, seed, resamples)
    for place, arm in enumerate(arms):
        if found := by_construction(arm, dead_slots, shared_slots):
            table.loc[place, [name for name in COLUMNS if name not in _KEPT]] = np.nan
            table.loc[place, ["verdict", "note"]] = found
    return table
