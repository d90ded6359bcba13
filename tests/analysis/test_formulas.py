"""Power, equivalence, multiplicity, correlations and sign flips against closed forms and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from thoughtgraft.analysis.clustered import clustered_mean
from thoughtgraft.analysis.equivalence import boundary_se, equivalence, exact_upper_bound, tost_p
from thoughtgraft.analysis.multiplicity import benjamini_hochberg, holm
from thoughtgraft.analysis.permutation import exact_correlation_p, resampling_p, sign_flip_max_t
from thoughtgraft.analysis.power import (
    correlation_power,
    critical_correlation,
    detectable_effect,
    minimum_effect,
    needed_hosts,
    tost_needed_hosts,
    tost_power,
    variance_components,
)
from thoughtgraft.analysis.profiles import correlate, rank_correlate

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


def test_equivalence_power() -> None:
    """At n = 100 and sd .30 hopeless, at about 310 hosts 80%; the integral agrees with simulation."""
    assert tost_power(0.03, 99, 0.05) < 0.05
    assert 300 <= tost_needed_hosts(0.30, 0.05) <= 315
    rng = np.random.default_rng(0)
    for n in (100, 200, 310):
        x = rng.normal(0, 0.30, (20_000, n))
        se = x.std(1, ddof=1) / np.sqrt(n)
        passed = np.abs(x.mean(1)) < 0.05 - stats.t.ppf(0.95, n - 1) * se
        assert tost_power(0.30 / np.sqrt(n), n - 1, 0.05) == pytest.approx(passed.mean(), abs=0.012)


def test_tost_is_two_t_tests() -> None:
    x = np.random.default_rng(1).normal(0.01, 0.1, 60)
    expected = max(
        stats.ttest_1samp(x, -0.05, alternative="greater").pvalue, stats.ttest_1samp(x, 0.05, alternative="less").pvalue
    )
    assert tost_p(x.mean(), stats.sem(x), 59) == pytest.approx(expected)


def test_all_zero_differences_have_an_exact_bound() -> None:
    assert exact_upper_bound(100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert stats.binomtest(0, 100).proportion_ci(0.90, "exact").high == pytest.approx(exact_upper_bound(100))
    for n, verdict in ((58, "underpowered"), (59, "equivalent")):
        found = equivalence(clustered_mean(np.zeros(n), np.arange(n), None, np.ones(n)), 0.0)
        assert found.verdict == verdict and found.p == pytest.approx(0.95**n)


def test_equivalence_holds_its_level_at_the_margin_where_losses_are_rare() -> None:
    """A true loss of exactly 5 pp is called equivalent in at most 5% of 20,000 runs; a plain t test does so in 12%."""
    rng = np.random.default_rng(2)
    counts = np.bincount(rng.binomial(100, 0.05, 20_000), minlength=30)
    plain = careful = 0
    for lost, times in enumerate(counts[:30]):
        x = np.repeat([1.0, 0.0], [lost, 100 - lost])
        est = clustered_mean(x, np.arange(100), None, np.ones(100))
        careful += times * (equivalence(est, float(x.var())).verdict == "equivalent")
        plain += times * (est.se == 0 or tost_p(est.value, est.se, est.df) < 0.05)
    assert careful / 20_000 <= 0.05 < plain / 20_000
    big = clustered_mean(np.repeat([1.0, 0.0], 50), np.arange(100), None, np.ones(100))
    assert boundary_se(big, 0.25) == big.se


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
