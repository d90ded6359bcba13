"""Agreement of two methods: planted convergence and divergence, calibrated pieces, no verdict from noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.analysis.invent import donor_lists, make_records

from thoughtgraft.analysis.agreement import agreement_table, agreement_verdict, position_by_method
from thoughtgraft.analysis.cells import ArmKey, Cells
from thoughtgraft.analysis.frame import build_frame
from thoughtgraft.analysis.permutation import exact_correlation_p
from thoughtgraft.analysis.profiles import CrossHost, Interval, percentile, split_half_reliability
from thoughtgraft.analysis.resampling import multiplicities

SHAPE = (0.05, 0.4, 0.2, 0.6, 0.1, 0.3)


def profile_records(zero_shape: tuple[float, ...], seed: int = 0, n: int = 100) -> pd.DataFrame:
    swap = make_records(n, 5, loss={(k,): v for k, v in enumerate(SHAPE)}, base_acc=1.0, seed=seed)
    zero = make_records(
        n, 5, loss={(k,): v for k, v in enumerate(zero_shape)}, methods=("zero",), base_acc=1.0, seed=seed
    )
    return pd.concat([swap, zero[zero.method == "zero"]], ignore_index=True)


def test_same_shape_converges() -> None:
    found = agreement_table(profile_records(SHAPE)).iloc[0]
    assert found.verdict == "CONVERGENT" and found.r_dis_low > 0.5 and found.r_dis_low < 1 < found.r_dis_high + 0.1
    assert 0.8 < found.ceiling <= 1 and found.critical_r == pytest.approx(0.811, abs=5e-4)
    assert "no p-value on 6 means" in found.note and found.p_exact_exploratory < 0.05


def test_opposite_shape_diverges() -> None:
    found = agreement_table(profile_records(tuple(0.65 - v for v in SHAPE))).iloc[0]
    assert found.verdict == "DIVERGENT" and found.interaction_p < 0.05 and found.r_dis_high < 0.5


def test_noise_is_inconclusive() -> None:
    found = agreement_table(profile_records((0.02,) * 6, n=30)).iloc[0]
    assert found.verdict == "INCONCLUSIVE"


def test_verdict_rule() -> None:
    assert agreement_verdict(Interval(0.9, 0.6, 1.0), 0.9) == "CONVERGENT"
    assert agreement_verdict(Interval(0.1, -0.2, 0.4), 0.01) == "DIVERGENT"
    assert agreement_verdict(Interval(0.1, -0.2, 0.4), 0.2) == "INCONCLUSIVE"
    assert agreement_verdict(Interval(0.5, np.nan, np.nan), 0.001) == "INCONCLUSIVE"


def test_reliability_is_that_of_the_mean_profile() -> None:
    """Spearman-Brown on random halves equals true variance / observed variance, in the mean over 200 runs, seed 0."""
    rng = np.random.default_rng(0)
    truth = np.linspace(-1, 1, 6)
    found = [split_half_reliability(truth + rng.normal(0, 4, (50, 6)), rng, 50) for _ in range(200)]
    spread = truth.var(ddof=1)
    assert np.median(found) == pytest.approx(spread / (spread + 16 / 50), abs=0.06)
    assert np.isnan(split_half_reliability(np.zeros((3, 6)), rng))
    assert np.isnan(split_half_reliability(np.zeros((9, 6)), rng))


def test_disattenuated_r_is_unbiased_and_covered() -> None:
    """True r .6, profiles whose errors share hosts: 400 runs of 100 hosts, seed 1; the plain r is pulled by them."""
    rng = np.random.default_rng(1)
    x = np.array([1.0, -1.0, 0.5, -0.5, 0.8, -0.8])
    y = np.array([1.0, 0.2, 0.5, -0.9, -0.2, -0.6])
    truth = float(np.corrcoef(x, y)[0, 1])
    values, covered = [], 0
    for _ in range(400):
        shared = rng.normal(0, 2, (100, 6))
        cross = CrossHost(x + shared + rng.normal(size=(100, 6)), y + shared + rng.normal(size=(100, 6)))
        value = float(cross(np.ones((1, 100)))[0])
        interval = percentile(value, cross(multiplicities(100, 400, rng)), "r")
        values.append(value)
        covered += interval.low <= truth <= interval.high
    assert np.mean(values) == pytest.approx(truth, abs=0.02)
    assert covered / 400 >= 0.92


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
                Cells(ArmKey("swap", (k,)), 0, host[key], donor[key], np.tile(np.arange(5), 40), loss[key],
                      none, none, ones, none, none, *c)
            )  # fmt: skip
            z, e = np.zeros(40), np.zeros(40, int)
            other = 0.5 * rng.normal(size=40) + 0.1 * k
            second.append(Cells(ArmKey("zero", (k,)), 0, own, e - 1, e, other, z, z, z, z, z, e, e, e, e))
        rejected += position_by_method(first, second).p < 0.05
    assert rejected / 600 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


def test_interaction_survives_missing_cells() -> None:
    records = profile_records(SHAPE, n=30)
    swaps = records.index[records.method == "swap"]
    frame = build_frame(records.drop(index=[swaps[0], swaps[200]]))
    arms = [list(frame.singles(m, "recompute", s).values()) for m, s in (("swap", "random"), ("zero", ""))]
    assert 0 <= position_by_method(*arms).p <= 1


def test_exact_p_counts_orders() -> None:
    assert exact_correlation_p(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])) == pytest.approx(2 / 6)
