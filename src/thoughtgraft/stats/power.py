"""What a design can detect: minimum effects, power to find none, hosts needed before and after a pilot."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import integrate, optimize, special, stats
from statsmodels.stats.power import TTestPower

from thoughtgraft.errors import AnalysisError
from thoughtgraft.stats.intervals import MIN_DONORS, MIN_HOSTS

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def detectable_effect(se: float, df: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean that a two-sided t test finds with the given power, in the unit of `se`.

    Solved from the noncentral t distribution; NaN where se is zero or undefined.
    """
    return _noncentrality(df, alpha, power) * se if se > 0 and df > 0 else np.nan


@lru_cache(maxsize=1024)
def _noncentrality(df: float, alpha: float, power: float) -> float:
    """How many standard errors that is: arms of one design have the same degrees of freedom."""
    critical = stats.t.ppf(1 - alpha / 2, df)

    def shortfall(ncp: float) -> float:
        # The far tail is below 1e-6 at any power of interest, and scipy's nct is unreliable out there.
        return float(stats.nct.sf(critical, df, ncp)) - power

    high = float(critical + stats.t.ppf(power, df) + 2)
    while shortfall(high) < 0:
        high *= 2
    return float(optimize.brentq(shortfall, 0, high, xtol=1e-6))


def detectable_pp(se: float, df: float, *, alpha: float = 0.05) -> float:
    """`detectable_effect` of a difference of shares in percentage points; NaN where not even 100 could be found."""
    effect = detectable_effect(se, df, alpha=alpha)
    return 100 * effect if effect <= 1 else np.nan


