"""Shards are whole or absent, damaged ones are redone, and merging neither loses nor doubles a row at any moment."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thoughtgraft.errors import RunError
from thoughtgraft.records import shards as shards_module
from thoughtgraft.records.schema import RECORD_SCHEMA, REQUIRED_COLUMNS, SCHEMA_VERSION, VERSION_KEY, rows_to_table
from thoughtgraft.records.shards import read_shard, write_parquet
from thoughtgraft.records.spec import TABLE_MIGRATIONS
from thoughtgraft.records.store import RunStore

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_VALUES = {
    pa.string(): _TEXT,
    pa.bool_(): st.booleans(),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.list_(pa.int32()): st.lists(st.integers(0, 2**31 - 1), max_size=4),
}
_ROW = st.fixed_dictionaries(
    {
        field.name: _VALUES[field.type] if field.name in REQUIRED_COLUMNS else st.none() | _VALUES[field.type]
        for field in RECORD_SCHEMA
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(_ROW, max_size=4))
def test_any_rows_survive_the_disk(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    write_parquet(path, rows_to_table(rows))
    assert read_shard(path, None).to_pylist() == rows


def test_rows_that_do_not_fit_are_refused(make_rows):
    row = make_rows("h")[0]
    with pytest.raises(RunError, match="columns that the schema lacks; got colour"):
        rows_to_table([row | {"colour": 1}])
    with pytest.raises(RunError, match="got null in cell"):
        rows_to_table([row | {"cell": None}])
    with pytest.raises(RunError, match=r"'n_tokens' holds a wrong value.*expected int32"):
        rows_to_table([row | {"n_tokens": "many"}])


def test_leftovers_of_a_killed_writer_are_swept(run_folder, make_spec):
    tmp = run_folder / "records" / ".tmp-h4.parquet-1-1"
    tmp.write_bytes(b"PAR1 half a shard")
    assert len(RunStore.open(run_folder).stored_units()) == 4, "readers do not see it"
    with RunStore.create(run_folder, make_spec()) as store:
        assert not tmp.exists()
        assert len(store.stored_units()) == 4


def _truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 255]) + data[41:]


@pytest.mark.parametrize("damage", [_truncate, _flip, lambda _data: b""], ids=["truncated", "bit flip", "empty"])
def test_a_damaged_shard_is_set_aside_and_redone(run_folder, make_spec, make_rows, damage):
    shard = run_folder / "records" / "h1.parquet"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(RunError, match=r"h1\.parquet does not parse.*Fix: run the same command again"):
        RunStore.open(run_folder).table()
    with pytest.warns(UserWarning, match=r"h1\.parquet does not parse .*its cells will be run again"):
        store = RunStore.create(run_folder, make_spec())
    with store:
        assert store.stored_units() == {"h0", "h2", "h3"}
        assert (run_folder / "quarantine" / "h1.parquet").exists()
        store.write_unit("h1", make_rows("h1"))
        assert len(store.stored_cells()) == 12


def test_a_foreign_parquet_file_is_set_aside(run_folder, make_spec):
    pq.write_table(pa.table({"x": [1]}), run_folder / "records" / "mine.parquet")
    with pytest.warns(UserWarning, match="names no schema version"):
        RunStore.create(run_folder, make_spec()).close()


@pytest.fixture
def merging(monkeypatch):
    monkeypatch.setattr(shards_module, "MERGE_UNITS", 4)


def _names(run):
    return sorted(path.name for path in (run / "records").iterdir())


def test_merging_keeps_every_row_once(tmp_path, make_spec, make_rows, merging):
    with RunStore.create(tmp_path, make_spec()) as store:
        for i in range(10):
            store.write_unit(f"h{i}", make_rows(f"h{i}"))
            assert len(store.stored_units()) == i + 1
            cells = store.table(["cell"])["cell"].to_pylist()
            assert len(cells) == len(set(cells)) == 3 * (i + 1)
    assert [name.startswith("merged-") for name in _names(tmp_path)] == [False, False, True, True]
    with RunStore.create(tmp_path, make_spec()) as store:
        store.write_unit("h0", make_rows("other"))
        assert len(store.stored_units()) == 10
        assert not any("other" in cell for cell, _ in store.stored_cells())


def test_a_crash_between_merging_and_removing_doubles_nothing(tmp_path, make_spec, make_rows, merging):
    with RunStore.create(tmp_path, make_spec()) as store:
        for i in range(3):
            store.write_unit(f"h{i}", make_rows(f"h{i}"))
        loose = {name: (tmp_path / "records" / name).read_bytes() for name in _names(tmp_path)}
        store.write_unit("h3", make_rows("h3"))
    for name, data in loose.items():
        (tmp_path / "records" / name).write_bytes(data)
    assert RunStore.open(tmp_path).table().num_rows == 12
    RunStore.create(tmp_path, make_spec()).close()
    assert len(_names(tmp_path)) == 1, "the copies are removed"


def test_a_failed_merge_warns_and_loses_nothing(tmp_path, make_spec, make_rows, merging, monkeypatch):
    write = shards_module.write_parquet

    def full(path, table, metadata=None):
        if path.name.startswith("merged-"):
            raise RunError("the disk is full")
        write(path, table, metadata)

    with RunStore.create(tmp_path, make_spec()) as store:
        monkeypatch.setattr(shards_module, "write_parquet", full)
        for i in range(3):
            store.write_unit(f"h{i}", make_rows(f"h{i}"))
        with pytest.warns(UserWarning, match="shards were not merged.*the disk is full"):
            store.write_unit("h3", make_rows("h3"))
        monkeypatch.setattr(shards_module, "write_parquet", write)
        for i in range(4, 8):
            store.write_unit(f"h{i}", make_rows(f"h{i}"))
        assert store.table().num_rows == 24
    assert len(_names(tmp_path)) == 1


def test_a_reader_beside_a_merge_sees_every_row(tmp_path, make_spec, make_rows, merging, monkeypatch):
    """The reader lists loose shards; before it reads them they are merged away."""
    reader, read = RunStore.open, shards_module.read_shard
    with RunStore.create(tmp_path, make_spec()) as store:
        for i in range(3):
            store.write_unit(f"h{i}", make_rows(f"h{i}"))
        merged = False

        def read_late(path, *rest):
            nonlocal merged
            if not merged:
                merged = True
                monkeypatch.setattr(shards_module, "read_shard", read)
                store.write_unit("h3", make_rows("h3"))
                monkeypatch.setattr(shards_module, "read_shard", read_late)
            return read(path, *rest)

        monkeypatch.setattr(shards_module, "read_shard", read_late)
        assert reader(tmp_path).table(["cell"]).num_rows == 12


def test_an_older_version_is_migrated_and_a_newer_one_explained(run_folder, make_rows, monkeypatch):
    path = run_folder / "records" / "h0.parquet"
    old = rows_to_table(make_rows("h0"), "h0")
    newer = old.replace_schema_metadata({VERSION_KEY: str(SCHEMA_VERSION + 1).encode()})
    pq.write_table(newer, path)
    with pytest.raises(
        RunError, match=r"newer thoughtgraft; got schema version 4; expected at most 3\. Fix: pip install"
    ):
        RunStore.open(run_folder).table()

    first = old.drop_columns(["model_edit", "site_kind", "site_layer"])
    renamed = first.rename_columns(["answer" if name == "pred" else name for name in first.column_names])
    pq.write_table(renamed.replace_schema_metadata({VERSION_KEY: b"0"}), path)
    with pytest.raises(RunError, match="schema version 0, from which no path leads"):
        RunStore.open(run_folder).table()
    monkeypatch.setitem(
        TABLE_MIGRATIONS,
        0,
        lambda t: t.rename_columns(["pred" if name == "answer" else name for name in t.column_names]),
    )
    assert RunStore.open(run_folder).table(["pred"]).num_rows == 12
    assert RunStore.open(run_folder).table(["model_edit"])["model_edit"].null_count == 12


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "merged-0", "x" * 300])
def test_unit_names_are_file_names(tmp_path, make_spec, make_rows, name):
    with RunStore.create(tmp_path, make_spec()) as store, pytest.raises(RunError, match="unit's name"):
        store.write_unit(name, make_rows("h"))
