"""Exports hold the same records as the run, filters mean what they say, and nobody's README is overwritten."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from thoughtgraft.errors import RunError
from thoughtgraft.records.export import COLUMN_MEANINGS, export_records, load_records, rows_where
from thoughtgraft.records.schema import RECORD_SCHEMA
from thoughtgraft.records.store import RunStore


def test_parquet_and_jsonl_round_trip(run_folder, tmp_path):
    rows = RunStore.open(run_folder).table().to_pylist()
    export_records(run_folder, tmp_path / "a.parquet", "parquet")
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == rows
    export_records(run_folder, tmp_path / "sub" / "a.jsonl", "jsonl")
    assert [json.loads(line) for line in (tmp_path / "sub" / "a.jsonl").read_text().splitlines()] == rows


def test_csv_holds_every_column(run_folder, tmp_path):
    export_records(run_folder, tmp_path / "a.csv", where='slots == "[3]" and adopted')
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert list(rows[0]) == RECORD_SCHEMA.names
    assert (rows[0]["slots"], rows[0]["pred"], rows[0]["correct"], rows[0]["seed"]) == ("[3]", "7", "false", "")
    export_records(run_folder, tmp_path / "a.csv", where='method == "baseline"')
    with (tmp_path / "a.csv").open() as file:
        assert {(row["slots"], row["token_ids"]) for row in csv.DictReader(file)} == {("[]", "[1,2]")}


def test_the_card_says_what_it_is_and_spares_other_readmes(run_folder, tmp_path):
    out = tmp_path / "out"
    assert export_records(run_folder, out / "a.parquet", "parquet") == ([out / "a.parquet", out / "README.md"], 12)
    card = (out / "README.md").read_text()
    assert "12 of 12 planned" in card
    assert all(f"| {name} |" in card for name in RECORD_SCHEMA.names)
    export_records(run_folder, out / "a.parquet", "parquet", where="correct")
    assert "8, selected by `correct`" in (out / "README.md").read_text(), "our own card is renewed"
    (out / "README.md").write_text("# mine")
    assert export_records(run_folder, out / "a.parquet", "parquet").files[1] == out / "a.README.md"
    assert (out / "README.md").read_text() == "# mine"
    assert set(COLUMN_MEANINGS) == set(RECORD_SCHEMA.names)


def test_load_records(run_folder):
    assert len(load_records(run_folder)) == 12
    frame = load_records(run_folder, where="kl.notna()")
    assert frame["kl"].tolist() == [0.5] * 4


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ('method == "swap"', 8),
        ('method != "swap"', 4),
        ('slots == "[3]"', 8),
        ('slots != "[3]"', 4),
        ('slots == "[]"', 4),
        ('slots in ["[3]", "[4]"]', 8),
        ('slots.str.contains("3")', 8),
        ('not slots.str.contains("3")', 4),
        ("adopted", 4),
        ("not adopted", 0),  # undefined elsewhere: keeps no row
        ("adopted.isna()", 8),
        ('donor_id in ["d0", "d9"]', 4),
        ('donor_id.notna() and donor_id not in ["d0"]', 4),
        ("pred == donor_pred", 4),
        ("pred == gold or adopted", 12),
        ("0 < kl < 1", 4),
        ("0.5 <= kl", 4),
        ("correct == True and (kl > 1 or logp_gold < -0.1)", 4),
        ("kl + 1 > 1.2", 4),
        ("logp_gold == -0.25", 4),
        ('(kl == 0.5) | (slots == "[]")', 8),
    ],
)
def test_conditions_mean_what_they_say(run_folder, where, kept):
    assert rows_where(RunStore.open(run_folder).table(), where).num_rows == kept


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("method ==", "cannot be used; got invalid syntax"),
        ("colour == 3", "got the unknown column 'colour'; expected run_id, "),
        ("metod == 'swap'", "got the unknown column 'metod'.*did you mean 'method'"),
        ("pred < 42", "cannot be used; got "),
        ("error is None", r"cannot be used; got is\. Fix: error\.isna\(\) keeps"),
        ("method", "got no true or false for each row"),
        ("3", "got no true or false for each row"),
        ("pred == @gold", "cannot be used; got invalid syntax"),
        ("__import__('os').system('true') == 0", "got __import__"),
        ("correct.__class__ == 1", "got correct.__class__"),
        ("kl == (lambda: 0)()", "got "),
        ("kl.to_csv('/tmp/thoughtgraft-x') == 1", r"got kl\.to_csv"),
        ("pred.str.__class__ == 1", "got pred.str.__class__"),
        ("[k for k in kl]", "got "),
        ("kl[0] == 1", r"got kl\[0\]"),
        ("f'{kl}' == 1", "got "),
        ("abs(kl) > 1", r"got abs\(kl\)"),
        ("kl.isna(axis=0)", r"got kl\.isna\(axis=0\)"),
        ("(x := 3) == 3", "got "),
        (3, "wrong kind of value for the condition; got 3"),
    ],
)
def test_what_is_no_condition_is_explained_and_never_run(run_folder, where, message):
    with pytest.raises(RunError, match=message) as caught:
        load_records(run_folder, where=where)
    assert "Fix: " in str(caught.value) and not Path("/tmp/thoughtgraft-x").exists()


def test_exports_that_cannot_be(run_folder, tmp_path):
    with pytest.raises(RunError, match="unknown export format; got 'xlsx'"):
        export_records(run_folder, tmp_path / "a", "xlsx")
    with pytest.raises(RunError, match="is a folder"):
        export_records(run_folder, tmp_path)
    with pytest.raises(RunError, match="among the run's own shards"):
        export_records(run_folder, run_folder / "records" / "a.parquet", "parquet")
