"""Per-problem sensitivity: shrinkage, its limits, and the reliability of the ranking."""

from __future__ import annotations

import numpy as np
import pytest
from tests.effects.invent import make_records

from thoughtgraft.effects.per_problem import BetaPrior, donor_split_reliability, fit_beta_binomial, per_problem, shrink


def test_prior_is_recovered() -> None:
    rng = np.random.default_rng(0)
    rates = rng.beta(2, 6, 3_000)
    prior = fit_beta_binomial(rng.binomial(60, rates).astype(float), np.full(3_000, 60.0))
    assert (prior.alpha, prior.beta) == pytest.approx((2, 6), rel=0.1) and prior.spread


def test_equal_problems_are_not_told_apart() -> None:
    assert not fit_beta_binomial(np.full(50, 5.0), np.full(50, 50.0)).spread
    assert not fit_beta_binomial(np.zeros(50), np.full(50, 50.0)).spread
    table = per_problem(make_records(60, 5, loss={(0,): 0.0, (1,): 0.0}, seed=1))
    assert (table.table.sensitivity < 0.001).all() and table.table.most_sensitive_slot.isna().all()
    assert np.isnan(table.reliability) and "undefined" in table.note


def test_shrinkage_is_the_posterior_mean() -> None:
    mean, low, high = shrink(np.array([0.0, 10.0]), np.array([10.0, 10.0]), BetaPrior(2, 2, True))
    assert mean == pytest.approx([2 / 14, 12 / 14])
    assert (low < mean).all() and (mean < high).all()


def test_shrunken_rates_are_closer_to_the_truth() -> None:
    rng = np.random.default_rng(2)
    rates = rng.beta(3, 9, 500)
    hits = rng.binomial(10, rates).astype(float)
    mean, low, high = shrink(hits, np.full(500, 10.0), fit_beta_binomial(hits, np.full(500, 10.0)))
    assert ((mean - rates) ** 2).mean() < 0.7 * ((hits / 10 - rates) ** 2).mean()
    assert 0.92 <= ((low <= rates) & (rates <= high)).mean() <= 0.98


def test_sensitive_problems_come_first() -> None:
    found = per_problem(make_records(60, 8, loss={(k,): 0.4 for k in range(4)}, host_sd=0.25, seed=3))
    assert found.reliability > 0.7 and found.prior.spread and found.n_hosts == 60
    assert found.table.sensitivity.is_monotonic_decreasing
    centre = found.prior.alpha / (found.prior.alpha + found.prior.beta)
    assert ((found.table.sensitivity - centre).abs() <= (found.table.rate - centre).abs() + 1e-9).all()


def test_reliability_matches_its_definition() -> None:
    """Hosts' variance / (hosts' + error variance of a mean over 20 donors): 1 / (1 + 4/20), seed 4."""
    rng = np.random.default_rng(4)
    host, donor = np.indices((800, 20)).reshape(2, -1)
    x = rng.normal(size=800)[host] + 2 * rng.normal(size=host.size)
    assert donor_split_reliability(x, host, donor, rng) == pytest.approx(1 / 1.2, abs=0.04)
