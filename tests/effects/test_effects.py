"""Contrasts, mediation and dose recover what was planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.effects.invent import make_records

from thoughtgraft.effects.comparisons import contrast_table, dose_table, mediation_table

LOSS = {(k,): v for k, v in enumerate((0.1, 0.1, 0.6, 0.2))} | {(0, 1): 0.2, (0, 1, 2): 0.7, (0, 1, 2, 3): 0.9}


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    down = ("recompute", "freeze_kv")
    return make_records(80, 8, loss=LOSS, methods=("swap", "zero"), downstreams=down, direct=0.25, base_acc=1.0, seed=7)


def test_contrasts(records: pd.DataFrame) -> None:
    table = contrast_table(records)
    swap = table[(table.method == "swap") & (table.downstream == "recompute")].set_index(["slot_a", "slot_b"])
    assert len(swap) == 6
    big = swap.loc[(0, 2)]
    assert big.ci_low < -50 < big.ci_high and big.p_holm < 1e-6 and big.n_pairs == 640
    same = swap.loc[(0, 1)]
    assert big.label == "CT0 − CT2"
    assert same.ci_low < 0 < same.ci_high and same.p_holm >= same.p


def test_mediation(records: pd.DataFrame) -> None:
    table = mediation_table(records)
    swap = table[table.method == "swap"].set_index("label")
    middle = swap.loc["CT2"]
    assert middle.total_pp == pytest.approx(middle.direct_pp + middle.indirect_pp)
    assert middle.direct_low < 15 < middle.direct_high and middle.indirect_low < 45 < middle.indirect_high
    assert middle.indirect_p_holm < 1e-6 and not middle.by_construction
    last = swap.loc["CT3"]
    assert last.by_construction and last.indirect_pp == 0 and "by construction" in last.note
    assert np.isnan(last.indirect_p) and swap.loc["all"].by_construction
    assert mediation_table(records[records.downstream == "recompute"]).empty


def test_dose(records: pd.DataFrame) -> None:
    table = dose_table(records)
    swap = table[(table.method == "swap") & (table.downstream == "recompute") & (table.series == "from first")]
    assert list(swap.label) == ["CT0", "CT0-CT1", "CT0-CT2", "all"] and list(swap.n_slots) == [1, 2, 3, 4]
    jump = swap.iloc[2]
    assert jump.step_low < 50 < jump.step_high
    assert swap.iloc[0].step_pp == swap.iloc[0].impact_pp
    back = table[(table.method == "swap") & (table.downstream == "recompute") & (table.series == "to last")]
    assert list(back.label) == ["CT3", "all"] and "not run" in back.iloc[1].note
