"""Intervals of a family: each method against its textbook form, and what holds for all members at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from tests.effects.invent import donor_lists

from thoughtgraft.errors import AnalysisError
from thoughtgraft.stats.clustered import clustered_mean
from thoughtgraft.stats.intervals import Bounds, Sample, clopper_pearson, family_bounds, mover
from thoughtgraft.stats.resampling import simultaneous_level

N, D = 50, 5
HOST = np.repeat(np.arange(N), D)
DONOR = donor_lists(N, D, np.random.default_rng(0)).ravel()


def crossed(values: np.ndarray, kind: str = "difference", **options: object) -> Sample:
    return Sample(np.asarray(values, dtype=float), HOST, DONOR, np.ones(N * D), kind, **options)  # type: ignore[arg-type]


def per_host(values: np.ndarray, kind: str) -> Sample:
    return Sample(np.asarray(values, dtype=float), np.arange(len(values)), None, np.ones(len(values)), kind)  # type: ignore[arg-type]


def first(n: int, of: int) -> np.ndarray:
    return (np.arange(of) < n).astype(float)


def ends(found: Bounds) -> list[float]:
    return [found.low, found.high, found.sim_low, found.sim_high]


def test_many_differ_two_way_t() -> None:
    sample = crossed(np.random.default_rng(0).choice([-1, 0, 1], N * D, p=[0.3, 0.4, 0.3]))
    found = family_bounds([sample])[0]
    wanted = clustered_mean(sample.values, sample.host, sample.donor, sample.weight)
    assert found.method == "two-way t" and found.note == "" and not found.too_small
    assert ends(found) == pytest.approx([wanted.low, wanted.high] * 2)
    assert found.estimate.p == pytest.approx(wanted.p)


def test_many_lost_and_few_gained_is_no_t() -> None:
    values = first(100, N * D)[np.random.default_rng(0).permutation(N * D)]
    assert family_bounds([crossed(values)])[0].method == "two-way t"
    values[np.flatnonzero(values == 0)[:10]] = -1
    assert family_bounds([crossed(values)])[0].method == "proportions"


@pytest.mark.parametrize("lost", [1, 4, 12])
def test_few_differ_one_cell_per_host_is_clopper_pearson(lost: int) -> None:
    found = family_bounds([per_host(first(lost, 100), "share")])[0]
    # With one cell per host the clustered variance is the binomial one times n/(n-1): by so much are there fewer tries,
    # unless events are so few that a host counts as one try.
    drawn = 1 - lost / 30
    tries = 100 / max(100 / 99, (1 - drawn) * 100 / 99 + drawn)
    words = "1 host or donor" if lost == 1 else f"{lost} hosts or donors"
    wanted = proportion_confint(lost / 100 * tries, tries, method="beta")
    assert found.method == "proportions" and f"few differ ({words})" in found.note
    assert (found.low, found.high) == pytest.approx(wanted, rel=1e-9)


def test_a_host_counts_as_one_try_where_one_differs() -> None:
    """3 lost cells of one host do not bound a loss better than one lost host of 50 does."""
    found = family_bounds([crossed(first(3, N * D), "share")])[0]
    alone = proportion_confint(3 / D, N, method="beta")
    assert found.method == "proportions"
    assert found.high == pytest.approx(alone[1], rel=0.05)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_every_cell_equal_is_exact(value: float) -> None:
    bound = 1 - 0.05**0.01
    difference = family_bounds([per_host(np.full(100, value), "difference")])[0]
    reach = bound if value == 0 else 2 * bound
    assert difference.method == "exact"
    wanted = max(value - reach, -1.0), min(value + reach, 1.0)
    assert (difference.low, difference.high) == pytest.approx(wanted)
    if value >= 0:
        share = family_bounds([per_host(np.full(100, value), "share")])[0]
        assert (share.low, share.high) == pytest.approx((max(value - bound, 0.0), min(value + bound, 1.0)))
        assert np.isnan(share.estimate.p)


def test_units_of_an_exact_bound_are_the_fewer_of_hosts_and_donors() -> None:
    host, donor = np.repeat(np.arange(40), 3), np.tile(np.arange(3), 40)
    found = family_bounds([Sample(np.zeros(120), host, donor, np.ones(120), "difference")])[0]
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 3))


def test_less_than_half_an_independent_event_is_no_evidence_of_any() -> None:
    """One lost cell of 250 is less than half a lost host: its share is not shown to be above 0, nor above chance."""
    once = first(1, N * D)
    assert family_bounds([crossed(once, "share")])[0].low == 0.0
    assert family_bounds([crossed(once, "share", null_influence=np.zeros(N * D))])[0].low == 0.0
    assert family_bounds([crossed(first(D, N * D), "share")])[0].low > 0.0


def test_mover_with_wilson_bounds_is_newcombes() -> None:
    hits, tries = np.array([12.0, 5.0]), np.array([40.0, 50.0])
    bounds = [np.array(proportion_confint(h, n, method="wilson"))[:, None] for h, n in zip(hits, tries, strict=True)]
    p = hits / tries
    low, high = mover(p[:1], bounds[0], p[1:], bounds[1], np.zeros(1))
    wanted = confint_proportions_2indep(hits[0], tries[0], hits[1], tries[1], method="newcomb", compare="diff")
    assert (low[0], high[0]) == pytest.approx(wanted, abs=1e-6)


def test_clopper_pearson_is_statsmodels() -> None:
    hits, tries = np.array([0.0, 1.0, 7.0, 20.0]), np.full(4, 20.0)
    wanted = proportion_confint(hits, tries, alpha=0.01, method="beta")
    assert clopper_pearson(hits / tries, tries, np.full(4, 0.01)) == pytest.approx(np.stack(wanted))


@pytest.mark.parametrize("members", [2, 6, 28])
def test_max_t_of_independent_normals_is_sidak(members: int) -> None:
    level = simultaneous_level(np.eye(members), np.inf)
    assert stats.norm.isf(level / 2) == pytest.approx(stats.norm.isf((1 - 0.95 ** (1 / members)) / 2), abs=0.005)


@pytest.mark.parametrize("df", [5, 20, 200])
def test_max_t_is_the_box_of_a_multivariate_t(df: int) -> None:
    covariance = np.array([[4.0, 1.2, 0.2], [1.2, 1.0, 0.5], [0.2, 0.5, 2.0]])
    scale = np.sqrt(np.diag(covariance))
    critical = np.full(3, stats.t.isf(simultaneous_level(covariance, df) / 2, df))
    box = stats.multivariate_t(shape=covariance / np.outer(scale, scale), df=df, seed=1)
    assert box.cdf(critical, lower_limit=-critical, maxpts=200_000) == pytest.approx(0.95, abs=1e-3)


def test_max_t_of_copies_costs_nothing_and_of_the_impossible_bonferroni() -> None:
    assert simultaneous_level(np.ones((6, 6)), 20) == pytest.approx(0.05, abs=1e-4)
    impossible = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    assert simultaneous_level(impossible, 20) == pytest.approx(0.05 / 3)


def test_undefined_says_why_and_widens_nobody() -> None:
    whole = crossed(np.random.default_rng(0).choice([-1, 0, 1], N * D))
    none = Sample(np.zeros(0), np.zeros(0, int), None, np.zeros(0), "share")
    single = Sample(np.array([1.0, 0.0]), np.zeros(2, int), np.arange(2), np.ones(2), "share")
    found = family_bounds([none, whole, single])
    assert np.isnan(ends(found[0])).all() and found[0].note == "no cells" and found[0].method == ""
    assert np.isnan(ends(found[2])).all() and found[2].note == "no interval from a single host"
    assert found[2].estimate.value == 0.5
    assert found[1].sim_low == pytest.approx(found[1].low)
    few = HOST < 10
    small = Sample(whole.values[few], HOST[few], DONOR[few], np.ones(few.sum()), "difference")
    assert family_bounds([whole, small])[0].sim_low == pytest.approx(found[1].low)


def test_cells_that_weigh_nothing_are_not_counted() -> None:
    own = HOST < 30
    sample = crossed(np.zeros(N * D), "share", null=0.1, null_influence=np.where(HOST < 25, 1e-3, -1e-3))
    found = family_bounds([replace(sample, weight=own.astype(float))])[0]
    assert (found.estimate.n_hosts, found.estimate.n) == (30, 30 * D)
    assert found.method == "exact" and found.high > 1 - 0.05 ** (1 / 30) - 0.1


@pytest.mark.parametrize("kind", ["real", "difference", "share"])
def test_few_hosts_or_donors_are_too_small_for_a_verdict(kind: str) -> None:
    x = (np.random.default_rng(0).random(N * D) < 0.5).astype(float)
    assert not family_bounds([crossed(x, kind)])[0].too_small
    for kept in (HOST < 19, np.isin(DONOR, np.unique(DONOR)[:4])):
        small = Sample(x[kept], HOST[kept], DONOR[kept], np.ones(kept.sum()), kind)  # type: ignore[arg-type]
        assert family_bounds([small])[0].too_small
    alone = Sample(x[:20], np.arange(20), None, np.ones(20), kind)  # type: ignore[arg-type]
    assert not family_bounds([alone])[0].too_small


def test_equal_real_values_have_no_interval() -> None:
    flat = family_bounds([crossed(np.full(N * D, 0.3), "real")])[0]
    assert np.isnan(flat.low) and flat.too_small and flat.note == "no variation: no t interval"


def test_draws_of_one_host_are_cells_but_not_hosts() -> None:
    """Noise has several draws per host and no donors: as if each host had its mean."""
    values = (np.random.default_rng(3).random(N * D) < 0.4).astype(float)
    found = family_bounds([Sample(values, HOST, None, np.ones(N * D), "share")])[0]
    means = values.reshape(N, D).mean(1)
    assert (found.estimate.n_hosts, found.estimate.n_donors, found.estimate.n) == (N, 0, N * D)
    assert found.estimate.se == pytest.approx(stats.sem(means))
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, N - 1, means.mean(), stats.sem(means)))


@pytest.mark.parametrize(("kind", "expected"), [("difference", "-1, 0, 1"), ("share", "0, 1")])
def test_values_that_a_kind_cannot_have_are_refused(kind: str, expected: str) -> None:
    values = np.zeros(N * D)
    values[3] = 2.0
    with pytest.raises(AnalysisError, match=f"a {kind} has other values .*; got 2; expected {expected}"):
        family_bounds([crossed(values, kind)])


def test_what_chance_gives_is_subtracted_with_its_error() -> None:
    rng = np.random.default_rng(1)
    hits = (rng.random(N * D) < 0.4).astype(float)
    plain = family_bounds([crossed(hits, "share")])[0]
    fixed = family_bounds([crossed(hits, "share", null=0.1)])[0]
    assert (fixed.low, fixed.high) == pytest.approx((plain.low - 0.1, plain.high - 0.1))
    noise = rng.normal(0, 0.005, N * D)
    unsure = family_bounds([crossed(hits, "share", null=0.1, null_influence=noise - noise.mean())])[0]
    assert unsure.high - unsure.low > fixed.high - fixed.low
    none = family_bounds([crossed(np.zeros(N * D), "share", null=0.1)])[0]
    assert (none.low, none.high) == pytest.approx((-0.1, 1 - 0.05 ** (1 / N) - 0.1))


@pytest.mark.parametrize("lost", [2, 10, 25, 120])
def test_p_is_the_level_that_just_leaves_0_out(lost: int) -> None:
    sample = crossed(np.random.default_rng(lost).permutation(first(lost, N * D)))
    p = family_bounds([sample])[0].estimate.p
    if p < 1:
        assert abs(family_bounds([sample], alpha=p)[0].low) < 1e-3
    for alpha in (0.01, 0.05, 0.2):
        assert (p < alpha) == (family_bounds([sample], alpha=alpha)[0].low > 0)


@st.composite
def families(draw: st.DrawFn) -> list[Sample]:
    """Up to four members over one crossing, some of whose cells are missing."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n, d = draw(st.integers(2, 25)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["difference", "share", "real"]))
    host, donor = np.repeat(np.arange(n), min(d, n - 1)), donor_lists(n, min(d, n - 1), rng).ravel()
    samples = []
    for _ in range(draw(st.integers(1, 4))):
        p = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))
        values = (rng.random(len(host)) < p).astype(float)
        if kind == "difference":
            values -= (values == 0) & (rng.random(len(host)) < draw(st.sampled_from([0.0, 0.05])))
        values = rng.normal(size=len(host)) if kind == "real" else values
        kept = rng.random(len(host)) < draw(st.sampled_from([0.7, 1.0]))
        samples.append(Sample(values[kept], host[kept], donor[kept], rng.random(kept.sum()) + 0.1, kind))  # type: ignore[arg-type]
    return samples


