"""Status counts what is stored, judges life and death, and answers fast on many records without torch or pandas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from thoughtgraft.cli import read as runs_module
from thoughtgraft.cli.app import app
from thoughtgraft.errors import RunError
from thoughtgraft.records import alive as heartbeat_module
from thoughtgraft.records.alive import process_runs, process_started
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore


def test_a_finished_run(run_folder):
    status = read_status(run_folder)
    assert (status.state, status.done, status.total, status.errors) == ("finished", 12, 12, 0)
    assert (status.study, status.model, status.protocol) == ("resampling", "tiny-codi", "official")
    baseline, swap = status.arms
    assert (baseline.arm, baseline.done, baseline.total) == (ArmKey("baseline"), 4, 4)
    assert (baseline.accuracy, baseline.impact_pp) == (1.0, 0.0)
    assert (swap.arm.label(), swap.arm.slots, swap.done, swap.total) == ("swap CT3", (3,), 8, 8)
    assert (swap.accuracy, swap.base_accuracy, swap.impact_pp) == (0.5, 1.0, 50.0)
    assert status.eta_s is None
    told = json.loads(status.to_json())["arms"][1]
    assert (told["label"], told["slots"], told["site_kind"], told["site_layer"]) == ("swap CT3", [3], "fed", None)


def test_an_unstarted_a_partial_and_a_failing_run(tmp_path, make_spec, make_rows):
    with RunStore.create(tmp_path, make_spec()) as store:
        empty = read_status(tmp_path)
        assert (empty.state, empty.done, empty.phase, empty.eta_s) == ("alive", 0, "starting", None)
        assert [(arm.done, arm.total, arm.accuracy, arm.impact_pp) for arm in empty.arms] == [
            (0, 4, None, None),
            (0, 8, None, None),
        ]
        store.heartbeat(0, 12, "records")
        failed = [row | {"error": "OOM", "correct": None} if row["cell"] == "h0-1" else row for row in make_rows("h0")]
        store.write_unit("h0", failed)
        status = read_status(tmp_path)
    assert (status.state, status.done, status.errors, status.phase) == ("alive", 3, 1, "records")
    assert read_status(tmp_path).state == "stopped", "closed before its end, though this process lives on"
    assert (status.arms[1].done, status.arms[1].errors, status.arms[1].accuracy) == (2, 1, 1.0)


def test_certificate_and_damage_are_shown(run_folder):
    store = RunStore.open(run_folder)
    for content, shown in [({"passed": True}, "passed"), ({"passed": False}, "failed"), ([], "unreadable")]:
        store.write_json("certificate.json", content)
        assert read_status(run_folder).certificate == shown
    (run_folder / "certificate.json").unlink()
    (run_folder / "records" / "h1.parquet").write_bytes(b"PAR1")
    status = read_status(run_folder)
    assert (status.certificate, status.damaged_shards, status.done) == ("none", 1, 9)


def test_not_a_run(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        read_status(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 1, "study": "x"}')
    with pytest.raises(RunError, match=r"run\.json is damaged; got no model, protocol, n_cells, plan"):
        read_status(tmp_path)


def test_heartbeats_are_throttled_and_rates_are_of_the_phase(tmp_path, make_spec, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(heartbeat_module.time, "monotonic", lambda: clock[0])
    with RunStore.create(tmp_path, make_spec()) as store:

        def beat(at, done, phase="records"):
            clock[0] = at
            store.heartbeat(done, 12, phase)
            return json.loads((tmp_path / "heartbeat.json").read_text())

        assert beat(100.0, 5, "thoughts")["phase"] == "thoughts"
        assert beat(100.1, 2)["done"] == 2, "a new phase is written at once"
        assert beat(100.2, 3)["done"] == 2, "too soon"
        assert beat(102.1, 6)["rate"] == pytest.approx(2.0), "4 items in 2 s; earlier ones do not count"
        assert read_status(tmp_path).eta_s == pytest.approx(3.0)
        assert beat(102.2, 12)["done"] == 12, "the last is always written"


def test_a_reused_pid_is_not_the_same_process():
    assert process_runs(os.getpid(), process_started(os.getpid()))
    if process_started(os.getpid()) is not None:
        assert not process_runs(os.getpid(), "1")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not process_runs(child.pid)


def test_silence_of_another_machine_is_death(tmp_path, make_spec):
    with RunStore.create(tmp_path, make_spec()) as store:
        store.heartbeat(1, 12, "records")
        beat = store.read_json("heartbeat.json")
        for age_s, state in [(5.0, "alive"), (1000.0, "dead")]:
            store.write_json("heartbeat.json", beat | {"host": "elsewhere", "updated": time.time() - age_s})
            assert read_status(tmp_path).state == state


@pytest.mark.parametrize("as_json", [True, False])
def test_watching_ends_with_the_run(tmp_path, make_spec, make_rows, monkeypatch, as_json):
    store = RunStore.create(tmp_path, make_spec())
    steps = iter([lambda: store.write_unit("h0", make_rows("h0")), store.close])
    monkeypatch.setattr(runs_module.time, "sleep", lambda _seconds: next(steps)())
    result = CliRunner().invoke(app, ["status", str(tmp_path), "--watch", *(["--json"] if as_json else [])])
    assert result.exit_code == 0, result.output
    if as_json:
        seen = [json.loads(line) for line in result.stdout.splitlines()]
        assert [(now["state"], now["done"]) for now in seen] == [("alive", 0), ("alive", 3), ("stopped", 3)]
    else:
        assert "stopped: 3 of 12 cells" in result.stdout
        assert "last sign of life 0 s ago" in result.stdout


def test_a_long_step_is_no_death(tmp_path, make_spec, monkeypatch):
    monkeypatch.setattr(heartbeat_module, "PULSE_S", 0.02)

    def after(seconds):
        before = store.read_json("heartbeat.json")
        time.sleep(seconds)
        return before, store.read_json("heartbeat.json")

    with RunStore.create(tmp_path, make_spec()) as store:
        before, now = after(0.3)
        assert now["updated"] > before["updated"]
        assert now | {"updated": 0} == before | {"updated": 0}
    assert store.read_json("heartbeat.json")["ended"]
    before, now = after(0.1)
    assert now == before, "after the end there is silence"


def test_100_000_records_without_torch_or_pandas(tmp_path, make_spec, make_rows, capsys):
    with RunStore.create(tmp_path, make_spec(n_cells=100_000)) as store:
        rows = [row | {"cell": f"{row['cell']}{i}"} for i in range(1000) for row in make_rows("h")]
        for unit in range(33):
            store.write_unit(f"u{unit}", rows)
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from thoughtgraft.records.status import read_status\n"
        "status = read_status(sys.argv[1]); took = time.perf_counter() - start\n"
        "print(status.done, *({'torch', 'pandas', 'transformers'} & set(sys.modules)))\n"
        "print(f'{took:.3f}')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment, check=True
    )
    counted, took = run.stdout.splitlines()
    assert counted == "99000", "and neither torch nor pandas was imported"
    with capsys.disabled():
        print(f"\n  status of 99,000 records, import included: {took} s")  # noqa: T201
