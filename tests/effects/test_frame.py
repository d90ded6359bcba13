"""Records become arms: alignment, order, missing cells, duplicates and refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.effects.invent import make_records

from thoughtgraft.effects.frame import as_slots, build_frame, paired, reaches_end
from thoughtgraft.errors import AnalysisError
from thoughtgraft.records.schema import Family

SWAP = Family("swap", donors="random")


def test_slots_are_read_as_lists_only() -> None:
    assert reaches_end((4, 5), 6) and not reaches_end((3, 5), 6) and not reaches_end((), 6)
    assert as_slots(np.array([3, 1])) == (1, 3) and as_slots(None) == () and as_slots(float("nan")) == ()
    with pytest.raises(AnalysisError, match="slots of a record cannot be read; got '\\[0\\]'"):
        as_slots("[0]")


def test_cells_line_up_with_records() -> None:
    records = make_records(12, 3, loss={(0,): 0.4, (1,): 0.2}, seed=1)
    frame = build_frame(records)
    cells = frame.arms[SWAP.at((0,))]
    assert (cells.n_hosts, len(cells), frame.n_slots) == (12, 36, 2)
    rows = records[(records.method == "swap") & (records.slots.map(tuple) == (0,))]
    expected = (rows.base_correct.astype(int) - rows.correct.astype(int)).groupby(rows.problem_id).mean()
    grid = cells.grid(cells.difference)
    assert grid.shape == (12, 3)
    assert grid.mean(1) == pytest.approx(expected.to_numpy())
    assert cells.weight.sum() == pytest.approx(1)


def test_row_order_does_not_matter() -> None:
    records = make_records(10, 3, loss={(0,): 0.5}, methods=("swap", "noise"))
    one, two = build_frame(records), build_frame(records.sample(frac=1, random_state=3))
    for key, cells in one.arms.items():
        assert np.array_equal(cells.difference, two.arms[key].difference)
        assert np.array_equal(cells.donor, two.arms[key].donor)


def test_pairs_are_the_same_host_and_donor() -> None:
    records = make_records(10, 3, loss={(0,): 0.5, (1,): 0.5})
    records = records.drop(records[(records.method == "swap")].index[4])
    frame = build_frame(records)
    a, b = (frame.arms[SWAP.at((k,))] for k in (0, 1))
    left, right = paired(a, b)
    assert len(left) == 29
    assert np.array_equal(a.host[left], b.host[right]) and np.array_equal(a.donor[left], b.donor[right])


def test_failed_cells_are_counted_not_averaged() -> None:
    records = make_records(10, 3, loss={(0,): 0.0})
    swaps = records.index[records.method == "swap"][:2]
    records["correct"] = records["correct"].astype(object)
    records.loc[swaps, "correct"] = None
    records.loc[swaps, "error"] = "out of memory"
    cells = build_frame(records).arms[SWAP.at((0,))]
    assert cells.n_failed == 2 and len(cells) == 28 and (cells.difference == 0).all()


def test_duplicates_are_found_and_used_once() -> None:
    records = make_records(10, 3, loss={(0,): 0.2})
    frame = build_frame(pd.concat([records, records.iloc[[-1, -2]]]))
    assert frame.duplicates == 2 and build_frame(records).duplicates == 0
    assert len(frame.arms[SWAP.at((0,))]) == 30


def test_numbers_compare_exactly() -> None:
    records = make_records(6, 2, loss={(0,): 0.0})
    with pytest.raises(AnalysisError, match="an answer in the records is no number; got 'forty'"):
        build_frame(records.assign(gold="forty"))
    records["pred"] = records["pred"] + ".0"
    cells = build_frame(records).arms[SWAP.at((0,))]
    assert np.array_equal(cells.pred, cells.base_pred)
    records.loc[:, "pred"] = None
    assert (build_frame(records).arms[SWAP.at((0,))].pred == -1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.drop(columns="correct"), "records lack columns; got no correct"),
        (lambda r: r.iloc[:0], "there are no records"),
        (lambda r: r.assign(protocol=["official", "other"] * (len(r) // 2)), "the records mix protocols"),
        (lambda r: r.assign(base_correct=[True, False] * (len(r) // 2)), "base_correct differs between records"),
        (lambda r: r.assign(base_correct=None), "base_correct is null"),
        (lambda r: r.assign(problem_id=None), "problem_id is null"),
    ],
)
def test_unusable_records_are_refused(change: object, message: str) -> None:
    records = make_records(10, 3, loss={(0,): 0.2}, base_acc=1.0)
    with pytest.raises(AnalysisError, match=message):
        build_frame(change(records))  # type: ignore[operator]
