"""Agreement of two methods: planted profiles, calibrated pieces, no verdict from noise or from few problems."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.effects.invent import donor_lists, make_records

from thoughtgraft.effects.comparisons import AT_LEAST_1, agreement_table, position_by_method
from thoughtgraft.effects.frame import Cells, build_frame
from thoughtgraft.effects.gates import Known, Rule
from thoughtgraft.records.schema import Family
from thoughtgraft.stats.paired import Profile, joint, percentile
from thoughtgraft.stats.resampling import exact_correlation_p, multiplicities

SHAPE = (0.05, 0.4, 0.2, 0.6, 0.1, 0.3)


def profile_records(zero_shape: tuple[float, ...], seed: int = 0, n: int = 100) -> pd.DataFrame:
    swap = make_records(n, 5, loss={(k,): v for k, v in enumerate(SHAPE)}, base_acc=1.0, seed=seed)
    zero = make_records(
        n, 5, loss={(k,): v for k, v in enumerate(zero_shape)}, methods=("zero",), base_acc=1.0, seed=seed
    )
    return pd.concat([swap, zero[zero.method == "zero"]], ignore_index=True)


def test_the_same_shape_is_the_same_profile() -> None:
    found = agreement_table(profile_records(SHAPE)).iloc[0]
    assert found.verdict == "SAME PROFILE" and 0.5 < found.r_dis_low <= found.r_disattenuated <= found.r_dis_high <= 1
    assert 0.8 < found.ceiling <= 1 and found.critical_r == pytest.approx(0.811, abs=5e-4)
    assert "no p-value on 6 means" in found.note and found.p_exact_exploratory < 0.05


def test_the_same_shape_at_another_size_is_said() -> None:
    found = agreement_table(profile_records(tuple(v / 3 for v in SHAPE))).iloc[0]
    assert found.verdict == "SAME ORDER, OTHER SIZES" and found.interaction_p < 0.05 and found.r_dis_low > 0.5


def test_the_opposite_shape_is_another_profile() -> None:
    found = agreement_table(profile_records(tuple(0.65 - v for v in SHAPE))).iloc[0]
    assert found.verdict == "OTHER PROFILE" and found.interaction_p < 0.05 and found.r_dis_high < 0.5


def test_noise_is_unresolved() -> None:
    assert agreement_table(profile_records((0.02,) * 6, n=30)).iloc[0].verdict == "UNRESOLVED"


def test_a_design_too_small_for_intervals_is_unresolved_and_says_so() -> None:
    found = agreement_table(profile_records(SHAPE, n=19)).iloc[0]
    assert found.verdict == "UNRESOLVED" and "too small" in found.note


def test_an_estimate_above_1_is_cut_and_said() -> None:
    tables = [agreement_table(profile_records(SHAPE, seed=seed, n=40), resamples=200).iloc[0] for seed in range(6)]
    above = [found for found in tables if AT_LEAST_1 in found.note]
    assert above and all(found.r_disattenuated == found.r_dis_high == 1 for found in above)
    assert all(found.r_disattenuated <= 1 and found.r_dis_high <= 1 for found in tables)


def test_the_rule_gives_bar_level_and_alpha() -> None:
    records = profile_records(SHAPE)
    usual = agreement_table(records).iloc[0]
    assert agreement_table(records, known=Known(rule=Rule(alpha=0.2))).iloc[0].r_dis_low > usual.r_dis_low
    strict = agreement_table(records, known=Known(rule=Rule(agreement_bar=0.999))).iloc[0]
    assert strict.verdict == "UNRESOLVED" and strict.r_dis_low == usual.r_dis_low


def test_slots_whose_effect_is_0_by_construction_are_no_evidence() -> None:
    found = agreement_table(profile_records(SHAPE), known=Known(dead_slots=(0, 5))).iloc[0]
    assert found.label == "CT1, CT2, CT3, CT4" and found.slots == (1, 2, 3, 4) and found.n_slots == 4
    assert agreement_table(profile_records(SHAPE), known=Known(dead_slots=(0, 1, 2, 5))).empty


X = np.array([1.0, -1.0, 0.5, -0.5, 0.8, -0.8])
Y = np.array([1.0, 0.2, 0.5, -0.9, -0.2, -0.6])
TRUTH = float(np.corrcoef(X, Y)[0, 1])


def crossed(rng: np.random.Generator, donor_sd: float, n: int = 60, d: int = 6) -> tuple[Profile, Profile]:
    """Profiles of true correlation `TRUTH`; hosts' quirks are shared by both, donors' are in the first alone."""
    host, donor = np.repeat(np.arange(n), d), donor_lists(n, d, rng).ravel()
    quirks, lent = rng.normal(0, 1, (n, 6)), rng.normal(0, donor_sd, (n, 6))
    first = X + quirks[host] + lent[donor] + rng.normal(size=(n * d, 6))
    return Profile(first, host, donor), Profile(Y + quirks + rng.normal(size=(n, 6)), np.arange(n), None)


def ones(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((n, 1)), np.ones((m, 1))


def test_the_closed_form_is_the_mean_over_pairs_that_share_neither_host_nor_donor() -> None:
    """Against a plain double loop, in the sample and in a resample that leaves a donor out."""
    rng = np.random.default_rng(5)
    a, b = crossed(rng, 1.0, n=7, d=2)
    hosts, donors = rng.integers(0, 3, 7).astype(float), np.array([0, 2, 1, 1, 3, 1, 1.0])
    for w, v in ((np.ones(7), np.ones(7)), (hosts, donors)):
        met = np.array([v[a.donor[a.host == h]].sum() for h in range(7)])
        weight = np.array([w[h] * v[d] / met[h] if met[h] else 0.0 for h, d in zip(a.host, a.donor, strict=True)])
        x = a.values - a.values.mean(1, keepdims=True)
        y = b.values - b.values.mean(1, keepdims=True)
        xx = pairs = xy = between = 0.0
        for i in range(14):
            for j in range(14):
                if a.host[i] != a.host[j] and a.donor[i] != a.donor[j]:
                    xx += weight[i] * weight[j] * (x[i] @ x[j])
                    pairs += weight[i] * weight[j]
            for h in range(7):
                if a.host[i] != h and met[h]:
                    xy += weight[i] * w[h] * (x[i] @ y[h])
                    between += weight[i] * w[h]
        drawn = a.drawn(w[:, None], v[:, None])
        assert drawn.variance[0] == pytest.approx(xx / pairs)
        other = b.drawn(w[:, None], v[:, None])
        found = joint(drawn, other).disattenuated[0]
        if np.isfinite(found):
            assert found == pytest.approx(xy / between / np.sqrt(drawn.variance[0] * other.variance[0]))


@pytest.mark.parametrize("donor_sd", [0.0, 2.0])
def test_disattenuated_r_is_unbiased_and_covered_whatever_donors_do(donor_sd: float) -> None:
    """True r .6, errors shared through hosts and donors: 150 runs of 60 x 6, seed 1.

    Resampling hosts alone covers too little where donors vary: that is what the last line would catch.
    """
    rng = np.random.default_rng(1)
    values, covered = [], 0
    for _ in range(150):
        a, b = crossed(rng, donor_sd)
        draws = multiplicities(60, 300, rng).T, multiplicities(60, 300, rng).T
        value = float(joint(a.drawn(*ones(60, 60)), b.drawn(*ones(60, 60))).disattenuated[0])
        interval = percentile(value, joint(a.drawn(*draws), b.drawn(*draws)).disattenuated, "r")
        values.append(value)
        covered += interval.low <= TRUTH <= interval.high
    assert np.mean(values) == pytest.approx(TRUTH, abs=0.03)
    assert covered / 150 >= 0.92


def test_reliability_is_what_is_left_of_the_mean_profiles_spread() -> None:
    """True sum of squares over the mean profile's own, in the mean over 200 runs, seed 0."""
    rng = np.random.default_rng(0)
    true, left = float((X**2).sum()), []
    for _ in range(200):
        a, b = crossed(rng, 2.0)
        found = joint(a.drawn(*ones(60, 60)), b.drawn(*ones(60, 60)))
        left.append(float(found.reliability[0][0] * ((found.first[0] - found.first[0].mean()) ** 2).sum()))
    assert np.mean(left) == pytest.approx(true, rel=0.05)


