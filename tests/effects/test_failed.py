"""Failed cells are counted and enter no numerator or denominator: every table is that of the other cells alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.effects.invent import make_records

from thoughtgraft.effects.compare import compare_records
from thoughtgraft.effects.frame import build_frame
from thoughtgraft.effects.gates import FAIL, NOT_RUN, PASS, RULE, Known, check_gates
from thoughtgraft.studies.drift.analysis import drift_table
from thoughtgraft.studies.resampling.analysis import analyse

OUTCOME = ["pred", "valid", "correct", "changed", "dlogp_gold", "kl"]
SLOTS: dict[tuple[int, ...], float] = {(k,): 0.1 * k for k in range(4)} | {tuple(range(4)): 0.7}


def records(**options) -> pd.DataFrame:
    return make_records(
        24,
        4,
        loss=SLOTS,
        methods=("swap", "mean", "noise"),
        downstreams=("recompute", "freeze_kv"),
        adopt=0.3,
        **options,
    )


def fail(table: pd.DataFrame, rows, reason: str = "the edit gave NaN at CT1") -> pd.DataFrame:
    table = table.copy()
    for name in OUTCOME:
        table[name] = table[name].astype(object)
        table.loc[rows, name] = None
    table.loc[rows, "error"] = reason
    return table


def some(table: pd.DataFrame, n: int, seed: int = 0) -> pd.Index:
    """Edited cells here and there, those of one host at one slot, and all of one arm."""
    rng = np.random.default_rng(seed)
    edited = table.index[table["slots"].map(len) > 0]
    single = (table["slots"].map(tuple) == (1,)) & (table["method"] == "swap")
    whole = (table["slots"].map(tuple) == (3,)) & (table["method"] == "mean")
    chosen = table.index[(single & (table["problem_id"] == "p003")) | whole]
    return chosen.union(pd.Index(rng.choice(edited, n, replace=False)))


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=[name for name in ("n_failed", "note") if name in table])


def test_every_table_is_that_of_the_cells_which_did_not_fail():
    table = records(seed=1)
    rows = some(table, 60)
    gates = tuple(replace(gate, limit=1.0) if gate.name == "failed" else gate for gate in RULE.gates)
    with_failures, without = (
        analyse(part, seed=3, known=Known(rule=replace(RULE, gates=gates)))
        for part in (fail(table, rows), table.drop(rows))
    )
    dead = ("mean", "CT3")
    for name, found in with_failures.tables().items():
        if name == "gates":
            continue
        expected = without.tables()[name]
        if name == "positions":  # an arm that failed as a whole has a row of its own, without figures
            gone = (found["method"] == dead[0]) & (found["label"] == dead[1])
            row = found[gone].iloc[0]
            assert gone.sum() == 2 and row["n_gen"] == 0 and np.isnan(row["impact_pp"])
            assert row["note"] == "all 24 cells failed"
            found = found[~gone].reset_index(drop=True)
        pd.testing.assert_frame_equal(comparable(found), comparable(expected), check_dtype=False, obj=name)


@pytest.mark.parametrize("failed", [0, 1, 20, 21, 500])
def test_more_than_one_in_a_hundred_fails_the_gate(failed):
    table = records(seed=2)
    table = table.iloc[:2_000].copy()
    rng = np.random.default_rng(0)
    gate = {g.name: g for g in check_gates(build_frame(fail(table, rng.choice(table.index, failed, replace=False))))}
    found = gate["failed"]
    assert found.figure == pytest.approx(failed / 2_000) and found.limit == 0.01
    assert found.outcome == (FAIL if failed > 20 else PASS)
    words = f"{failed} of 2,000 cells failed: the edit gave NaN at CT1 ({failed})" if failed else "none of 2,000 cells"
    assert words in found.detail


def test_records_that_cannot_show_failures_are_no_evidence():
    gates = {g.name: g for g in check_gates(build_frame(records().drop(columns="error")))}
    assert gates["failed"].outcome == NOT_RUN and "no column `error`" in gates["failed"].detail


def test_a_repeated_failed_cell_counts_once():
    table = fail(records(), [500])
    frame = build_frame(pd.concat([table, table.loc[[500]]], ignore_index=True))
    assert frame.n_failed == 1 and frame.duplicates == 1 and frame.failures == {"the edit gave NaN at CT1": 1}


def test_a_run_with_failures_compares_as_the_rest_of_it():
    first, second = records(seed=1), records(seed=5)
    rows = some(first, 40).difference(first.index[first["method"] == "mean"])
    found, expected = compare_records(fail(first, rows), second), compare_records(first.drop(rows), second)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_drift_leaves_a_cell_out_that_failed_under_either_protocol():
    one = make_records(20, 3, loss=SLOTS, methods=("swap",), seed=1)
    two = one.copy()
    swapped = two.index[(two["method"] == "swap") & (two["slots"].map(tuple) == (2,))]
    two.loc[swapped, "pred"] = "999"
    two.loc[swapped, ["correct", "changed"]] = [False, True]
    rows = one.index[(one["method"] == "swap") & one["problem_id"].isin(["p001", "p002"])]
    table = drift_table({"official": one, "other": fail(two, rows)})
    part = table[(table.protocol == "other") & (table.method == "swap")].set_index("label")
    assert part.loc["CT2", "differs_rate"] == 1 and part.loc["CT1", "differs_rate"] == 0
    assert part.loc["CT2", "n_gen"] == 18 * 3


def test_the_rule_names_the_gate():
    gate = next(gate for gate in RULE.gates if gate.name == "failed")
    assert (gate.evidence, gate.sense, gate.limit) == ("records", "most", 0.01)
