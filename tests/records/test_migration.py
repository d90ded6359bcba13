"""Runs of earlier record schemas open with typed columns: sites, layers and the arms that were planned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thoughtgraft.edits.site import Site
from thoughtgraft.errors import RunError
from thoughtgraft.records.schema import RECORD_SCHEMA, ArmKey, Family
from thoughtgraft.records.shards import read_effects
from thoughtgraft.records.spec import TABLE_MIGRATIONS, arms_planned
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore

STORED = Path(__file__).parents[1] / "stored"
SWAP = Family("swap", donors="random")


@pytest.mark.parametrize(("name", "cells"), [("rule1-schema1", 1614), ("schema2", 345)])
def test_an_earlier_run_opens_with_typed_arms_that_its_plan_counts_alike(name: str, cells: int) -> None:
    store = RunStore.open(STORED / name)
    table = store.table()
    assert table.schema == RECORD_SCHEMA and table.num_rows == cells and store.spec.schema_version == 3
    acts = zip(table["slots"].to_pylist(), table["site_kind"].to_pylist(), strict=True)
    assert all((kind in ("fed", "resid")) == bool(slots) for slots, kind in acts)
    stored: dict[ArmKey, int] = {}
    for arm in ArmKey.of_table(store.frame()):
        stored[arm] = stored.get(arm, 0) + 1
    assert stored == arms_planned(store.spec.plan)
    status = read_status(STORED / name)
    assert status.state == "finished" and {line.arm: line.total for line in status.arms} == stored
    assert [line.arm for line in status.arms] == list(arms_planned(store.spec.plan)), "the plan's order"


def test_a_layer_that_stood_in_the_text_of_a_method_is_a_column() -> None:
    raw = pq.read_table(next((STORED / "schema2" / "records").glob("*.parquet")))
    assert {"zero after L2", "double after L1"} <= set(raw["method"].to_pylist()), "schema 2 as it was written"
    arms = set(ArmKey.of_table(RunStore.open(STORED / "schema2").frame()))
    every = tuple(range(6))
    for key, label in {
        Family("zero", "resid", 2).at([2]): "zero CT2 after L2",
        Family("zero", "resid", 2).at(every): "zero all after L2",
        Family("double", "resid", 1).at([3]): "double CT3 after L1",
        Family("double").at([3]): "double CT3",
        Family("zero").at([2]): "zero CT2",
        SWAP.at(every): "swap all",
        SWAP.at([0, 1]): "swap CT0-CT1",
        SWAP._replace(after="freeze_kv").at([2]): "swap CT2 freeze_kv",
        SWAP._replace(donors="operation").at([2]): "swap CT2 (same operation)",
        ArmKey("baseline"): "baseline",
    }.items():
        assert key in arms and key.label(6) == label


def test_a_method_is_split_only_where_a_layer_ends_it() -> None:
    names = ["looked after L2 once", "after L3", "mine after Lx", "a after L1 after L2", "noop"]
    old = pa.table({"method": names, "slots": pa.array([[1]] * 4 + [[]], pa.list_(pa.int32()))})
    new = TABLE_MIGRATIONS[2](old)
    assert new["method"].to_pylist() == ["looked after L2 once", "after L3", "mine after Lx", "a after L1", "noop"]
    assert new["site_layer"].to_pylist() == [None, None, None, 2, None]
    assert new["site_kind"].to_pylist() == ["fed", "fed", "fed", "resid", None]
    assert TABLE_MIGRATIONS[2](old[:0]).num_rows == 0


def test_a_page_of_a_run_of_schema_2_tells_layers_apart(tmp_path: Path) -> None:
    from thoughtgraft.studies.resampling.report import write_report

    run = Path(shutil.copytree(STORED / "schema2", tmp_path / "run"))
    page = write_report(run, force=True).md.read_text()
    assert "zero after L2" in page and "CT2 after L2" in page and "zero all" not in page
    assert json.loads((run / "run.json").read_text())["schema_version"] == 2, "what is stored stays as it is"


def test_arms_sort_by_family_and_single_slots_before_several() -> None:
    resid = Family("swap", "resid", 3, donors="random")
    keys = [resid.at([1]), SWAP.at([0, 1]), SWAP.at([5]), Family("mean").at([0]), ArmKey("baseline"), SWAP.at([1, 2])]
    assert [key.label() for key in sorted(keys)] == [
        "baseline", "mean CT0", "swap CT5", "swap CT0-CT1", "swap CT1-CT2", "swap CT1 after L3",
    ]  # fmt: skip


def test_an_arm_goes_through_its_columns_and_json_unchanged() -> None:
    keys = [ArmKey("baseline"), SWAP.at([2]), Family("zero", "resid", 2, after="recompute").at([0, 3])]
    for key in keys:
        assert ArmKey.of_row(key.columns) == ArmKey.of_row(json.loads(json.dumps(key.columns))) == key
    assert keys[2].site == Site("resid", (0, 3), 2) and keys[0].site is None and keys[0].columns["site_kind"] is None


@pytest.mark.parametrize(
    ("slots", "n", "span", "place"),
    [((), 6, "none", "-"), ((2,), 6, "one", "CT2"), ((0,), 1, "one", "CT0"), ((0, 1), 2, "all", "all"),
     ((0, 1), 6, "some", "CT0-CT1"), ((0, 2), 6, "some", "CT0,CT2")],
)  # fmt: skip
def test_how_many_slots_an_arm_edits_and_how_they_are_called(
    slots: tuple[int, ...], n: int, span: str, place: str
) -> None:
    key = Family("zero").at(slots)
    assert (key.span(n), key.place(n)) == (span, place)


def test_main_arms_recompute_and_draw_at_random() -> None:
    assert all(
        key.main for key in (SWAP.at([1]), Family("zero").at([1]), ArmKey("noop"), ArmKey("swap", donors="self"))
    )
    assert not SWAP._replace(after="freeze_kv").at([1]).main and not SWAP._replace(donors="steps").at([1]).main


def test_a_table_of_effects_comes_back_typed_and_readable_and_an_older_one_says_what_to_do(tmp_path: Path) -> None:
    from thoughtgraft.effects.positions import position_table

    made = position_table(RunStore.open(STORED / "schema2").frame(), resamples=9)
    pq.write_table(pa.Table.from_pandas(made), tmp_path / "positions.parquet")
    table = read_effects(tmp_path / "positions.parquet")
    assert ArmKey.of_table(table) == ArmKey.of_table(made)
    assert table.site_layer.dtype == made.site_layer.dtype == "Int32"
    at_3 = table[(table.slots == (3,)) & (table.method == "swap")]
    assert len(at_3) == 1 and at_3.equals(table[(table.label == "CT3") & (table.method == "swap")])
    assert set(table.label[table.site_layer == 2]) == {"CT2 after L2", "CT3 after L2", "all after L2"}
    with pytest.raises(RunError, match=r"earlier version; got slots as text\. Fix: thoughtgraft analyze RUN makes it"):
        read_effects(STORED / "rule1-schema1" / "analysis" / "positions.parquet")
