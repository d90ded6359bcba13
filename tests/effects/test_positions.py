"""The position table and its bootstrap on invented records whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.effects.invent import make_records

from thoughtgraft.effects.frame import build_frame
from thoughtgraft.effects.gates import Known, Rule
from thoughtgraft.effects.positions import (
    COLUMNS,
    DEAD,
    SHARED,
    VERDICTS,
    adoption,
    adoption_bounds,
    bootstrap_table,
    by_construction,
    donor_answers,
    pigeonhole,
    position_table,
)
from thoughtgraft.records.schema import Family
from thoughtgraft.stats.resampling import holm
from thoughtgraft.stats.verdicts import Verdict, verdict

LOSS = {(0,): 0.0, (1,): 0.3, (2,): 1.0, (3,): 0.01, (0, 1, 2, 3): 0.8, (0, 1): 0.3}


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    return make_records(100, 10, loss=LOSS, methods=("swap", "zero", "noise"), adopt=0.5, host_sd=0.05, seed=5)


@pytest.fixture(scope="module")
def table(records: pd.DataFrame) -> pd.DataFrame:
    return position_table(records)


def row(table: pd.DataFrame, slots: str, method: str = "swap") -> pd.Series:
    return table[(table.label == slots) & (table.method == method)].iloc[0]


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
        assert found.verdict == found.impact_given_correct_verdict == "ABOVE" and found.p < 1e-6
        assert found.adoption_excess_verdict == "ABOVE"
    assert row(table, "CT1").p_holm < 1e-6 and row(table, "CT1").p_maxT == pytest.approx(1e-4)
    assert row(table, "CT2").impact_pp == pytest.approx(100 * row(table, "CT2").base_acc, abs=3)


def test_an_inert_slot_is_bounded_and_negligible_where_hosts_suffice(table: pd.DataFrame) -> None:
    found = row(table, "CT0")
    assert found.impact_pp == 0 and not (found.p < 1 or found.p_holm < 1)
    assert found.ci_high == found.zero_bound_pp == pytest.approx(100 * (1 - 0.05**0.01))
    assert found.ci_high < found.sim_high < 5 and found.sim_low == -found.sim_high
    assert found.verdict == "NEGLIGIBLE" and found.interval == "exact" and "every cell is equal" in found.note
    few = row(position_table(make_records(20, 5, loss={(0,): 0.0})), "CT0")
    assert few.verdict == "UNRESOLVED" and few.sim_high > 5


def test_a_slot_that_moves_nothing_is_0_by_construction_and_in_no_family(records: pd.DataFrame) -> None:
    dead = records.copy()
    still = (dead.method == "swap") & (dead.slots.map(tuple) == (0,))
    dead.loc[still, ["dlogp_gold", "kl"]] = 0.0
    table, without = position_table(dead), position_table(dead[~still])
    found = row(table, "CT0")
    assert {found[name] for name in VERDICTS} == {"BY CONSTRUCTION"} and "not even a logit" in found.note
    assert found.impact_pp == 0 and np.isnan(found.sim_low) and np.isnan(found.p_holm)
    for slot in ("CT1", "CT3"):
        assert row(table, slot).sim_high == row(without, slot).sim_high
        assert row(table, slot).p_holm == row(without, slot).p_holm


def test_every_verdict_is_that_of_its_own_simultaneous_interval(table: pd.DataFrame, records: pd.DataFrame) -> None:
    strict = Rule.of(margin_pp=12)
    for made, rule in ((table, Rule()), (position_table(records, known=Known(rule=strict)), strict)):
        for name, scale in (("", 100), ("impact_given_correct_", 100), ("adoption_excess_", 1)):
            part = made[made.donor_stratum != ""] if name.startswith("adoption") else made
            ends = zip(part[f"{name}sim_low"], part[f"{name}sim_high"], part[f"{name}verdict"], strict=True)
            assert all(verdict(low, high, scale * rule.margin) == said for low, high, said in ends)
    words = [set(made.verdict) for made in (table, position_table(records, known=Known(rule=Rule.of(margin_pp=40))))]
    assert "ABOVE" in words[0] and "SMALL" in words[1]


def test_simultaneous_intervals_hold_the_unadjusted_ones_and_those_of_all_slots_are_alone(table: pd.DataFrame) -> None:
    live = table[table.verdict != "BY CONSTRUCTION"]
    assert (live.sim_low <= live.ci_low).all() and (live.sim_high >= live.ci_high).all()
    single = live.slots.map(len) == 1
    assert (live[single].sim_high > live[single].ci_high).all()
    whole = live[live.label == "all"]
    assert (whole.sim_high == whole.ci_high).all() and whole.p_holm.to_numpy() == pytest.approx(
        whole.p.to_numpy(), nan_ok=True
    )


def test_p_is_adjusted_over_the_single_slots_of_its_method_and_over_nothing_else(
    table: pd.DataFrame, records: pd.DataFrame
) -> None:
    for method in ("swap", "zero", "noise"):
        part = table[(table.method == method) & (table.slots.map(len) == 1)]
        wanted = holm(part.p.to_numpy(dtype=float))
        assert part.p_holm.to_numpy() == pytest.approx(wanted, nan_ok=True)
        assert (part.p_holm > part.p).any()
    part = table[(table.method == "swap") & (table.slots.map(len) == 1)]
    frame = build_frame(records)
    arms = frame.singles(frame.primary).values()
    taken = [adoption(cells, donor_answers(cells, len(frame.hosts), len(frame.donors))) for cells in arms]
    alone = np.array([adoption_bounds([one])[0].estimate.p for one in taken])
    assert part.adoption_p_holm.to_numpy() == pytest.approx(holm(alone), rel=1e-6, abs=0)
    assert (part.adoption_p_holm > alone).any()


def test_hosts_count_alike_however_many_donors_each_has() -> None:
    """Half of the hosts keep one of ten donors: the impact is the mean of hosts' means, with their own interval."""
    records = make_records(60, 10, loss={(0,): 0.5}, base_acc=1.0, host_sd=0.3, seed=8)
    swaps = records[records.method == "swap"]
    many = swaps.problem_id < "p030"
    kept = pd.concat([swaps[many], swaps[~many].groupby("problem_id").head(1)])
    # The hosts that keep all theirs lose everything.
    kept.loc[kept.problem_id < "p030", "correct"] = False
    unbalanced = pd.concat([records[records.method != "swap"], kept])
    found = row(position_table(unbalanced), "CT0")
    means = 1 - kept.groupby("problem_id").correct.mean()
    assert found.impact_pp == pytest.approx(100 * means.mean()) and found.n_gen == 330
    assert abs(found.impact_pp - 100 * (1 - kept.correct.mean())) > 15
    assert found.ci_low < 100 * means.mean() < found.ci_high


