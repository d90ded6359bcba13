"""Do two methods agree on which slots matter? Swap against each ablation, with a ceiling, intervals and a verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from thoughtgraft.analysis.cells import Cells, paired
from thoughtgraft.analysis.clustered import group_totals
from thoughtgraft.analysis.frame import Frame, as_frame
from thoughtgraft.analysis.permutation import exact_correlation_p
from thoughtgraft.analysis.power import correlation_power, critical_correlation
from thoughtgraft.analysis.profiles import (
    CrossHost,
    Interval,
    correlate,
    percentile,
    rank_correlate,
    split_half_reliability,
)
from thoughtgraft.analysis.resampling import family_rng, multiplicities

BAR = 0.5
OTHERS = ("mean", "zero", "skip", "noise")
COLUMNS = (
    "method_a", "method_b", "slots", "n_slots", "n_hosts", "r", "r_low", "r_high", "rho", "rho_low", "rho_high",
    "critical_r", "power_at_half", "p_exact_exploratory", "reliability_a", "reliability_b", "ceiling",
    "r_disattenuated", "r_dis_low", "r_dis_high", "interaction_f", "interaction_p", "verdict", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Interaction:
    """Test that two methods' profiles differ by more than a constant: F with (df1, df2) degrees of freedom."""

    f: float
    df1: float
    df2: float
    p: float


def agreement_verdict(dis: Interval, interaction_p: float, bar: float = BAR) -> str:
    """The verdict on agreement.

    CONVERGENT if the disattenuated r's lower bound exceeds `bar`; DIVERGENT if its upper bound is below it and the
    profiles differ (interaction p < .05); otherwise INCONCLUSIVE. An undefined bound decides nothing.
    """
    if dis.low > bar:
        return "CONVERGENT"
    return "DIVERGENT" if dis.high < bar and interaction_p < 0.05 else "INCONCLUSIVE"


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
    df, q = min(sizes, default=0) - 1, k - 1
    if df - q + 1 < 1 or np.linalg.matrix_rank(covariance, hermitian=True) < q:
        return Interaction(np.nan, q, np.nan, np.nan)
    f = float(mean @ np.linalg.solve(covariance, mean)) * (df - q + 1) / (df * q)
    return Interaction(f, q, df - q + 1, float(stats.f.sf(f, q, df - q + 1)))


def _row(frame: Frame, other: str, stratum: str, seed: int, resamples: int) -> dict[str, object] | None:
    arms_a, arms_b = frame.singles("swap", "recompute", stratum), frame.singles(other)
    slots = [slot for slot in arms_a if slot in arms_b]
    if len(slots) < 3:
        return None
    a, b = [arms_a[s] for s in slots], [arms_b[s] for s in slots]
    n = len(frame.hosts)
    x, y = (np.stack([c.host_mean(c.difference, n) for c in arms], axis=1) for arms in (a, b))
    both = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    x, y = x[both], y[both]
    rng = family_rng(seed, "agreement", other)
    weights = multiplicities(len(x), resamples, rng)
    shares = weights / len(x)
    mean_x, mean_y = x.mean(0), y.mean(0)
    r = percentile(float(correlate(mean_x, mean_y)), correlate(shares @ x, shares @ y), "r")
    rho = percentile(float(rank_correlate(mean_x, mean_y)), rank_correlate(shares @ x, shares @ y), "rho")
    cross = CrossHost(x, y)
    dis = percentile(float(cross(np.ones((1, len(x))))[0]), cross(weights), "the disattenuated r")
    rel_a, rel_b = split_half_reliability(x, rng), split_half_reliability(y, rng)
    ceiling = float(np.sqrt(rel_a * rel_b)) if rel_a > 0 and rel_b > 0 else np.nan
    test = position_by_method(a, b)
    notes = sorted({part.note for part in (r, rho, dis) if part.note})
    notes += [] if np.isfinite(ceiling) else ["a profile is not reliable: no ceiling"]
    notes += [] if np.isfinite(test.p) else ["interaction undefined: too few clusters or a flat slot"]
    notes.append(f"no p-value on {len(slots)} means; the exact permutation p is exploratory")
    figures = (r.value, r.low, r.high, rho.value, rho.low, rho.high)
    limits = (critical_correlation(len(slots)), correlation_power(0.5, len(slots)))
    values = (
        "swap", other, ", ".join(frame.label((s,)) for s in slots), len(slots), len(x), *figures, *limits,
        exact_correlation_p(mean_x, mean_y), rel_a, rel_b, ceiling, dis.value, dis.low, dis.high, test.f, test.p,
        agreement_verdict(dis, test.p), "; ".join(notes),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def agreement_table(records: pd.DataFrame | Frame, *, seed: int = 0, resamples: int = 2_000) -> pd.DataFrame:
    """Swap against mean, zero, skip and noise: one row per ablation that was run at three slots or more.

    r and rho compare the two methods' mean impacts over slots; their intervals, and that of the disattenuated r,
    resample hosts jointly for both methods. The verdict rests on the disattenuated r and the interaction, never on a
    p-value of six means.

    Returns:
        The columns of `COLUMNS`.
    """
    frame = as_frame(records)
    stratum = frame.primary_stratum()
    rows = [row for other in OTHERS if (row := _row(frame, other, stratum, seed, resamples)) is not None]
    return pd.DataFrame(rows, columns=list(COLUMNS))
