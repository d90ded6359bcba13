"""Two runs side by side: each arm's effect in both, and their difference, paired where problems are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from thoughtgraft.arguments import answers_for_calls
from thoughtgraft.edits.known import Baseline
from thoughtgraft.effects.frame import PLACE, Cells, Frame, arm_table, as_frame
from thoughtgraft.effects.positions import arm_mean, impact
from thoughtgraft.errors import AnalysisError
from thoughtgraft.records.spec import RunSpec
from thoughtgraft.stats.clustered import Estimate, clustered_total, t_interval, t_p_value
from thoughtgraft.stats.intervals import mover
from thoughtgraft.stats.resampling import holm

COLUMNS = (
    "quantity", *PLACE, "a_pp", "a_ci_low", "a_ci_high", "b_pp", "b_ci_low",
    "b_ci_high", "difference_pp", "ci_low", "ci_high", "p", "p_holm", "design", "n_hosts_a", "n_hosts_b", "n_shared",
    "n_gen_a", "n_gen_b", "note",
)  # fmt: skip
FIELDS = (
    "study", "model", "model_hash", "protocol", "num_latents", "dtype", "problems", "problem_hash", "seed", "n_hosts",
    "n_donors", "max_new_tokens", "plan_hash", "decision_hash",
)  # fmt: skip


@dataclass(frozen=True)
class _Joint:
    """Codes that a problem has in both runs: of the first's and the second's problems, by their own codes."""

    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, first: Sequence[str], second: Sequence[str], shared: bool) -> _Joint:
        names = [f"a {name}" if not shared else name for name in first]
        others = [f"b {name}" if not shared else name for name in second]
        code = {name: i for i, name in enumerate(dict.fromkeys([*names, *others]))}
        return cls(np.array([code[n] for n in names], dtype=int), np.array([code[n] for n in others], dtype=int))


def spec_differences(first: RunSpec, second: RunSpec) -> list[tuple[str, Any, Any]]:
    """What two runs differ in: (field, in the first, in the second), in a fixed order."""
    pairs = [(name, getattr(first, name), getattr(second, name)) for name in FIELDS]
    return [pair for pair in pairs if pair[1] != pair[2]]


@answers_for_calls(AnalysisError)
def compare_records(
    first: pd.DataFrame | Frame, second: pd.DataFrame | Frame, *, same_problems: bool = True, alpha: float = 0.05
) -> pd.DataFrame:
    """Effects of two runs, arm by arm, and second - first.

    Every cell's influence on both means is charged to its host and its donor, summed over the two runs where they
    share them: the interval is paired on shared problems, that of independent runs where there are none, and right in
    between. Two-way clustered over hosts and donors; by host where the arm has no donors. Runs without any shared
    problem: MOVER of the two intervals.

    Args:
        first, second: Records of the runs, or their frames.
        same_problems: Whether equal problem ids mean equal problems. Ids whose gold answers differ never do.
        alpha: Intervals are at the level 1 - alpha, each by itself.

    Returns:
        One row per arm that either run has, with the columns of `COLUMNS`: `quantity` is "accuracy" of the baseline,
        else "impact"; all figures in percentage points; `p_holm` over the single slots of one method, downstream and
        stratum; `design` is "paired", "partly paired", "independent" or "only in a", "only in b".

    Raises:
        AnalysisError: Records cannot be used; see `build_frame`.
    """
    a, b = as_frame(first), as_frame(second)
    shared = same_problems and _same_gold(a, b)
    hosts = _Joint.of(a.hosts, b.hosts, shared)
    donors = _Joint.of(a.donors, b.donors, shared)
    wider = max(a, b, key=lambda frame: frame.n_slots)
    keys = [key for key in sorted({*a.arms, *b.arms}) if key.slots or key.method == Baseline.name]
    keys.sort(key=lambda key: key.method != Baseline.name)
    found = {key: _row((a.arms.get(key), b.arms.get(key)), hosts, donors, alpha) for key in keys}
    for family in dict.fromkeys(key.family for key in keys):
        single = [key for key in keys if key.family == family and len(key.slots) == 1]
        adjusted = holm(np.array([found[key]["p"] for key in single], dtype=float))
        for key, p in zip(single, adjusted, strict=True):
            found[key]["p_holm"] = p
    return arm_table([row | wider.columns(key) for key, row in found.items()], COLUMNS)


def _same_gold(a: Frame, b: Frame) -> bool:
    left, right = _golds(a), _golds(b)
    return all(right[name] == gold for name, gold in left.items() if name in right)


def _golds(frame: Frame) -> dict[str, object]:
    found: dict[str, object] = {}
    for cells in frame.arms.values():
        for host, gold in zip(*np.unique(np.stack([cells.host, cells.gold]), axis=1), strict=True):
            found[frame.hosts[host]] = None if gold < 0 else frame.answers[gold]
    return found


def _row(both: tuple[Cells | None, Cells | None], hosts: _Joint, donors: _Joint, alpha: float) -> dict[str, Any]:
    a, b = both
    edited = any(cells is not None and cells.arm.slots for cells in both)
    row: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan) | {"quantity": "impact" if edited else "accuracy", "note": ""}
    found: list[Estimate] = []
    for name, cells in zip("ab", both, strict=True):
        if cells is None or not len(cells):
            continue
        est = impact(cells, alpha) if edited else _at(arm_mean(cells, cells.correct), alpha)
        row |= {f"{name}_pp": 100 * est.value, f"{name}_ci_low": 100 * est.low, f"{name}_ci_high": 100 * est.high}
        row |= {f"n_hosts_{name}": cells.n_hosts, f"n_gen_{name}": len(cells)}
        found.append(est)
    if a is None or b is None or len(found) < 2:
        return row | {"design": "only in a" if found and a is not None and len(a) else "only in b"}
    design, n_shared, est = _difference(a, b, hosts, donors, found, alpha)
    row |= {"design": design, "n_shared": n_shared, "difference_pp": 100 * est.value, "p": est.p, "note": est.note}
    return row | {"ci_low": 100 * est.low, "ci_high": 100 * est.high}


def _difference(
    a: Cells, b: Cells, hosts: _Joint, donors: _Joint, own: list[Estimate], alpha: float
) -> tuple[str, int, Estimate]:
    crossed = a.has_donors and b.has_donors
    host = np.concatenate([hosts.first[a.host], hosts.second[b.host]])
    donor = np.concatenate([donors.first[a.donor], donors.second[b.donor]]) if crossed else np.zeros_like(host)
    values = [cells.difference if cells.arm.slots else cells.correct for cells in (a, b)]
    means = [cells.weight @ value for cells, value in zip((a, b), values, strict=True)]
    u = np.concatenate([-a.weight * (values[0] - means[0]), b.weight * (values[1] - means[1])])
    mine, theirs = (set(np.unique(x).tolist()) for x in (host[: len(a)], host[len(a) :]))
    n_shared = len(mine & theirs)
    met = crossed and bool(set(donor[: len(a)].tolist()) & set(donor[len(a) :].tolist()))
    value, design = float(means[1] - means[0]), "paired" if mine == theirs else "partly paired"
    if not n_shared and not met:
        return "independent", 0, _apart(value, own[0], own[1], alpha)
    if design != "paired" and min(est.se for est in own) == 0:
        return design, n_shared, _undefined(value, own[0])
    # One host and donor may occur in both runs: their influences belong to one cell.
    pairs, cell = np.unique(np.stack([host, donor]), axis=1, return_inverse=True)
    cell = cell.ravel()
    weight = np.bincount(cell, np.concatenate([a.weight, b.weight]))
    est = _at(clustered_total(np.bincount(cell, u), value, pairs[0], pairs[1] if crossed else None, weight), alpha)
    if est.se == 0:
        same = "the runs do not differ" if est.value == 0 else "every pair differs alike"
        est = replace(est, note=f"{same}: no interval")
    return design, n_shared, est


def _at(est: Estimate, alpha: float) -> Estimate:
    low, high = t_interval(est.value, est.se, est.df, 1 - alpha)
    return replace(est, low=low, high=high)


def _apart(value: float, a: Estimate, b: Estimate, alpha: float) -> Estimate:
    """The difference of two independent means, from the interval of each (MOVER); undefined where one does not vary.

    p is that of the t at which the end beside 0 would touch it, so that it agrees with the interval.
    """
    if not (a.se > 0 and b.se > 0):
        return _undefined(value, a)
    mine, theirs = ((np.array(est.value), np.array([est.low, est.high])) for est in (b, a))
    low, high = mover(*mine, *theirs, np.array(0.0))
    first, second = a.se**2, b.se**2
    # Welch's degrees of freedom.
    df = (first + second) ** 2 / (first**2 / a.df + second**2 / b.df)
    half = (value - low if value > 0 else high - value) / special.stdtrit(df, 1 - alpha / 2)
    p = t_p_value(value, float(half), df)
    return replace(
        a, value=value, se=float(np.hypot(a.se, b.se)), df=df, low=float(low), high=float(high), p=p, note=""
    )


def _undefined(value: float, like: Estimate) -> Estimate:
    nan, note = np.nan, "no interval: one run shows no variation there, or has a single host or donor"
    return replace(like, value=value, se=nan, df=nan, low=nan, high=nan, p=nan, note=note)
