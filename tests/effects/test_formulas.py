"""Power, exact bounds, multiplicity, correlations and sign flips against closed forms and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from thoughtgraft.stats.paired import correlate, rank_correlate
from thoughtgraft.stats.power import (
    correlation_power,
    critical_correlation,
    detectable_effect,
    exact_upper_bound,
    minimum_effect,
    needed_hosts,
    power_within,
    unchanged_hosts,
    variance_components,
)
from thoughtgraft.stats.resampling import benjamini_hochberg, exact_correlation_p, holm, resampling_p, sign_flip_max_t

PUBLISHED = np.array([10.3, 14.6, 16.9, 3.0, 14.6, 14.9])
ABLATION = np.array([18.7, 12.8, 14.6, 15.0, 3.5, 26.0])
PILOT = np.array([10.0, 13.0, 17.0, 0.0, 19.0, 19.0])


def p_of_r(r: float, n: int) -> float:
    return float(2 * stats.t.sf(abs(r) * np.sqrt((n - 2) / (1 - r**2)), n - 2))


def test_published_vectors() -> None:
    r = float(correlate(PUBLISHED, ABLATION))
    assert r == pytest.approx(-0.065, abs=5e-4) and p_of_r(r, 6) == pytest.approx(0.902, abs=5e-4)
    assert float(rank_correlate(PUBLISHED, ABLATION)) == pytest.approx(-0.058, abs=5e-4)
    pilot = float(correlate(PILOT, ABLATION))
    assert pilot == pytest.approx(-0.058, abs=5e-4) and p_of_r(pilot, 6) == pytest.approx(0.9125, abs=1e-4)


def test_six_points_prove_nothing() -> None:
    assert critical_correlation(6) == pytest.approx(0.811, abs=5e-4)
    assert correlation_power(0.5, 6) == pytest.approx(0.17, abs=0.005)
    assert correlation_power(0.0, 6) == pytest.approx(0.05, abs=1e-6)


def test_exact_permutation_p() -> None:
    assert exact_correlation_p(np.arange(6.0), np.arange(6.0)) == pytest.approx(2 / 720)
    assert np.isnan(exact_correlation_p(np.zeros(6), np.arange(6.0)))
    assert exact_correlation_p(PUBLISHED, ABLATION) > 0.8


def test_minimum_effect_matches_statsmodels_and_the_plan() -> None:
    exact = TTestPower().solve_power(nobs=100, alpha=0.05, power=0.8, alternative="two-sided") * 0.30
    assert minimum_effect(100) == pytest.approx(exact, rel=1e-4)
    normal = ((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * 0.30 / 0.05) ** 2
    assert int(np.ceil(normal)) == 283
    assert needed_hosts(0.30, 0.05) == 285
    assert minimum_effect(285) <= 0.05 < minimum_effect(284)
    assert np.isnan(detectable_effect(0.0, 9)) and np.isnan(detectable_effect(np.nan, 9))


def test_power_within_is_that_of_intervals_that_lie_within_the_margin() -> None:
    """Hopeless at n = 100 and sd .30; 80% at about 310 hosts for intervals of 90%, and about 380 for 95%."""
    rng = np.random.default_rng(0)
    for n, level in ((100, 0.95), (200, 0.9), (310, 0.9), (380, 0.95)):
        x = rng.normal(0, 0.30, (20_000, n))
        half = stats.t.ppf(0.5 + level / 2, n - 1)
        within = np.abs(x.mean(1)) < 0.05 - half * x.std(1, ddof=1) / np.sqrt(n)
        se = 0.30 / np.sqrt(n)
        assert power_within(se, n - 1, 0.05, half * se) == pytest.approx(within.mean(), abs=0.012)
    assert power_within(0.03, 99, 0.05, stats.t.ppf(0.975, 99) * 0.03) < 0.05
    for n, low, high in ((310, 0.79, 0.82), (380, 0.79, 0.82)):
        half = stats.t.ppf(0.95 if n == 310 else 0.975, n - 1) * 0.30 / np.sqrt(n)
        assert low < power_within(0.30 / np.sqrt(n), n - 1, 0.05, half) < high
    assert np.isnan(power_within(0.0, 9, 0.05, 0.1))


def test_all_zero_differences_have_an_exact_bound() -> None:
    assert exact_upper_bound(100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert stats.binomtest(0, 100).proportion_ci(0.90, "exact").high == pytest.approx(exact_upper_bound(100))
    assert unchanged_hosts(0.05) == 59 and exact_upper_bound(59) <= 0.05 < exact_upper_bound(58)


def test_adjusted_p_values_equal_statsmodels() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.5, 0.005, 0.04])
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])
    gap = np.array([0.01, np.nan, 0.02])
    assert holm(gap)[[0, 2]] == pytest.approx([0.03, 0.04]) and np.isnan(holm(gap)[1])
    assert len(holm(np.array([]))) == 0 and len(benjamini_hochberg(np.array([]))) == 0


def test_resampling_p_is_never_zero() -> None:
    assert resampling_p(0, 999) == pytest.approx(0.001)


def test_sign_flips_hold_their_level_and_find_effects() -> None:
    """1,000 null families of 6 correlated slots x 20 hosts, seed 3: at most 5% + 2 standard errors reject."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(1_000):
        x = rng.normal(size=(20, 1)) + rng.normal(size=(20, 6))
        wrong += bool((sign_flip_max_t(x, rng, 499) <= 0.05).any())
    assert wrong / 1_000 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1_000)
    shifted = rng.normal(size=(40, 6)) + np.array([0, 0, 1.5, 0, 0, 0])
    shifted[:, 5] = 0
    p = sign_flip_max_t(shifted, rng, 999)
    assert p[2] == pytest.approx(0.001) and (p[[0, 1, 3, 4]] > 0.01).all() and np.isnan(p[5])


def test_variance_components_are_unbiased() -> None:
    """Mean of 300 designs of 40 x 6, seed 4: planted 1, .5, 2."""
    rng = np.random.default_rng(4)
    host = np.repeat(np.arange(40), 6)
    found = []
    for _ in range(300):
        donor = np.argsort(rng.random((40, 40)), axis=1)[:, :6].ravel()
        x = rng.normal(size=40)[host] + np.sqrt(0.5) * rng.normal(size=40)[donor] + np.sqrt(2) * rng.normal(size=240)
        parts = variance_components(x, host, donor)
        found.append([parts.host, parts.donor, parts.residual])
    assert np.mean(found, axis=0) == pytest.approx([1, 0.5, 2], abs=0.06)
