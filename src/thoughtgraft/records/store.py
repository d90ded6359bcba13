"""A run folder: created, continued or opened; units go in whole, tables come out."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from thoughtgraft.arguments import items, path_of
from thoughtgraft.errors import RunError
from thoughtgraft.files import TMP_PREFIX, io_error, make_folder, read_json, sweep, to_json, write_atomic
from thoughtgraft.records.alive import HeartbeatWriter, RunLock
from thoughtgraft.records.schema import RECORD_SCHEMA
from thoughtgraft.records.shards import ShardFolder, table_to_frame, write_parquet
from thoughtgraft.records.spec import (
    FEATURES_FOLDER,
    HEARTBEAT_FILE,
    LOCK_FILE,
    QUARANTINE_FOLDER,
    RECORDS_FOLDER,
    SPEC_FILE,
    STARTS_FILE,
    THOUGHTS_FILE,
    Meter,
    RunSpec,
    read_spec,
    refuse_another_run,
    utc_now,
)

if TYPE_CHECKING:
    import pandas as pd


class RunStore:
    """One run folder. Make it with `create` (to write) or `open` (to read); use it in a `with` to give the lock back.

    Attributes:
        path: The folder.
        spec: What `run.json` says. On continuing, the first start's, which is never rewritten.
    """

    def __init__(self, path: Path, spec: RunSpec, lock: RunLock | None = None) -> None:
        self.path, self.spec, self._lock = path, spec, lock
        self._shards = ShardFolder(path / RECORDS_FOLDER, path / QUARANTINE_FOLDER)
        self._heart = HeartbeatWriter(path)
        self._meter = Meter()
        # A store that is dropped without `close` must not keep the run locked.
        self._unlock = weakref.finalize(self, lock.release) if lock else None

    @classmethod
    def create(cls, path: str | Path, spec: RunSpec) -> Self:
        """Start a run in a new folder, or continue the same run in an existing one.

        Raises:
            RunError: The folder holds another run (each difference is listed) or things that are no run, is being
                written by another process, cannot be written, or its `run.json` is damaged.
        """
        path = path_of(path, "the run's folder")
        check_folder(path)
        make_folder(path)
        lock = RunLock(path)
        try:
            if (path / SPEC_FILE).exists():
                stored = read_spec(path)
                refuse_another_run(path, stored, spec)
            else:
                stored = spec
                write_atomic(path / SPEC_FILE, to_json(spec, SPEC_FILE))
            store = cls(path, stored, lock)
            for folder in (path, path / "analysis", path / "figures"):
                sweep(folder)
            store._shards.recover()
            store._note_start(spec)
            store.heartbeat(0, stored.n_cells, "starting")
        except BaseException:
            lock.release()
            raise
        return store

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing run for reading; it may be running meanwhile.

        Raises:
            RunError: The folder is not a run's, or its `run.json` is damaged.
        """
        folder = path_of(path, "the run's folder")
        return cls(folder, read_spec(folder))

    # ---- records --------------------------------------------------------------------------------------------------

    def stored_units(self) -> set[str]:
        """The units that are finished and safe."""
        return self._shards.units()

    def require_records(self) -> None:
        """Raise a RunError if this run keeps what layers held, and no generations."""
        if (self.path / FEATURES_FOLDER).is_dir() and not (self.path / RECORDS_FOLDER).is_dir():
            raise RunError(
                f"{self.path} is an {self.spec.study} run: it keeps what layers held, not generations",
                fix=f"thoughtgraft.load_states({str(self.path)!r}) in Python; its tables lie in analysis/ as parquet",
            )

    def stored_cells(self) -> set[tuple[str, str | None]]:
        """The cells that are finished and safe, failed ones included, each as (cell, donor_stratum).

        A generation that serves two strata of donors stands in the records once for each.
        """
        table = self.table(["cell", "donor_stratum"])
        return set(zip(table["cell"].to_pylist(), table["donor_stratum"].to_pylist(), strict=True))

    def write_unit(self, unit: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store a finished unit, whole or not at all; one that is stored already is left as it is.

        Args:
            unit: Its stable name (letters, digits and `_.=-`).
            rows: One mapping per cell, keyed by the columns of `RECORD_SCHEMA`; absent columns are null.

        Raises:
            RunError: The store is open for reading only, the rows do not fit, or the disk is full or broken.
        """
        self._need_lock()
        self._shards.write(unit, rows)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The records so far.

        Args:
            columns: Those wanted, in this order; None for all.

        Raises:
            RunError: A column does not exist, or a shard is damaged.
        """
        expected = "a list of names of columns"
        wanted = RECORD_SCHEMA.names if columns is None else items(columns, "columns", RunError, expected=expected)
        if unknown := [name for name in wanted if name not in RECORD_SCHEMA.names]:
            raise RunError(
                "records have no such column", got=", ".join(map(str, unknown)), expected=", ".join(RECORD_SCHEMA.names)
            )
        read = list(dict.fromkeys(wanted))
        empty = pa.schema([RECORD_SCHEMA.field(name) for name in read], RECORD_SCHEMA.metadata).empty_table()
        return pa.concat_tables([empty, *self._shards.tables(read)]).select(wanted)

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """`table` as a pandas frame (column types: see `table_to_frame`)."""
        return table_to_frame(self.table(columns))

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The failed cells: `cell`, `arm`, `problem_id`, `donor_id`, `error`."""
        table = self.table(["cell", "arm", "problem_id", "donor_id", "error"])
        return [dict(row) for row in table.filter(table["error"].is_valid()).to_pylist()]

    # ---- other files of the run -----------------------------------------------------------------------------------

    def write_json(self, name: str, obj: Any) -> None:
        """Write a JSON file of the run atomically, for example `certificate.json` or `analysis/decision.json`.

        Raises:
            RunError: `obj` holds something that JSON has no word for (NaN among it), or the disk refuses.
        """
        write_atomic(self._file(name), to_json(obj, name))

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run.

        Raises:
            RunError: It is missing or damaged.
        """
        return read_json(self.path / name)

    def write_table(self, name: str, table: pa.Table | pd.DataFrame) -> None:
        """Write a parquet file of the run atomically, for example `problems.parquet`.

        Raises:
            RunError: The disk refuses, or the frame holds columns that parquet cannot.
        """
        if not isinstance(table, pa.Table):
            try:
                table = pa.Table.from_pandas(table)
            except pa.ArrowException as error:
                raise RunError(f"{name} cannot be written as parquet", got=str(error)) from error
        write_parquet(self._file(name), table)

    def heartbeat(self, done: int, total: int, phase: str) -> None:
        """Say how far the run is; cheap to call often (written at most once a second).

        Args:
            done: Items finished, counting those of earlier starts.
            total: Items of this phase.
            phase: What is being done, for people.
        """
        self._need_lock()
        self._heart.beat(done, total, phase)

    # ---- end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Note this start's wall time, CPU time and peak memory, and let others write. Safe to call twice."""
        if self._unlock is None or not self._unlock.alive:
            return
        self._heart.end()
        try:
            if starts := self._starts():
                starts[-1]["finish"] = self._meter.finish()
                self.write_json(STARTS_FILE, starts)
        except RunError:
            pass  # On a full disk the facts are lost; the error that matters was raised by a shard.
        finally:
            self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note_start(self, spec: RunSpec) -> None:
        """Every start's circumstances are kept: a run may be continued on another machine or by newer packages."""
        starts = self._starts()
        circumstances = {"device": spec.device, "versions": spec.versions, "provenance": spec.provenance}
        units = len(self._shards.units())
        starts.append({"started_utc": utc_now(), **circumstances, "units_before": units, "finish": None})
        self.write_json(STARTS_FILE, starts)

    def _starts(self) -> list[dict[str, Any]]:
        """The starts so far; none where the file is missing or damaged."""
        try:
            starts = self.read_json(STARTS_FILE)
        except RunError:
            return []
        return starts if isinstance(starts, list) and all(isinstance(start, dict) for start in starts) else []

    def _need_lock(self) -> None:
        if self._unlock is None or not self._unlock.alive:
            raise RunError(f"{self.path} is open for reading only", fix="use RunStore.create(path, spec) to write")

    def _file(self, name: str) -> Path:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or parts[0] in (SPEC_FILE, RECORDS_FOLDER):
            raise RunError("this name is not free for a run's file", got=repr(name), expected="such as analysis/x.json")
        make_folder((self.path / name).parent)
        return self.path / name


_BEFORE_SPEC = (LOCK_FILE, HEARTBEAT_FILE, THOUGHTS_FILE)
"""What a start that was broken off early leaves behind."""
_LOGS = (".log", ".out", ".err")
"""What a shell or a scheduler writes of the very command that starts the run."""
_NAMED = 4


def prove_writable(path: Path) -> None:
    """Refuse a folder that could not be made or written into, before anything is computed for it.

    Proved by writing, since permissions alone do not say it: into the folder, or into the nearest of its parents that
    exists. Nothing is left behind, and nothing is made.

    Raises:
        RunError: A file is in its place, or the system refuses.
    """
    import tempfile

    folder = path.absolute()
    try:
        while not _is_there(folder):
            folder = folder.parent
        if not folder.is_dir():
            raise RunError(f"{folder} is a file", expected="a folder", fix="choose another folder with --out")
        with tempfile.TemporaryFile(dir=folder, prefix=TMP_PREFIX):
            pass
    except OSError as error:
        raise io_error(f"the folder {path} cannot be written", error) from error


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_folder(path: str | Path) -> None:
    """Refuse a place where no run can start or be continued, before anything is computed for it.

    Raises:
        RunError: It is a file, cannot be written, or is a folder with other things in it and no run; files of theirs
            could be overwritten.
    """
    path = path_of(path, "the run's folder")
    prove_writable(path)
    if not path.exists() or (path / SPEC_FILE).exists():
        return
    if any(path.glob(f"{RECORDS_FOLDER}/*.parquet")):
        raise RunError(f"{path} holds records but no {SPEC_FILE}", fix="restore it, or use --out another folder")
    names = sorted(entry.name for entry in path.iterdir())
    names = [name for name in names if not name.startswith(".") and Path(name).suffix not in _LOGS]
    if foreign := [name for name in names if name not in _BEFORE_SPEC]:
        more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        raise RunError(
            f"{path} holds other things and no run",
            got=", ".join(foreign[:_NAMED]) + more,
            expected="a new or empty folder, or a run to continue",
            fix="use --out another folder",
        )
