"""Two-way clustered standard errors against closed forms and against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups
from tests.analysis.invent import donor_lists

from thoughtgraft.analysis.clustered import clustered_mean, effective_clusters, twoway_variance


def test_one_cell_per_host_is_the_ordinary_t_interval() -> None:
    x = np.random.default_rng(0).normal(1, 2, 30)
    est = clustered_mean(x, np.arange(30), None, np.full(30, 1.0))
    low, high = stats.t.interval(0.95, 29, x.mean(), stats.sem(x))
    assert (est.low, est.high) == pytest.approx((low, high))
    assert est.p == pytest.approx(stats.ttest_1samp(x, 0).pvalue)
    assert est.df == pytest.approx(29)


def test_balanced_hosts_are_the_t_interval_of_host_means() -> None:
    x = np.random.default_rng(1).normal(size=(20, 5))
    est = clustered_mean(x.ravel(), np.repeat(np.arange(20), 5), None, np.ones(100))
    assert est.se == pytest.approx(stats.sem(x.mean(1)))


def test_each_part_equals_statsmodels() -> None:
    rng = np.random.default_rng(2)
    donors = donor_lists(20, 5, rng)
    host, donor = np.repeat(np.arange(20), 5), donors.ravel()
    x = rng.normal(size=20)[host] + rng.normal(size=20)[donor] + rng.normal(size=100)
    est = clustered_mean(x, host, donor, np.ones(100))
    fit = sm.OLS(x, np.ones((100, 1))).fit()
    both, by_host, by_donor = cov_cluster_2groups(fit, host, donor)
    assert est.se_host == pytest.approx(float(np.sqrt(by_host[0, 0])))
    assert est.se_donor == pytest.approx(float(np.sqrt(by_donor[0, 0])))
    larger = max(both[0, 0], by_host[0, 0], by_donor[0, 0])
    assert est.se == pytest.approx(float(np.sqrt(larger)))


def test_full_factorial_matches_the_crossed_anova() -> None:
    """On a complete crossing, V_host = MS_host / N and V_donor = MS_donor / N."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(8, 1)) + rng.normal(size=(1, 6)) + rng.normal(size=(8, 6))
    host, donor = np.indices(x.shape).reshape(2, -1)
    u = (x - x.mean()).ravel() / 48
    var = twoway_variance(u[None], host[None], donor[None])
    assert var.host[0] == pytest.approx(6 * x.mean(1).var(ddof=1) / 48)
    assert var.donor[0] == pytest.approx(8 * x.mean(0).var(ddof=1) / 48)
    assert var.df[0] == pytest.approx(5)


def test_never_below_either_single_clustering() -> None:
    rng = np.random.default_rng(4)
    u = rng.normal(size=(200, 60))
    u -= u.mean(1, keepdims=True)
    host = np.broadcast_to(np.repeat(np.arange(12), 5), u.shape)
    donor = rng.integers(0, 9, u.shape)
    var = twoway_variance(u, host, donor)
    assert (var.total >= np.maximum(var.host, var.donor)).all()


def test_effective_clusters() -> None:
    ids = np.array([[0, 0, 1, 1], [0, 0, 0, 1]])
    assert effective_clusters(ids, np.ones((2, 4))) == pytest.approx([2.0, 1.6])


def test_undefined_says_why() -> None:
    one = clustered_mean(np.array([1.0, 0.0]), np.array([0, 0]), None, np.ones(2))
    assert np.isnan(one.low) and one.note == "no interval from a single host"
    single = clustered_mean(np.array([1.0, 0.0]), np.array([0, 1]), np.array([3, 3]), np.ones(2))
    assert np.isnan(single.p) and single.note == "no interval from a single donor"
    flat = clustered_mean(np.zeros(4), np.arange(4), None, np.ones(4))
    assert flat.value == 0 and flat.se == 0 and np.isnan(flat.p) and "no variation" in flat.note
    empty = clustered_mean(np.full(3, np.nan), np.arange(3), None, np.ones(3))
    assert np.isnan(empty.value) and empty.note == "no cells"
