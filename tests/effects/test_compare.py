"""Two runs side by side: differences, and intervals that are paired as far as problems are shared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.planted.nulls import noise_records

from thoughtgraft.effects.compare import compare_records
from thoughtgraft.effects.frame import build_frame
from thoughtgraft.stats.clustered import clustered_mean

SWAP = {"methods": ("swap",), "together": False}


def row(table: pd.DataFrame, slots: str = "CT0", method: str = "swap") -> pd.Series:
    found = table[(table.label == slots) & (table.method == method)]
    assert len(found) == 1
    return found.iloc[0]


def moved(records: pd.DataFrame, shift: int) -> pd.DataFrame:
    """The same records of other problems: ids are moved on."""
    names = {name: [str(int(x) + shift) if isinstance(x, str) else None for x in records[name]] for name in IDS}
    return records.assign(**names)


IDS = ("problem_id", "donor_id")


def test_a_run_beside_itself_does_not_differ() -> None:
    records = noise_records(30, 4, 2, 0, **SWAP)
    table = compare_records(records, records)
    assert (table.difference_pp == 0).all()
    assert set(table.design) == {"paired"}
    assert table.note.str.contains("the runs do not differ: no interval").all()
    assert list(table.quantity) == ["accuracy", "impact", "impact"]


def test_shared_pairs_give_the_two_way_interval_of_their_differences() -> None:
    first, second = noise_records(40, 5, 1, 1, **SWAP), noise_records(40, 5, 1, 1, **SWAP)
    # The second run answers the same questions and pairs, but loses some more answers.
    lost = (second.method == "swap") & (np.random.default_rng(5).random(len(second)) < 0.3)
    second.loc[lost, "correct"], second.loc[lost, "pred"] = False, "999"
    found = row(compare_records(first, second))
    a, b = (next(c for k, c in build_frame(r).arms.items() if k.method == "swap") for r in (first, second))
    wanted = clustered_mean(b.difference - a.difference, a.host, a.donor, a.weight)
    assert found.difference_pp == pytest.approx(100 * wanted.value)
    assert (found.ci_low, found.ci_high) == pytest.approx((100 * wanted.low, 100 * wanted.high))
    assert found.p == pytest.approx(wanted.p)
    assert found.difference_pp == pytest.approx(found.b_pp - found.a_pp)
    assert found.n_shared == 40


def test_runs_without_a_shared_problem_are_independent() -> None:
    first, second = noise_records(40, 5, 2, 1, **SWAP), moved(noise_records(30, 5, 2, 2, **SWAP), 100)
    found = row(compare_records(first, second))
    assert found.design == "independent"
    assert found.n_shared == 0
    half = [(found[f"{x}_ci_high"] - found[f"{x}_ci_low"]) / 2 for x in "ab"]
    assert (found.ci_high - found.ci_low) / 2 == pytest.approx(np.hypot(*half), rel=0.03)
    assert (found.p < 0.05) == (found.ci_low > 0 or found.ci_high < 0)


def test_no_variation_is_not_taken_for_certainty() -> None:
    """A small run in which nothing changed beside one in which something did: no interval, and the note says why."""
    still = moved(noise_records(10, 3, 1, 0, chance=1.0, spread=0.0, **SWAP), 100)
    found = row(compare_records(still, noise_records(30, 4, 1, 1, **SWAP)))
    assert found.a_pp == 0
    assert np.isnan(found.ci_low)
    assert "one run shows no variation" in found.note


def test_ids_that_mean_other_problems_are_not_shared() -> None:
    first, second = noise_records(40, 5, 2, 1, **SWAP), noise_records(40, 5, 2, 2, **SWAP)
    assert set(compare_records(first, second).design) == {"independent"}, "their golds differ"
    assert set(compare_records(first, first, same_problems=False).design) == {"independent"}


def test_some_shared_problems_are_taken_into_account() -> None:
    whole = noise_records(40, 5, 1, 1, **SWAP)
    host = whole.problem_id.astype(int)
    first, second = whole[host < 30], whole[host >= 10]
    found = row(compare_records(first, second))
    assert found.design == "partly paired"
    assert found.n_shared == 20
    alone = row(compare_records(first, second, same_problems=False))
    assert found.ci_high - found.ci_low < alone.ci_high - alone.ci_low, "shared problems tell more"


def test_an_arm_of_one_run_stands_alone() -> None:
    both, one = noise_records(20, 3, 2, 0), noise_records(20, 3, 2, 0, **SWAP)
    table = compare_records(both, one)
    assert row(table, "CT1", "mean").design == "only in a"
    assert row(compare_records(one, both), "all").design == "only in b"
    assert np.isnan(row(table, "CT1", "mean").difference_pp)


def test_the_paired_interval_covers_no_difference_in_most_runs() -> None:
    """Runs on shared problems whose answers are drawn anew: the 95% interval of B - A covers 0."""
    covered = 0
    for seed in range(60):
        # One draw of hosts and donors, two of the answers.
        first, second = (noise_records(30, 4, 1, seed, answers=k, **SWAP) for k in (0, 1))
        found = row(compare_records(first, second))
        covered += found.ci_low <= 0 <= found.ci_high
    assert covered >= 52, covered
