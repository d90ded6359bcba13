"""Whatever the disk does in the middle of a run, the same command goes on from there and ends with the same table.

What the store does by itself with such a disk is tested in `tests/records`.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from tests.faults.conftest import SmallRun
from tests.faults.runner import same_bits

from thoughtgraft import files as atomic_module
from thoughtgraft.errors import RunError
from thoughtgraft.records.export import load_records
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore


def _fills_up(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let so many files be written, then none."""
    sync, count = os.fsync, [0]

    def fsync(handle: int) -> None:
        count[0] += stat.S_ISREG(os.fstat(handle).st_mode)
        if count[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(atomic_module.os, "fsync", fsync)


@pytest.mark.parametrize("after", [0, 2, 4, 7])
def test_a_disk_that_fills_up_at_any_file(
    tmp_path: Path, small_run: SmallRun, unharmed: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with monkeypatch.context() as patch:
        _fills_up(patch, after)
        with pytest.raises(RunError, match=r"No space left on device.* Fix: free some disk space.*the same command"):
            small_run(tmp_path / "run")
    leftovers = [path.name for path in (tmp_path / "run").rglob("*") if ".tmp" in path.name]
    assert not leftovers, "what was half written takes no space"
    same_bits(unharmed, small_run(tmp_path / "run"))


def test_the_same_packing_gives_the_same_bits(tmp_path: Path, small_run: SmallRun, unharmed: pd.DataFrame) -> None:
    same_bits(unharmed, small_run(tmp_path))


def _interrupted(folder: Path, small_run: SmallRun) -> set[str]:
    """A run that ended after three packs; its units."""
    asked = iter([False] * 4)  # Once before the clean thoughts.
    with pytest.raises(KeyboardInterrupt):
        small_run(folder, stop=lambda: next(asked, True))
    return RunStore.open(folder).stored_units()


def test_a_run_that_is_asked_to_stop_stores_what_it_began(
    tmp_path: Path, small_run: SmallRun, unharmed: pd.DataFrame
) -> None:
    seen: list[int] = []

    def stop() -> bool:
        status = read_status(tmp_path)
        seen.append(status.done)
        assert status.certificate == ("none" if len(seen) == 1 else "passed"), "it is there before the first cell"
        return len(seen) > 4

    with pytest.raises(KeyboardInterrupt):
        small_run(tmp_path, certificate={"passed": True}, stop=stop)
    # Asked before the clean thoughts, then before each pack, when all earlier ones are stored.
    assert seen[:2] == [0, 0] and seen[1] < seen[2] < seen[3] < seen[4] < len(unharmed)
    status = read_status(tmp_path)
    assert (status.state, status.done) == ("stopped", seen[-1])
    same_bits(unharmed, small_run(tmp_path))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_shard_is_run_again(
    tmp_path: Path, small_run: SmallRun, unharmed: pd.DataFrame, keep: float
) -> None:
    units = _interrupted(tmp_path, small_run)
    shard = tmp_path / "records" / f"{min(units)}.parquet"
    data = shard.read_bytes()
    shard.write_bytes(data[: int(keep * len(data))])
    assert read_status(tmp_path).damaged_shards == 1
    with pytest.warns(UserWarning, match="does not parse.*its cells will be run again"):
        result = small_run(tmp_path)
    same_bits(unharmed, result)
    assert units <= RunStore.open(tmp_path).stored_units()


def test_a_corrupted_run_json_stops_before_anything_is_touched(
    tmp_path: Path, small_run: SmallRun, unharmed: pd.DataFrame
) -> None:
    _interrupted(tmp_path, small_run)
    spec = tmp_path / "run.json"
    text = spec.read_text()
    files = {path: path.read_bytes() for path in (tmp_path / "records").iterdir()}
    spec.write_text(text[: len(text) // 2])
    for use in (small_run, read_status, load_records):
        with pytest.raises(RunError, match=r"run\.json is damaged.*Fix: restore it from a copy"):
            use(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "records").iterdir()} == files
    spec.write_text(text)
    same_bits(unharmed, small_run(tmp_path))


def test_damaged_thoughts_are_named(tmp_path: Path, small_run: SmallRun, unharmed: pd.DataFrame) -> None:
    _interrupted(tmp_path, small_run)
    (tmp_path / "thoughts.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"thoughts\.safetensors is not a readable.*Fix: delete it and run again"):
        small_run(tmp_path)
    (tmp_path / "thoughts.safetensors").unlink()
    same_bits(unharmed, small_run(tmp_path))


@contextmanager
def _nobody() -> Iterator[None]:
    """Root may write anywhere: be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_can_be_read_and_not_continued(small_run: SmallRun, unharmed: pd.DataFrame) -> None:
    # Not pytest's folder, which nobody else may enter.
    folder = Path(tempfile.mkdtemp())
    run = folder / "run"
    try:
        small_run(run)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with _nobody():
            assert read_status(run).state == "finished"
            assert len(load_records(run)) == len(unharmed)
            with pytest.raises(RunError, match=r"cannot be written; got Permission denied\. Fix: choose a folder"):
                small_run(run)
            with pytest.raises(RunError, match=r"cannot be written; got Permission denied\. Fix: choose a folder"):
                small_run(folder / "new")
    finally:
        for path in (folder, run):
            path.chmod(0o755)
        shutil.rmtree(folder)