@settings(max_examples=150, deadline=None)
@given(families())
def test_intervals_of_any_family_are_intervals(samples: list[Sample]) -> None:
    found = family_bounds(samples)
    for sample, one in zip(samples, found, strict=True):
        if np.isnan(ends(one)).any():
            assert np.isnan(ends(one)).all() and one.note and not one.method
            continue
        slack = 1e-9
        assert one.sim_low - slack <= one.low <= one.estimate.value + slack
        assert one.estimate.value - slack <= one.high <= one.sim_high + slack
        assert one.low < one.high and (one.estimate.low, one.estimate.high) == (one.low, one.high)
        if sample.kind != "real":
            assert one.sim_low >= (0.0 if sample.kind == "share" else -1.0) and one.sim_high <= 1.0
    assert repr(family_bounds(samples)) == repr(found)
    turned = family_bounds([_shuffled(sample) for sample in samples[::-1]])[::-1]
    for one, other in zip(found, turned, strict=True):
        # Max-t is a quasi-Monte Carlo sum, whose coordinates are the members in order.
        assert ends(one) == pytest.approx(ends(other), rel=5e-3, abs=1e-9, nan_ok=True)


def _shuffled(sample: Sample) -> Sample:
    order = np.random.default_rng(0).permutation(len(sample.values))
    names = ("values", "host", "donor", "weight")
    return replace(sample, **{name: getattr(sample, name)[order] for name in names})
