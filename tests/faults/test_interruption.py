"""The command as typed, interrupted by SIGINT, then by SIGTERM: it stores, says how to go on, and goes on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.runner import FULL, Runner, same_bits, table

from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore

# A background job's SIGINT is ignored, and so is its children's: not here.
_MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "sys.argv[0] = 'thoughtgraft'\n"
    "from thoughtgraft.cli.app import main; main()"
)
# Each start imports torch; what the handlers do with either signal is tested in `tests/cli`.
SIGNALS = ((signal.SIGINT, 130), (signal.SIGTERM, 143)) if FULL else ((signal.SIGTERM, 143),)
HOSTS, DONORS = 30, 4
WORDS = ["run", "resampling", "--preset", "demo", "--hosts", str(HOSTS), "--donors", str(DONORS), "--certify", "off"]
WORDS += ["--batch-size", "16", "--device", "cpu"]


def test_interrupted_and_continued(tmp_path: Path) -> None:
    run, before = tmp_path / "run", 0
    words = [*WORDS, "--out", str(run)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for number, code in SIGNALS:
        with subprocess.Popen(
            [sys.executable, "-c", _MAIN, *words], stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            while _stored(run) <= before and process.poll() is None:
                time.sleep(0.01)
            assert read_status(run).state == "alive"
            process.send_signal(number)
            _, told = process.communicate()
        assert process.returncode == code, told
        assert "a second signal ends at once" in told
        assert f"run the same command again:\n  {shlex.join(['thoughtgraft', *words])}\n" in told
        assert "Traceback" not in told
        status = read_status(run)
        assert (status.state, status.damaged_shards) == ("stopped", 0)
        assert before < status.done < status.total
        assert status.done == len(table(run)), "no unit is stored twice"
        assert not list(run.rglob("*.tmp*")) + list(run.rglob(".tmp*"))
        before = _stored(run)
    if FULL:
        subprocess.run([sys.executable, "-c", _MAIN, *words], env=environment, check=True)
        assert (run / "report.html").is_file()
        with Runner() as runner:
            job = {"hosts": HOSTS, "donors": DONORS, "batch_size": 16}
            runner.whole(tmp_path / "log", out=str(tmp_path / "whole"), **job)
        # The command also names its study and its decision rule, so its run has another id.
        same_bits(*(table(path).drop(columns="run_id") for path in (tmp_path / "whole", run)))


def _stored(run: Path) -> int:
    return len(RunStore.open(run).stored_units()) if (run / "run.json").is_file() else 0