def needed_hosts(sd: float, effect: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Hosts needed to find a mean of `effect` among host values of standard deviation `sd` (same unit).

    Exact for the one-sample t test (statsmodels), so one or two above the normal approximation
    ((z_.975 + z_.8) * sd / effect)^2, which gives 283 for sd .30 and effect .05.
    """
    if not (sd > 0 and effect > 0):
        raise AnalysisError("sd and effect must be positive", got=f"sd {sd}, effect {effect}")
    n = TTestPower().solve_power(effect_size=effect / sd, alpha=alpha, power=power, alternative="two-sided")
    return int(np.ceil(np.ravel(n)[0] - 1e-9))


def minimum_effect(n_hosts: int, sd: float = 0.30, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Minimum detectable effect of a planned run with `n_hosts`, in the unit of `sd` (of one host's mean)."""
    return detectable_effect(sd / np.sqrt(n_hosts), n_hosts - 1, alpha=alpha, power=power)


def power_within(se: float, df: float, margin: float, half_width: float) -> float:
    """Power to find a true mean of 0 within +-margin: the chance that an interval like this one lies inside.

    The chance is E[(2 Phi((margin - h u) / se) - 1)+], h the half-width, over the estimated se's error
    u = sqrt(chi2_df / df), as for two one-sided tests (Phillips 1990, J. Pharmacokinet. Biopharm. 18), integrated
    numerically.

    Args:
        se: Standard error of the mean.
        df: Its degrees of freedom.
        margin: The margin, in the unit of `se`.
        half_width: Half the length of the interval whose place decides, in the same unit.
    """
    if not (se > 0 and df > 0 and half_width > 0):
        return np.nan
    # Integrate over quantiles of u: smooth, bounded, and exact at both ends.
    q_top = float(special.chdtr(df, df * (margin / half_width) ** 2))
    u = np.sqrt(special.chdtri(df, 1 - (_NODES + 1) / 2 * q_top) / df)
    return float(np.sum(_WEIGHTS * (2 * special.ndtr((margin - half_width * u) / se) - 1)) / 2 * q_top)


def exact_upper_bound(n: int, alpha: float = 0.05) -> float:
    """Exact upper 1 - alpha bound of a probability never seen in n independent tries, 1 - alpha^(1/n)."""
    return float(1 - alpha ** (1 / n))


def unchanged_hosts(effect: float, *, alpha: float = 0.05) -> int:
    """Hosts that must all stay unchanged for the exact upper bound of the effect to lie below `effect` (a fraction).

    The smallest n with 1 - alpha^(1/n) <= effect: 59 for 5 pp.
    """
    return int(np.ceil(np.log(alpha) / np.log1p(-effect)))


@lru_cache(maxsize=64)
def correlation_power(rho: float, n: int, *, alpha: float = 0.05) -> float:
    """Power of the two-sided test of a Pearson correlation of `n` bivariate normal points.

    Given x, the t statistic is noncentral t with ncp = rho / sqrt(1 - rho^2) * sqrt(sum of squares of x), and that
    sum is chi-squared with n - 1 degrees of freedom; the mean over it is integrated numerically.
    """
    critical = stats.t.ppf(1 - alpha / 2, n - 2)
    slope = rho / np.sqrt(1 - rho**2)

    def integrand(s: float) -> float:
        ncp = slope * np.sqrt(s)
        tails = stats.nct.sf(critical, n - 2, ncp) + stats.nct.cdf(-critical, n - 2, ncp)
        return float(tails * stats.chi2.pdf(s, n - 1))

    return float(integrate.quad(integrand, 0, stats.chi2.isf(1e-10, n - 1), limit=200)[0])


def critical_correlation(n: int, *, alpha: float = 0.05) -> float:
    """The |r| that `n` points must exceed to differ from 0 at level alpha."""
    t = stats.t.ppf(1 - alpha / 2, n - 2)
    return float(t / np.sqrt(n - 2 + t**2))


def too_small(n_hosts: int, n_donors: int) -> str:
    """Why no verdict can come of a design, whatever its outcomes are; empty where one can.

    Args:
        n_hosts: Its hosts.
        n_donors: Its distinct donors, over all hosts; 0 where nothing is taken from one.
    """
    few = [f"{n_hosts} hosts"] if n_hosts < MIN_HOSTS else []
    few += [f"{n_donors} distinct donors"] if 0 < n_donors < MIN_DONORS else []
    if not few:
        return ""
    return (
        f"No verdict can come of this design: with {' and '.join(few)} no interval is known to hold, so every claim "
        f"is left UNRESOLVED. It takes at least {MIN_HOSTS} hosts and {MIN_DONORS} distinct donors."
    )


@dataclass(frozen=True)
class Components:
    """Variance components of a paired difference (squared units of the values), none below 0."""

    host: float
    donor: float
    residual: float

    def se(self, n_hosts: int, n_draws: int) -> float:
        """Standard error of the mean of a future run whose donors come from its own block of `n_hosts` problems."""
        return float(np.sqrt((self.host + self.donor + self.residual / n_draws) / n_hosts))


def variance_components(values: np.ndarray, host: np.ndarray, donor: np.ndarray) -> Components:
    """Method-of-moments components of values = mean + host + donor + residual, from products of pairs.

    Pairs of one host and different donors share only the host part, pairs of one donor only the donor part; the
    mean product of pairs that share nothing estimates the squared mean. Each is a U-statistic, so unbalanced donor
    lists need no care (Searle, Casella, McCulloch 1992, Variance Components, ch. 5, for the moment method).

    Args:
        values: One difference per cell.
        host: 0-based host of each cell.
        donor: 0-based donor of each cell (-1 for none: the donor component is then 0).
    """
    n = len(values)

    def pairs(ids: np.ndarray) -> tuple[float, float]:
        sums, counts = np.bincount(ids, values), np.bincount(ids)
        return float((sums**2).sum() - (values**2).sum()), float((counts**2).sum() - n)

    square = float((values**2).mean())
    (host_sum, host_n), (donor_sum, donor_n) = pairs(host), (pairs(donor) if (donor >= 0).all() else (0.0, 0.0))
    apart_n = n * n - n - host_n - donor_n
    if apart_n <= 0:
        return Components(np.nan, np.nan, np.nan)
    mean_square = (float(values.sum()) ** 2 - float((values**2).sum()) - host_sum - donor_sum) / apart_n
    v_host = max(host_sum / host_n - mean_square, 0.0) if host_n else 0.0
    v_donor = max(donor_sum / donor_n - mean_square, 0.0) if donor_n else 0.0
    # With one draw per host the host part cannot be told from the residual; their sum is what the se needs.
    return Components(v_host, v_donor, max(square - mean_square - v_host - v_donor, 0.0))
