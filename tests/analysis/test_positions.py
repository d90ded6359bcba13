"""The position table and its bootstrap on invented records whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.analysis.invent import make_records

from thoughtgraft.analysis import bootstrap_table, build_frame, position_table
from thoughtgraft.analysis.bootstrap import pigeonhole
from thoughtgraft.analysis.estimate import COLUMNS

LOSS = {(0,): 0.0, (1,): 0.3, (2,): 1.0, (3,): 0.01, (0, 1, 2, 3): 0.8, (0, 1): 0.3}


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    return make_records(100, 10, loss=LOSS, methods=("swap", "zero", "noise"), adopt=0.5, host_sd=0.05, seed=5)


@pytest.fixture(scope="module")
def table(records: pd.DataFrame) -> pd.DataFrame:
    return position_table(records)


def row(table: pd.DataFrame, slots: str, method: str = "swap") -> pd.Series:
    return table[(table.slots == slots) & (table.method == method)].iloc[0]


def test_columns_and_arithmetic(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(COLUMNS)
    assert table.base_acc.nunique() == 1
    assert table.impact_pp.to_numpy() == pytest.approx(100 * (table.base_acc - table.acc).to_numpy())
    assert (table.lost - table.gained).to_numpy() == pytest.approx((table.impact_pp * table.n_gen / 100).to_numpy())


def test_planted_effects_are_recovered(table: pd.DataFrame) -> None:
    for slots, loss in (("CT1", 0.3), ("all", 0.8), ("CT0-CT1", 0.3)):
        found = row(table, slots)
        # Within a whole interval's width, about four standard errors: one seed must not decide.
        width = found.impact_given_correct_ci_high - found.impact_given_correct_ci_low
        assert abs(found.impact_given_correct_pp - 100 * loss) < width < 15
        assert found.verdict == "not equivalent" and found.p < 1e-6
    assert row(table, "CT1").p_holm < 1e-6 and row(table, "CT1").p_maxT == pytest.approx(1e-4)
    assert row(table, "CT2").impact_pp == pytest.approx(100 * row(table, "CT2").base_acc, abs=3)


def test_inert_slot_is_bounded_and_equivalent(table: pd.DataFrame) -> None:
    found = row(table, "CT0")
    assert found.impact_pp == 0 and np.isnan(found.ci_low) and np.isnan(found.p) and np.isnan(found.p_holm)
    assert found.zero_bound_pp == pytest.approx(100 * (1 - 0.05**0.01))
    assert found.verdict == "equivalent" and "exact 95% upper bound 2.95 pp" in found.note
    few = position_table(make_records(20, 5, loss={(0,): 0.0}))
    assert row(few, "CT0").verdict == "underpowered"


def test_structurally_dead_slot_is_named(records: pd.DataFrame) -> None:
    dead = records.copy()
    still = (dead.method == "swap") & (dead.slots.map(tuple) == (0,))
    dead.loc[still, ["dlogp_gold", "kl"]] = 0.0
    assert row(position_table(dead), "CT0").verdict == "structurally null"


def test_every_undefined_figure_has_a_reason(table: pd.DataFrame) -> None:
    shown = ["ci_low", "impact_given_correct_ci_low", "adoption_excess", "dlogp"]
    assert (table[table[shown].isna().any(axis=1)].note != "").all()


def test_total_loss_has_an_exact_interval() -> None:
    found = row(position_table(make_records(40, 4, loss={(0,): 1.0, (1,): 0.0}, base_acc=1.0)), "CT0")
    assert found.impact_pp == 100 and found.ci_high == 100
    units = min(found.n_hosts, found.n_donors)
    assert found.ci_low == pytest.approx(100 * (2 * 0.025 ** (1 / units) - 1))
    assert found.p == pytest.approx(2 * 0.5**units) and found.p_holm < 1e-6 and found.verdict == "not equivalent"
    assert found.impact_given_correct_ci_low == pytest.approx(100 * 0.025 ** (1 / units))


def test_arms_without_donors_are_clustered_by_host(table: pd.DataFrame) -> None:
    zero, noise = row(table, "CT1", "zero"), row(table, "CT1", "noise")
    assert zero.n_donors == 0 and zero.n_gen == 100 and noise.n_gen == 1000
    assert np.isnan(zero.se_donor) and zero.se_twoway == zero.se_host
    assert np.isnan(zero.adoption_rate) and "no donors" in zero.note


def test_partial_arms_and_missing_measures_say_so() -> None:
    records = make_records(20, 3, loss={(0,): 0.3}).drop(columns=["kl", "dlogp_gold"])
    records = records[~((records.method == "swap") & (records.problem_id < "p005"))]
    found = row(position_table(records), "CT0")
    assert "covers 15 of 20 hosts" in found.note and "no log-probabilities" in found.note


def test_one_donor_per_host_is_legal() -> None:
    found = row(position_table(make_records(30, 1, loss={(0,): 0.5})), "CT0")
    assert found.ci_low < found.impact_pp < found.ci_high


def test_seeded_and_independent_of_row_order(records: pd.DataFrame, table: pd.DataFrame) -> None:
    again = position_table(records.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(table, again, check_exact=False, rtol=1e-9)


def test_pigeonhole_is_wider_than_the_primary_interval(records: pd.DataFrame, table: pd.DataFrame) -> None:
    boot = bootstrap_table(build_frame(records))
    primary, second = row(table, "CT1"), row(boot, "CT1")
    assert second.impact_pp == pytest.approx(primary.impact_pp)
    assert second.ci_high - second.ci_low > primary.ci_high - primary.ci_low
    assert np.isnan(row(boot, "CT0").ci_low) and "undefined" in row(boot, "CT0").note


def test_pigeonhole_variance_matches_owens_formula() -> None:
    """On a complete crossing: about V_host + V_donor + V_cell of the resampled mean (Owen 2007), seed 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 1)) + rng.normal(size=(1, 30)) + rng.normal(size=(30, 30))
    host, donor = np.indices(x.shape).reshape(2, -1)
    found = pigeonhole(x.ravel(), host, donor, np.random.default_rng(1), resamples=8_000)
    inner = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + x.mean()
    expected = x.mean(1).var() / 30 + x.mean(0).var() / 30 + (inner**2).mean() / 900
    assert found.se**2 == pytest.approx(expected, rel=0.06)
    assert np.isnan(pigeonhole(np.array([]), np.array([]), None, rng).value)
