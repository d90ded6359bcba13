"""A run folder is created, continued and read; another run, a broken disk or a file in the way is refused clearly."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.records.conftest import SWAP, planned

from thoughtgraft import files as atomic_module
from thoughtgraft.errors import RunError
from thoughtgraft.records import alive as heartbeat_module
from thoughtgraft.records.store import RunStore


def test_what_goes_in_comes_out(run_folder, make_rows):
    store = RunStore.open(run_folder)
    assert store.stored_units() == {"h0", "h1", "h2", "h3"}
    assert len(store.stored_cells()) == 12
    rows = {row["cell"]: row for row in store.table().to_pylist()}
    for row in make_rows("h2"):
        stored = rows[row["cell"]]
        assert stored["unit"] == "h2"
        assert {name: stored[name] for name in row} == row
        assert all(value is None for name, value in stored.items() if name not in row and name != "unit")


def test_column_order_and_selection_are_the_callers(run_folder):
    table = RunStore.open(run_folder).table(["pred", "cell"])
    assert table.column_names == ["pred", "cell"]
    assert "7" in table["pred"].to_pylist()
    with pytest.raises(RunError, match=r"no such column; got nonsense; expected run_id, unit"):
        RunStore.open(run_folder).table(["nonsense"])


def test_frame_types_do_not_depend_on_content(run_folder, tmp_path, make_spec):
    full = RunStore.open(run_folder).frame()
    with RunStore.create(tmp_path / "empty", make_spec()) as store:
        empty = store.frame()
    assert list(full.columns) == list(empty.columns)
    assert (full.dtypes == empty.dtypes).all()
    assert full["correct"].dtype == pd.BooleanDtype()
    assert full["correct"].mean() == pytest.approx(8 / 12)
    assert set(full["slots"]) == {(), (3,)}
    assert full.groupby("slots").size().to_dict() == {(): 4, (3,): 8}


def test_the_same_spec_continues_and_stored_units_are_left_alone(run_folder, make_spec, make_rows):
    shard = run_folder / "records" / "h0.parquet"
    before = shard.read_bytes()
    with RunStore.create(run_folder, make_spec(device="cuda", versions={"torch": "9"})) as store:
        store.write_unit("h0", make_rows("other"))
        store.write_unit("h4", make_rows("h4"))
        assert len(store.stored_units()) == 5
        assert store.spec.device == "cpu", "run.json keeps what the first start wrote"
    assert shard.read_bytes() == before
    first, second = json.loads((run_folder / "starts.json").read_text())
    assert (first["device"], second["device"], second["versions"]) == ("cpu", "cuda", {"torch": "9"})
    assert (first["units_before"], second["units_before"]) == (0, 4)
    assert set(first["finish"]) == {"ended_utc", "wall_s", "cpu_s", "peak_memory_mb"}


def test_another_run_is_refused_with_every_difference(run_folder, make_spec):
    other = make_spec(seed=1, model_hash="m1", plan_hash="q1", plan={"cells_per_arm": planned({SWAP: 9})})
    with pytest.raises(RunError) as caught:
        RunStore.create(run_folder, other)
    assert str(caught.value) == (
        f"{run_folder} holds another run; got \n"
        "  seed: 0 there, 1 now\n"
        "  model_hash: 'm0' there, 'm1' now\n"
        "  plan_hash: 'q0' there, 'q1' now\n"
        "  plan.cells_per_arm.baseline: 4 there, None now\n"
        "  plan.cells_per_arm.swap CT3: 8 there, 9 now\n"
        "; expected the same run, to continue it. Fix: use --out another folder."
    )
    RunStore.create(run_folder, make_spec()).close()  # The refusal gave the lock back.


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ('{"study": "resam', "Unterminated string"),
        ("[]", "no schema_version"),
        ('{"schema_version": 1, "study": "x"}', "model: Field required"),
    ],
)
def test_a_damaged_run_json_is_named(run_folder, make_spec, text, got):
    (run_folder / "run.json").write_text(text)
    for use in (RunStore.open, lambda path: RunStore.create(path, make_spec())):
        with pytest.raises(RunError, match=f"run.json is damaged; got {got}.*Fix: restore it"):
            use(run_folder)
    assert len(list((run_folder / "records").iterdir())) == 4, "nothing stored was harmed"


def test_folders_that_cannot_be_runs(tmp_path, make_spec):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"file is a file; expected a folder\. Fix: choose another folder with --out"):
        RunStore.create(tmp_path / "file", make_spec())
    with pytest.raises(RunError, match=r"file is a file; expected a folder"):
        RunStore.create(tmp_path / "file" / "run", make_spec())
    with pytest.raises(RunError, match="is not a run; expected an existing folder"):
        RunStore.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"is not a run; expected a folder with run\.json"):
        RunStore.open(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path, make_spec):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match=r"Permission denied.*Fix: choose a folder that you may write to"):
        RunStore.create(tmp_path, make_spec())


def test_a_read_only_disk(tmp_path, make_spec, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match=r"Read-only file system.*Fix: choose a folder on a writable disk"):
        RunStore.create(tmp_path / "run", make_spec())


def test_records_without_run_json_are_not_adopted(run_folder, make_spec):
    (run_folder / "run.json").unlink()
    with pytest.raises(RunError, match=r"holds records but no run\.json"):
        RunStore.create(run_folder, make_spec())


def test_a_folder_of_other_things_is_left_alone(tmp_path, make_spec):
    for name in ("starts.json", "problems.parquet", "notes.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(
        RunError, match=r"holds other things and no run; got notes\.txt, problems\.parquet, starts\.json"
    ):
        RunStore.create(tmp_path, make_spec())
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        ("starts.json", "problems.parquet", "notes.txt"), "mine"
    )


def test_what_a_start_leaves_before_run_json_is_no_obstacle(tmp_path, make_spec):
    for name in ("run.lock", "heartbeat.json", ".tmp-run.json-1-2", ".gitkeep"):
        (tmp_path / name).write_text("")
    RunStore.create(tmp_path, make_spec()).close()


def test_starts_json_that_is_no_list_is_begun_anew(run_folder, make_spec):
    (run_folder / "starts.json").write_text('{"x": 1}')
    RunStore.create(run_folder, make_spec()).close()
    assert len(json.loads((run_folder / "starts.json").read_text())) == 1


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_harms_nothing_and_the_run_continues(run_folder, make_spec, make_rows, monkeypatch, failing):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class FillsUp(io.BufferedWriter):
        def write(self, data):
            super().write(data[: len(data) // 2])
            full()

    before = {path.name: path.read_bytes() for path in (run_folder / "records").iterdir()}
    with RunStore.create(run_folder, make_spec()) as store:
        with monkeypatch.context() as patch:
            if failing == "fsync":
                patch.setattr(atomic_module.os, "fsync", full)
            else:
                patch.setattr(Path, "open", lambda path, _mode: FillsUp(io.FileIO(path, "w")))
            with pytest.raises(
                RunError, match=r"No space left on device\. Fix: free some disk space, then run the same"
            ):
                store.write_unit("h4", make_rows("h4"))
            monkeypatch.setattr(heartbeat_module, "process_started", lambda _pid: None)
            store.heartbeat(12, 12, "records")  # A lost sign of life never stops a run.
        assert {path.name: path.read_bytes() for path in (run_folder / "records").iterdir()} == before
        store.write_unit("h4", make_rows("h4"))
    assert "h4" in RunStore.open(run_folder).stored_units()


def test_a_store_for_reading_does_not_write_records(run_folder, make_rows):
    store = RunStore.open(run_folder)
    with pytest.raises(RunError, match="open for reading only"):
        store.write_unit("h9", make_rows("h9"))
    store.write_json("analysis/x.json", {"n": np.int64(3), "a": np.arange(2), "s": {2, 1}})
    assert store.read_json("analysis/x.json") == {"n": 3, "a": [0, 1], "s": [1, 2]}
    store.write_table("problems.parquet", pd.DataFrame({"id": ["a"]}))
    assert pq.read_table(run_folder / "problems.parquet").to_pylist() == [{"id": "a"}]


def test_json_is_strict_and_names_are_safe(run_folder):
    store = RunStore.open(run_folder)
    with pytest.raises(RunError, match=r"x\.json cannot be written as JSON.*Fix: use null for what is undefined"):
        store.write_json("x.json", {"p": float("nan")})
    for name in ("../x.json", "/x.json", "run.json", "records/x.json", ""):
        with pytest.raises(RunError, match="not free"):
            store.write_json(name, {})
    with pytest.raises(RunError, match=r"certificate\.json is missing"):
        store.read_json("certificate.json")


def test_failed_cells_are_listed(run_folder, make_spec, make_rows):
    row = make_rows("h5")[1] | {"error": "ValueError: no", "correct": None, "pred": None}
    with RunStore.create(run_folder, make_spec()) as store:
        store.write_unit("h5", [row])
        expected = {"cell": "h5-0", "arm": "swap@3", "problem_id": "h5", "donor_id": "d0", "error": "ValueError: no"}
        assert store.errors == [expected]


def test_run_id_is_the_identity_and_nothing_else(make_spec):
    assert make_spec().run_id == make_spec(device="cuda", provenance={"a": 1}, model="elsewhere").run_id
    assert make_spec().run_id != make_spec(seed=1).run_id