def test_interaction_holds_its_level() -> None:
    """600 nulls (same expected profile for both methods, hosts and donors varying), 40 x 5 x 6 slots, seed 2."""
    rng = np.random.default_rng(2)
    rejected = 0
    host = np.repeat(np.arange(40), 5)
    none, ones = np.zeros(200), np.ones(200)
    for _ in range(600):
        donor = donor_lists(40, 5, rng).ravel()
        first, second = [], []
        own = np.arange(40)
        for k in range(6):
            loss = 0.5 * rng.normal(size=40)[host] + 0.5 * rng.normal(size=40)[donor] + rng.normal(size=200) + 0.1 * k
            key = np.argsort(host * 1000 + donor, kind="stable")
            c = [none.astype(int)] * 4
            first.append(
                Cells(Family("swap").at((k,)), 0, host[key], donor[key], np.tile(np.arange(5), 40), loss[key],
                      none, none, ones, none, none, *c)
            )  # fmt: skip
            z, e = np.zeros(40), np.zeros(40, int)
            other = 0.5 * rng.normal(size=40) + 0.1 * k
            second.append(Cells(Family("zero").at((k,)), 0, own, e - 1, e, other, z, z, z, z, z, e, e, e, e))
        rejected += position_by_method(first, second).p < 0.05
    assert rejected / 600 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


def test_interaction_survives_missing_cells() -> None:
    records = profile_records(SHAPE, n=30)
    swaps = records.index[records.method == "swap"]
    frame = build_frame(records.drop(index=[swaps[0], swaps[200]]))
    arms = [list(frame.singles(family).values()) for family in (frame.primary, Family("zero"))]
    assert 0 <= position_by_method(*arms).p <= 1


def test_slots_that_both_methods_leave_alone_say_nothing_against_agreement() -> None:
    """Three slots without any loss in either method: the test is that of the three others; no loss at all, p is 1."""
    shape = (0.0, 0.4, 0.0, 0.6, 0.0, 0.3)
    swap = make_records(100, 5, loss={(k,): v for k, v in enumerate(shape)}, base_acc=1.0, seed=1)
    zero = make_records(100, 5, loss={(k,): v for k, v in enumerate(shape)}, methods=("zero",), base_acc=1.0, seed=2)
    frame = build_frame(pd.concat([swap, zero[zero.method == "zero"]], ignore_index=True))
    first, second = (list(frame.singles(family).values()) for family in (frame.primary, Family("zero")))
    found = position_by_method(first, second)
    assert found.df1 == 3 and 0.01 < found.p <= 1
    assert position_by_method(first[::2], second[::2]).p == 1
    assert agreement_table(frame).iloc[0].verdict == "SAME PROFILE"


def test_exact_p_counts_orders() -> None:
    assert exact_correlation_p(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])) == pytest.approx(2 / 6)
