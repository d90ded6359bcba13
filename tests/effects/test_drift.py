"""The drift table: what each protocol reports on the same cells, and its difference to the first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.effects.invent import make_records

from thoughtgraft.errors import AnalysisError
from thoughtgraft.studies.drift.analysis import COLUMNS, drift_table

BOTH = (0, 1)


def records(loss: dict[tuple[int, ...], float], protocol: str) -> pd.DataFrame:
    return make_records(12, 3, loss=loss, base_acc=1.0, seed=4).assign(protocol=protocol)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Under `right` only CT0 matters, under `wrong` only CT1: an index moved by one."""
    right = records({(0,): 1.0, (1,): 0.0, BOTH: 1.0}, "right")
    return drift_table({"right": right, "wrong": records({(0,): 0.0, (1,): 1.0, BOTH: 1.0}, "wrong")})


def row(table: pd.DataFrame, protocol: str, slots: str, method: str = "swap") -> pd.Series:
    found = table[(table.protocol == protocol) & (table.label == slots) & (table.method == method)]
    assert len(found) == 1
    return found.iloc[0]


def test_every_arm_has_one_row_under_each_protocol_in_order(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    part = table[table.protocol == "wrong"]
    wanted = [("baseline", "-")] + [(m, s) for m in ("self", "swap") for s in ("CT0", "CT1", "all")]
    assert list(zip(part.method, part.label, strict=True)) == wanted
    assert len(table) == 2 * len(wanted)


def test_a_moved_index_shows_as_a_difference_at_both_slots(table: pd.DataFrame) -> None:
    assert [row(table, p, s).impact_pp for p in ("right", "wrong") for s in ("CT0", "CT1")] == [100, 0, 0, 100]
    assert [row(table, "wrong", s).difference_pp for s in ("CT0", "CT1", "all")] == [-100, 100, 0]
    assert [row(table, "wrong", s).differs_rate for s in ("CT0", "CT1", "all")] == [1, 1, 0]
    assert row(table, "wrong", "CT0", "self").impact_pp == 0
    assert row(table, "wrong", "CT0", "self").differs_rate == 0


def test_the_standard_differs_from_nothing(table: pd.DataFrame) -> None:
    own = table[table.protocol == "right"]
    assert own[["difference_pp", "difference_ci_low", "differs_rate"]].isna().all(axis=None)


def test_the_baseline_is_an_accuracy_with_wilsons_interval(table: pd.DataFrame) -> None:
    base = row(table, "wrong", "-", "baseline")
    assert (base.acc, base.difference_pp, base.differs_rate) == (1.0, 0.0, 0.0)
    assert base.ci_low == pytest.approx(75.75, abs=0.01) and base.ci_high == pytest.approx(100)
    assert np.isnan(base.impact_pp)


def test_runs_of_two_plans_are_refused() -> None:
    one, other = records({(0,): 1.0}, "right"), records({(1,): 1.0}, "wrong")
    with pytest.raises(AnalysisError, match=r"right and wrong are not of one plan; got 96 cells that only one.*finish"):
        drift_table({"right": one, "wrong": other})
    with pytest.raises(AnalysisError, match="there is no protocol to compare"):
        drift_table({})


def test_a_slot_that_the_certificate_calls_dead_is_so_whatever_rounding_says() -> None:
    """One logit moved by rounding in one cell is no effect of a thought that nothing reads."""
    still = records({(0,): 0.4, (1,): 0.0, BOTH: 0.4}, "right")
    mine = (still.method == "swap") & (still.slots.map(tuple) == (1,))
    still.loc[mine, ["kl", "dlogp_gold"]] = 0.0
    moved = still.copy()
    moved.loc[moved.index[mine][0], "kl"] = 2e-8
    said = []
    for part, dead in ((still, {}), (moved, {}), (moved, {"right": (1,)})):
        table = drift_table({"right": part}, dead_slots=dead)
        said.append(row(table, "right", "CT1").verdict)
    assert said == ["BY CONSTRUCTION", "UNRESOLVED", "BY CONSTRUCTION"]
