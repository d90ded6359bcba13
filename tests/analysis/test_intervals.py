"""Intervals of a family: each method against its textbook form, and what holds for all members at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from tests.analysis.invent import donor_lists

from thoughtgraft.analysis.clustered import clustered_mean
from thoughtgraft.analysis.intervals import Sample, family_bounds
from thoughtgraft.analysis.multiplicity import simultaneous_level

HOST = np.repeat(np.arange(50), 5)


def crossed(values: np.ndarray, kind: str = "difference", seed: int = 0) -> Sample:
    donor = donor_lists(50, 5, np.random.default_rng(seed)).ravel()
    return Sample(values.astype(float), HOST, donor, np.ones(len(values)), kind)  # type: ignore[arg-type]


def test_many_hosts_differ_two_way_t() -> None:
    values = np.random.default_rng(0).choice([-1, 0, 1], 250, p=[0.1, 0.6, 0.3])
    sample = crossed(values)
    found = family_bounds([sample])[0]
    wanted = clustered_mean(sample.values, sample.host, sample.donor, sample.weight)
    assert found.method == "two-way t" and not found.too_small
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert (found.sim_low, found.sim_high) == pytest.approx((found.low, found.high))


def test_one_cell_per_host_few_differ_is_clopper_pearson() -> None:
    values = np.zeros(100)
    values[:4] = 1
    found = family_bounds([Sample(values, np.arange(100), None, np.ones(100), "share")])[0]
    assert found.method == "proportions"
    # With one cell per host the clustered variance is the binomial one times n/(n-1).
    wanted = proportion_confint(4 * 0.99, 99, method="beta")
    assert (found.low, found.high) == pytest.approx(wanted, rel=1e-9)


def test_every_cell_equal_is_exact() -> None:
    found = family_bounds([Sample(np.zeros(100), np.arange(100), None, np.ones(100), "difference")])[0]
    assert found.method == "exact"
    assert (found.low, found.high) == pytest.approx((-(1 - 0.05**0.01), 1 - 0.05**0.01))


@pytest.mark.parametrize("members", [2, 6, 28])
def test_max_t_of_independent_normals_is_sidak(members: int) -> None:
    level = simultaneous_level(np.eye(members), np.inf)
    assert stats.norm.isf(level / 2) == pytest.approx(stats.norm.isf((1 - 0.95 ** (1 / members)) / 2), abs=0.005)


def test_max_t_of_copies_costs_nothing_and_of_the_impossible_bonferroni() -> None:
    assert simultaneous_level(np.ones((6, 6)), 20) == pytest.approx(0.05, abs=1e-4)
    impossible = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    assert simultaneous_level(impossible, 20) == pytest.approx(0.05 / 3)


def test_undefined_says_why_and_widens_nobody() -> None:
    whole = crossed(np.random.default_rng(0).choice([-1, 0, 1], 250))
    none = Sample(np.zeros(0), np.zeros(0, int), None, np.zeros(0), "share")
    found = family_bounds([none, whole])
    assert np.isnan(found[0].low) and found[0].note == "no cells" and found[0].method == ""
    assert found[1].sim_low == pytest.approx(found[1].low)
