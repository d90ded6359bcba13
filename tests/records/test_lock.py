"""One writer per run: a second is refused by name, a dead one blocks nobody, and readers are never in the way."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from thoughtgraft.errors import RunError
from thoughtgraft.records import alive as lock_module
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore

_WRITER = """
import sys, time
from thoughtgraft.records.spec import RunSpec
from thoughtgraft.records.store import RunStore
spec = RunSpec.model_validate_json(sys.argv[2])
store = RunStore.create(sys.argv[1], spec)
store.write_unit("u0", [{"cell": "c0", "arm": "a", "method": "swap", "slots": [0], "problem_id": "p"}])
store.heartbeat(1, 12, "records")
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path, make_spec):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", _WRITER, str(tmp_path), make_spec().model_dump_json()]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_a_killed_one_blocks_nobody(tmp_path, make_spec, make_rows, writer):
    with pytest.raises(RunError, match=rf"is being written by pid {writer.pid} on .*Fix: wait for it or stop it"):
        RunStore.create(tmp_path, make_spec())
    assert read_status(tmp_path).state == "alive"
    assert RunStore.open(tmp_path).stored_units() == {"u0"}, "reading goes on beside it"
    with pytest.raises(RunError, match=f"pid {writer.pid}"):
        RunStore.create(tmp_path, make_spec())

    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert read_status(tmp_path).state == "dead"
    with RunStore.create(tmp_path, make_spec()) as store:
        store.write_unit("h0", make_rows("h0"))
        assert store.stored_units() == {"u0", "h0"}


def test_within_one_process(tmp_path, make_spec):
    first = RunStore.create(tmp_path, make_spec())
    with pytest.raises(
        RunError, match=rf"written by this process \(pid {os.getpid()}\).*Fix: close the other RunStore"
    ):
        RunStore.create(tmp_path, make_spec())
    first.close()
    first.close()
    second = RunStore.create(tmp_path, make_spec())
    with pytest.raises(RunError, match="reading only"):
        first.heartbeat(0, 1, "records")
    del second  # Dropped without closing: the lock goes with it.
    RunStore.create(tmp_path, make_spec()).close()


def test_reading_in_the_writing_process_keeps_the_lock(tmp_path, make_spec):
    with RunStore.create(tmp_path, make_spec()):
        assert read_status(tmp_path).state == "alive"
        RunStore.open(tmp_path).table()
        code = "import fcntl, os, sys\nfcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        tried = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.lock")], capture_output=True)
        assert tried.returncode != 0, "another process could have taken the lock"


def test_a_file_system_without_locks_falls_back_on_the_heartbeat(tmp_path, make_spec, writer, monkeypatch):
    def unsupported(*_args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock_module.fcntl, "lockf", unsupported)
    with pytest.raises(RunError, match=f"is being written by pid {writer.pid}"):
        RunStore.create(tmp_path, make_spec())
    writer.kill()
    writer.wait()
    with pytest.warns(UserWarning, match="has no locks"):
        RunStore.create(tmp_path, make_spec()).close()
