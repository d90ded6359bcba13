"""A run killed again and again loses no finished unit, doubles none, and ends with an uninterrupted run's table."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from tests.faults.runner import FULL, Log, Runner, differing, gaps, same_bits, table

from thoughtgraft.records.alive import process_started
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore

KILLS = 50 if FULL else 4
SMALL = {"hosts": 10, "donors": 3}
SIZE = {"hosts": 60, "donors": 10} if FULL else SMALL
# Log-probabilities come from float32 logits of up to about 30, whose own last bit is 2e-6.
ROUNDING = 1e-4
JOB = {**SIZE, "batch_size": 32 if FULL else 16}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made


@dataclass(frozen=True)
class Whole:
    """What nothing interrupted: a run in the killed ones' packs, with its units and seconds, and one in other packs."""

    table: pd.DataFrame
    units: int
    seconds: float
    other: pd.DataFrame


@pytest.fixture(scope="module")
def whole(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    runner.whole(folder / "other.log", out=str(folder / "other"), **SIZE, batch_size="auto")
    begin = time.monotonic()
    log = runner.whole(folder / "same.log", out=str(folder / "same"), **JOB)
    seconds = time.monotonic() - begin
    return Whole(table(folder / "same"), len(log.units), seconds, table(folder / "other"))


def _wait_for_units(log: Path, pid: int, units: int) -> None:
    """Until a run has begun, and stored so many units."""
    while not (noted := Log.read(log)).packs or len(noted.units) < units:
        assert process_started(pid) is not None, noted.error or "the run ended early"
        time.sleep(0.002)


def _wait_for_writing(records: Path, limit_s: float) -> None:
    """Until a file is being written, or too long."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if records.is_dir():
            with os.scandir(records) as entries:
                if any(entry.name.startswith(".tmp-") for entry in entries):
                    return


def test_kills_at_random_times(
    runner: Runner, whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, chance, pause = tmp_path / "run", random.Random(0), whole.seconds / whole.units
    total, finished, during_write, lost = len(whole.table), dict[str, int](), 0, list[int]()
    for kill in range(KILLS):
        log = tmp_path / f"log{kill}"
        pid = runner.start(log, out=str(run), **JOB)
        # The units that are left are shared by the kills that are left, so that they fall all over the run.
        share = max(0.0, whole.units - len(finished) - 2 * KILLS) / (KILLS - kill + 1)
        _wait_for_units(log, pid, int(chance.uniform(0, 2 * share)))
        time.sleep(chance.uniform(0, pause))
        if kill % 2:
            _wait_for_writing(run / "records", limit_s=2 * pause)
        os.kill(pid, signal.SIGKILL)
        assert runner.wait(pid) == -signal.SIGKILL, f"the run ended before kill {kill + 1}"

        noted = Log.read(log)
        assert not noted.units.keys() & finished.keys(), "a finished unit was run again"
        finished |= noted.units
        stored = RunStore.open(run).stored_units()
        assert finished.keys() <= stored, "a finished unit was lost"
        status = read_status(run)
        assert (status.state, status.damaged_shards) == ("dead", 0)
        assert status.done >= sum(finished.values())
        during_write += any((run / "records").glob(".tmp-*"))
        lost.append(sum(noted.packs) - sum(noted.units.values()))
        assert lost[-1] <= noted.packs[-1], "more than the pack in progress was lost"
        finished |= dict.fromkeys(stored - finished.keys(), 0)  # Stored, and killed before it could be noted.
    last = runner.whole(tmp_path / "last", out=str(run), **JOB)
    assert not last.units.keys() & finished.keys()
    same_bits(whole.table, table(run))
    gap = gaps(whole.other, table(run))
    with capsys.disabled():
        print(  # noqa: T201
            f"\n  {KILLS} kills over {total:,} cells in packs of at most {JOB['batch_size']}, {during_write} of them "
            f"in the middle of a write: at most {max(lost)} generations lost by one, {sum(lost)} by all; 0 finished "
            "units lost, 0 rows doubled, every bit as in an uninterrupted run\n  "
            f"against one in other packs: {differing(whole.other, table(run)) or 0} rows with another answer or grade, "
            f"continuous columns within {gap.max():.1e} ({(gap > 1e-5).sum()} rows beyond 1e-5)"
        )
    assert not differing(whole.other, table(run))
    assert gap.max() < ROUNDING


def test_a_second_writer_is_refused_and_the_first_goes_on(runner: Runner, tmp_path: Path) -> None:
    run, job = tmp_path / "run", {**SMALL, "batch_size": 16}
    first = runner.start(tmp_path / "first", out=str(run), **job)
    _wait_for_units(tmp_path / "first", first, 1)
    second = runner.start(tmp_path / "second", out=str(run), **job)
    assert runner.wait(second) == 2
    assert f"is being written by pid {first}" in str(Log.read(tmp_path / "second").error)
    assert runner.wait(first) == 0
    runner.whole(tmp_path / "alone.log", out=str(tmp_path / "alone"), **job)
    same_bits(table(tmp_path / "alone"), table(run))


@pytest.mark.skipif(not FULL, reason="a measurement, not a test: make faults")
def test_how_often_bfloat16_answers_depend_on_the_packing(
    runner: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.whole(tmp_path / "a.log", out=str(tmp_path / "a"), **SIZE, batch_size="auto", dtype="bfloat16")
    pid = runner.start(tmp_path / "b.log", out=str(tmp_path / "b"), **JOB, dtype="bfloat16")
    _wait_for_units(tmp_path / "b.log", pid, 100)
    os.kill(pid, signal.SIGKILL)
    assert runner.wait(pid) == -signal.SIGKILL
    runner.whole(tmp_path / "b.log", out=str(tmp_path / "b"), **JOB, dtype="bfloat16")
    a, b = table(tmp_path / "a"), table(tmp_path / "b")
    found = differing(a, b)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n  bfloat16, interrupted and in other packs, {len(a):,} cells: {found.get('pred', 0)} answers differ "
            f"({found.get('pred', 0) / len(a):.2%}), {found.get('correct', 0)} grades, {found.get('text', 0)} texts"
        )