def test_donors_that_differ_widen_every_interval() -> None:
    """Three donors in ten make every host fail: half-widths are at least those of that many donors."""
    records = make_records(60, 10, loss={(0,): 0.0, (1,): 0.0}, base_acc=1.0, seed=8)
    swaps = records.method == "swap"
    bad = swaps & records.donor_id.isin([f"p{i:03d}" for i in range(0, 60, 3)])
    records.loc[bad, "correct"] = False
    found = row(position_table(records), "CT0")
    assert found.se_donor > 2 * found.se_host and found.se_twoway >= found.se_donor
    half = (found.ci_high - found.ci_low) / 2
    assert half > 1.9 * found.se_donor and (found.sim_high - found.sim_low) / 2 >= half


def test_alpha_is_the_level_of_every_interval(table: pd.DataFrame, records: pd.DataFrame) -> None:
    wide = row(position_table(records, known=Known(rule=Rule(alpha=0.01))), "CT1")
    usual = row(table, "CT1")
    for name in ("ci_high", "sim_high", "impact_given_correct_sim_high", "adoption_excess_sim_high", "dlogp_sim_high"):
        assert wide[name] > usual[name]


def test_a_design_too_small_is_unresolved_and_says_so() -> None:
    for n, d in ((19, 5), (12, 3)):
        found = row(position_table(make_records(n, d, loss={(0,): 0.9, (1,): 0.0})), "CT0")
        assert found.verdict == Verdict.UNRESOLVED and "too small" in found.note and np.isfinite(found.sim_low)
    fewer = make_records(40, 5, loss={(0,): 0.9}, base_acc=0.3)
    found = row(position_table(fewer), "CT0")
    assert found.n_hosts_right < 20 and found.impact_given_correct_verdict == "UNRESOLVED"
    assert "given correct: too small" in found.note and "impact: too small" not in found.note


def test_every_undefined_figure_has_a_reason(table: pd.DataFrame) -> None:
    shown = ["ci_low", "impact_given_correct_ci_low", "adoption_excess", "dlogp"]
    assert (table[table[shown].isna().any(axis=1)].note != "").all()


def test_total_loss_has_an_exact_interval() -> None:
    found = row(position_table(make_records(40, 4, loss={(0,): 1.0, (1,): 0.0}, base_acc=1.0)), "CT0")
    assert found.impact_pp == 100 and found.ci_high == 100
    units = min(found.n_hosts, found.n_donors)
    assert found.ci_low == pytest.approx(100 * (2 * 0.05 ** (1 / units) - 1))
    assert found.p == pytest.approx(0.5**units, rel=0.01, abs=0) and found.p_holm < 1e-6 and found.verdict == "ABOVE"
    assert found.impact_given_correct_ci_low == pytest.approx(100 * 0.05 ** (1 / units))


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


def test_slots_that_are_fed_alike_are_the_identity_for_what_they_are_fed_only() -> None:
    known = Known(shared_slots=[0], dead_slots=[3])
    fed, stream = Family("swap", donors="random"), Family("swap", "resid", 2, donors="random")
    assert by_construction(fed.at([0]), known) == by_construction(Family("mean").at([0, 3]), known) == SHARED
    assert by_construction(stream.at([0]), known) == by_construction(Family("zero").at([0]), known) == ""
    assert by_construction(stream.at([3]), known) == by_construction(fed.at([3]), known) == DEAD
    assert by_construction(Family("self").at([3]), known) == "", "a check stays a check"
