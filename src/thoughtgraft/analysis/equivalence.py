"""Tests of no effect: two one-sided tests at a fixed margin, and exact bounds where nothing (or everything) changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from thoughtgraft.analysis.clustered import Estimate
from thoughtgraft.analysis.power import tost_power

MARGIN = 0.05
ALPHA = 0.05


@dataclass(frozen=True)
class Equivalence:
    """`p` of the equivalence test, its `power` at a true effect of 0, and the verdict."""

    p: float
    power: float
    verdict: str


def exact_upper_bound(n: int, alpha: float = ALPHA) -> float:
    """Exact upper 1 - alpha bound of a probability never seen in n independent tries, 1 - alpha^(1/n)."""
    return float(1 - alpha ** (1 / n))


def unchanged_hosts(effect: float, *, alpha: float = 0.05) -> int:
    """Hosts that must all stay unchanged for the exact upper bound of the effect to lie below `effect` (a fraction).

    The smallest n with 1 - alpha^(1/n) <= effect: 59 for 5 pp.
    """
    return int(np.ceil(np.log(alpha) / np.log1p(-effect)))


def independent_units(estimate: Estimate) -> int:
    """Units that an exact bound may count: the smaller of hosts and donors, as the t test's degrees of freedom do."""
    return min(estimate.n_hosts, estimate.n_donors) if estimate.n_donors else estimate.n_hosts


def tost_p(value: float, se: float, df: float, margin: float = MARGIN) -> float:
    """The p of two one-sided t tests of |mean| >= margin (Schuirmann 1987); NaN where undefined."""
    if not (se > 0 and df > 0):
        return np.nan
    return float(max(stats.t.sf((value + margin) / se, df), stats.t.cdf((value - margin) / se, df)))


def boundary_se(estimate: Estimate, spread: float, margin: float = MARGIN) -> float:
    """The standard error to test with: the observed one, or the one that a true mean of `margin` would have.

    A difference of graded answers with mean `margin` has a variance of at least margin * (1 - margin). When almost
    nothing changed, the observed variance is far below that, and a plain t test calls a slot with a true loss of
    exactly 5 pp equivalent in 12% of runs of 100 hosts (binomial: at most 2 of 100 lost). As in a score test, the
    variance under the hypothesis takes its place, times the observed design effect (at least 1).

    Args:
        estimate: Mean of differences in {-1, 0, 1}.
        spread: Variance of the single differences.
        margin: The margin, as a fraction.
    """
    if not (estimate.se > 0 and spread > 0):
        return estimate.se
    design_effect = max(estimate.se**2 * estimate.n / spread, 1.0)
    return float(max(estimate.se, np.sqrt(design_effect * margin * (1 - margin) / estimate.n)))


def equivalence(estimate: Estimate, spread: float, margin: float = MARGIN, alpha: float = ALPHA) -> Equivalence:
    """Whether a mean difference in [-1, 1] is within +-margin of 0.

    Where every difference is 0 the t test is undefined, and the exact one takes its place: if the mean were at least
    `margin` away from 0, at least that share of units would differ, so p = (1 - margin)^n.

    Args:
        estimate: Mean of differences in {-1, 0, 1}, as a fraction.
        spread: Variance of the single differences; see `boundary_se`.
        margin: Largest difference that counts as none, as a fraction.
        alpha: Level of the test.

    Returns:
        Verdict "equivalent" (p < alpha), "not equivalent" (the interval lies beyond the margin, or the test failed
        although its power was at least 80%), "underpowered" (neither), or "undefined".
    """
    n = independent_units(estimate)
    if estimate.se == 0 and estimate.value == 0:
        p = (1 - margin) ** n
        return Equivalence(p, float(p < alpha), "equivalent" if p < alpha else "underpowered")
    if estimate.se == 0 and n:
        return Equivalence(1.0, np.nan, "not equivalent" if abs(estimate.value) > margin else "undefined")
    se = boundary_se(estimate, spread, margin)
    p = tost_p(estimate.value, se, estimate.df, margin)
    if np.isnan(p):
        return Equivalence(np.nan, np.nan, "undefined")
    power = tost_power(se, estimate.df, margin, alpha=alpha)
    if p < alpha:
        return Equivalence(p, power, "equivalent")
    beyond = estimate.low > margin or estimate.high < -margin
    return Equivalence(p, power, "not equivalent" if beyond or power >= 0.8 else "underpowered")
