"""Two-way clustered standard errors and covariances against closed forms and against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups
from tests.effects.invent import donor_lists

from thoughtgraft.stats.clustered import clustered_mean, effective_number, twoway


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
    assert np.isnan(est.se_donor) and est.n_donors == 0 and est.units == 20


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
    var = twoway(u[:, None], host, donor, np.ones((48, 1)))
    assert var.host[0] == pytest.approx(6 * x.mean(1).var(ddof=1) / 48)
    assert var.donor[0] == pytest.approx(8 * x.mean(0).var(ddof=1) / 48)
    assert var.df[0] == pytest.approx(5)


def _design(columns: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Influences of columns that share host and donor effects, their hosts and donors."""
    rng = np.random.default_rng(seed)
    host, donor = np.repeat(np.arange(30), 6), donor_lists(30, 6, rng).ravel()
    parts = [rng.normal(size=(k, 1)) + rng.normal(size=(k, columns)) for k in (30, 30, 180)]
    x = parts[0][host] + parts[1][donor] + parts[2]
    return (x - x.mean(0)) / len(x), host, donor


def test_covariance_is_that_of_sums_and_differences() -> None:
    """V(a + b) = V(a) + V(b) + 2 C(a, b), with V made from the sum's own influences."""
    u, host, donor = _design(3, seed=5)
    share = np.ones(u.shape)
    covariance = twoway(u, host, donor, share).covariance
    total = twoway(u[:, :1] + u[:, 1:2], host, donor, share[:, :1]).covariance[0, 0]
    assert covariance[:2, :2].sum() == pytest.approx(total)
    apart = twoway(u[:, :1] - u[:, 2:], host, donor, share[:, :1]).covariance[0, 0]
    assert covariance[0, 0] + covariance[2, 2] - 2 * covariance[0, 2] == pytest.approx(apart)
    assert (covariance[~np.eye(3, dtype=bool)] > 0).all()


def test_a_column_that_lacks_cells_is_as_if_alone() -> None:
    u, host, donor = _design(2, seed=6)
    present = np.ones(u.shape, dtype=bool)
    present[host < 10, 1] = False
    u = np.where(present, u, 0.0)
    found = twoway(u, host, donor, present.astype(float))
    own = present[:, 1]
    alone = twoway(u[own, 1:], host[own], donor[own], np.ones((own.sum(), 1)))
    assert found.covariance[1, 1] == pytest.approx(alone.covariance[0, 0])
    assert (found.n_hosts[1], found.n[1]) == (20, 120)
    assert found.df[1] == pytest.approx(alone.df[0])


def test_never_below_either_single_clustering() -> None:
    rng = np.random.default_rng(4)
    u = rng.normal(size=(60, 200))
    u -= u.mean(0)
    host, donor = np.repeat(np.arange(12), 5), donor_lists(12, 5, rng).ravel()
    var = twoway(u, host, donor, np.ones(u.shape))
    assert (np.diag(var.covariance) >= np.maximum(var.host, var.donor)).all()


def test_effective_number() -> None:
    assert effective_number(np.array([[2.0, 3.0, 0.0], [2.0, 1.0, 0.0]])) == pytest.approx([2.0, 1.6, 0.0])


def test_undefined_says_why() -> None:
    one = clustered_mean(np.array([1.0, 0.0]), np.array([0, 0]), None, np.ones(2))
    assert np.isnan(one.low) and one.note == "no interval from a single host"
    single = clustered_mean(np.array([1.0, 0.0]), np.array([0, 1]), np.array([3, 3]), np.ones(2))
    assert np.isnan(single.p) and single.note == "no interval from a single donor"
    flat = clustered_mean(np.zeros(4), np.arange(4), None, np.ones(4))
    assert flat.value == 0 and flat.se == 0 and np.isnan(flat.p) and "no variation" in flat.note
    empty = clustered_mean(np.full(3, np.nan), np.arange(3), None, np.ones(3))
    assert np.isnan(empty.value) and empty.note == "no cells"
