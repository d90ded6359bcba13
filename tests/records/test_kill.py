"""A writer killed at any moment loses at most the unit in progress, and the run, continued, holds every row once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

from thoughtgraft.records.store import RunStore

KILLS = 3
UNITS = 150
_WRITER = f"""
import sys
from thoughtgraft.records import shards
from thoughtgraft.records.spec import RunSpec
from thoughtgraft.records.store import RunStore
shards.MERGE_UNITS = 8
with RunStore.create(sys.argv[1], RunSpec.model_validate_json(sys.argv[2])) as store:
    stored = store.stored_units()
    print(len(stored), flush=True)
    for unit in (f"u{{i}}" for i in range({UNITS})):
        if unit not in stored:
            row = {{"arm": "a", "method": "swap", "slots": [0], "problem_id": unit}}
            store.write_unit(unit, [row | {{"cell": f"{{unit}}-{{j}}"}} for j in range(5)])
            print(unit, flush=True)
"""


def test_killed_and_continued(tmp_path, make_spec):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", _WRITER, str(tmp_path), make_spec().model_dump_json()]
    finished: set[str] = set()
    wait = random.Random(0)
    for kill in range(KILLS + 1):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as writer:
            assert writer.stdout is not None
            assert int(writer.stdout.readline()) >= len(finished), "a finished unit was lost"
            if kill < KILLS:
                time.sleep(wait.uniform(0.02, 0.3))
                writer.send_signal(signal.SIGKILL)
            finished |= set(writer.stdout.read().split())
        assert finished <= RunStore.open(tmp_path).stored_units()
    cells = RunStore.open(tmp_path).table(["cell"])["cell"].to_pylist()
    assert sorted(cells) == sorted(f"u{i}-{j}" for i in range(UNITS) for j in range(5))
