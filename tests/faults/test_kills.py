"""A run killed again and again loses no finished unit, doubles none, and ends with an uninterrupted run's table."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.runner import FULL, Log, Runner, differing, table

from thoughtgraft.records import RunStore, read_status

KILLS = 50 if FULL else 4
SIZE = {"hosts": 100, "donors": 10} if FULL else {"hosts": 10, "donors": 3}
JOB = {**SIZE, "batch_size": 48}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made


@pytest.fixture(scope="module")
def whole(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing interrupts, in packs of another size, and how long the packs of the killed one take."""
    folder = tmp_path_factory.mktemp("whole")
    runner.whole(folder / "log", out=str(folder / "run"), **SIZE, batch_size="auto")
    begin = time.monotonic()
    runner.whole(folder / "log", out=str(folder / "again"), **JOB)
    return folder / "run", time.monotonic() - begin


def _wait_for_work(log: Path) -> None:
    while not log.exists() or not log.stat().st_size:
        time.sleep(0.001)


def _wait_for_writing(records: Path, limit_s: float) -> None:
    """Until a file is being written, or too long."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            if any(entry.name.startswith(".tmp-") for entry in os.scandir(records)):
                return
        except FileNotFoundError:
            time.sleep(0.001)


def test_kills_at_random_times(
    runner: Runner, whole: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, seconds = whole
    run, chance = tmp_path / "run", random.Random(0)
    total, finished, during_write, lost = len(table(reference)), dict[str, int](), 0, list[int]()
    for kill in range(KILLS):
        log = tmp_path / f"log{kill}"
        pid = runner.start(log, out=str(run), **JOB)
        _wait_for_work(log)
        # What is left of the run is shared by the kills that are left, so that they fall all over it.
        left = seconds * (1 - sum(finished.values()) / total) / (KILLS - kill + 1)
        time.sleep(chance.uniform(0, 2 * left))
        if kill % 2:
            _wait_for_writing(run / "records", limit_s=2 * left)
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
    found = differing(table(reference), table(run))
    with capsys.disabled():
        print(  # noqa: T201
            f"\n  {KILLS} kills over {total:,} cells in packs of at most {JOB['batch_size']}: {during_write} in the middle "
            f"of a write, at most {max(lost)} generations lost by one, 0 finished units lost, 0 rows doubled; rows that "
            f"differ from an uninterrupted run's: {found or 0}"
        )
    assert not found


def test_a_second_writer_is_refused_and_the_first_goes_on(
    runner: Runner, whole: tuple[Path, float], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = runner.start(tmp_path / "first", out=str(run), **JOB)
    _wait_for_work(tmp_path / "first")
    second = runner.start(tmp_path / "second", out=str(run), **JOB)
    assert runner.wait(second) == 2
    assert f"is being written by pid {first}" in str(Log.read(tmp_path / "second").error)
    assert runner.wait(first) == 0
    assert not differing(table(whole[0]), table(run))


@pytest.mark.skipif(not FULL, reason="a measurement, not a test: make faults")
def test_how_often_bfloat16_answers_depend_on_the_packing(
    runner: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.whole(tmp_path / "a.log", out=str(tmp_path / "a"), **SIZE, batch_size="auto", dtype="bfloat16")
    pid = runner.start(tmp_path / "b.log", out=str(tmp_path / "b"), **JOB, dtype="bfloat16")
    _wait_for_work(tmp_path / "b.log")
    time.sleep(1)
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
