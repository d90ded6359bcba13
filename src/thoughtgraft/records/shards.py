"""Write-once shards of records: written whole or not at all, read as tables, damaged ones set aside."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import RunError, first_line
from thoughtgraft.files import io_error, make_folder, sweep, sync_folder, write_atomic
from thoughtgraft.records.schema import RECORD_SCHEMA, SCHEMA_VERSION, rows_to_table
from thoughtgraft.records.spec import TABLE_MIGRATIONS, migrate, table_version

if TYPE_CHECKING:
    import pandas as pd

MERGE_UNITS = 64
MERGED_PREFIX = "merged-"
UNITS_KEY = b"thoughtgraft.units"
_UNIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,150}")
_LISTING_TRIES = 50


class ShardFolder:
    """Reads, and for the holder of the run's lock writes, the shards of one run.

    Args:
        folder: `RUN/records`.
        quarantine: Where damaged shards are moved.
    """

    def __init__(self, folder: Path, quarantine: Path) -> None:
        self.folder, self._quarantine = folder, quarantine
        self._merged_units: dict[str, frozenset[str]] = {}
        self._units: set[str] = set()
        self._loose: set[str] = set()
        self._writing = threading.Lock()

    # ---- for the writer -------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Make the folder ready for writing: leftovers swept, every shard read once, damaged ones quarantined.

        Raises:
            RunError: The folder cannot be written, or holds shards of a newer version.
        """
        make_folder(self.folder)
        sweep(self.folder, min_age_s=0.0)  # Only the lock's holder writes here: nothing here is at work.
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                read_shard(path, None)
            except DamagedShard as damage:
                self._set_aside(damage)
        merged, loose = self._listing()
        in_merged = frozenset().union(*(self._units_of(name) for name in merged))
        for unit in loose & in_merged:
            (self.folder / f"{unit}.parquet").unlink(missing_ok=True)
        self._loose = loose - in_merged
        self._units = self._loose | in_merged

    def write(self, unit: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store a finished unit; an existing one is left as it is.

        Raises:
            RunError: The rows do not fit the schema, or the disk is full or read-only. What is stored stays.
        """
        if not _UNIT_NAME.fullmatch(unit) or unit.startswith(MERGED_PREFIX):
            raise RunError("a unit's name cannot be a file name", got=repr(unit), expected="letters, digits and _.=-")
        with self._writing:
            if unit in self._units:
                return
            write_parquet(self.folder / f"{unit}.parquet", rows_to_table(rows, unit))
            self._units.add(unit)
            self._loose.add(unit)
            if len(self._loose) % MERGE_UNITS == 0:
                self._merge()

    def _merge(self) -> None:
        units = sorted(self._loose)
        name = MERGED_PREFIX + hashlib.sha256("\n".join(units).encode()).hexdigest()[:16]
        try:
            table = pa.concat_tables([read_shard(self.folder / f"{unit}.parquet", None) for unit in units])
            write_parquet(self.folder / f"{name}.parquet", table, {UNITS_KEY: json.dumps(units).encode()})
            for unit in units:
                (self.folder / f"{unit}.parquet").unlink(missing_ok=True)
            sync_folder(self.folder)
        except (RunError, DamagedShard, OSError) as error:
            # Merging only makes reading faster: every unit is stored already, so the run goes on and tries later.
            warnings.warn(f"shards were not merged, reading will be slower: {error}", stacklevel=3)
            return
        self._loose.clear()

    def _set_aside(self, damage: DamagedShard) -> None:
        make_folder(self._quarantine)
        target = self._quarantine / damage.path.name
        number = 1
        while target.exists():
            target, number = self._quarantine / f"{damage.path.stem}.{number}.parquet", number + 1
        try:
            damage.path.replace(target)
        except OSError as error:
            raise io_error(f"the damaged shard {damage.path} cannot be moved to {target}", error) from error
        warnings.warn(
            f"{damage.path} does not parse ({damage.reason}); moved to {target}, its cells will be run again",
            stacklevel=4,
        )

    # ---- for everybody --------------------------------------------------------------------------------------------

    def units(self) -> set[str]:
        """The stored units, as of now."""
        merged, loose = self._listing()
        return loose.union(*(self._units_of(name) for name in merged))

    def tables(
        self,
        columns: Sequence[str] | None,
        *,
        on_damage: Callable[[DamagedShard], None] | None = None,
    ) -> list[pa.Table]:
        """Every record once, one table per file, while others may be writing.

        Args:
            columns: Those to read; None for all.
            on_damage: Told of each damaged shard, which is then left out.

        Raises:
            RunError: A shard is damaged and `on_damage` is None, or is of a newer version.
        """
        for _ in range(_LISTING_TRIES):
            merged, loose = self._listing()
            try:
                in_merged = frozenset().union(*(self._units_of(name) for name in merged))
                names = [*sorted(merged), *sorted(loose - in_merged)]
                return self._read_all(names, columns, on_damage)
            except FileNotFoundError:
                continue  # Merged away since it was listed: look again.
        raise RunError(f"{self.folder} changes faster than it can be read", fix="try again in a moment")

    def _read_all(
        self,
        names: Sequence[str],
        columns: Sequence[str] | None,
        on_damage: Callable[[DamagedShard], None] | None,
    ) -> list[pa.Table]:
        def read(name: str) -> pa.Table | DamagedShard:
            try:
                return read_shard(self.folder / f"{name}.parquet", columns)
            except DamagedShard as damage:
                return damage

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            results = list(pool.map(read, names))
        tables = []
        for result in results:
            if not isinstance(result, DamagedShard):
                tables.append(result)
            elif on_damage is not None:
                on_damage(result)
            else:
                raise RunError(
                    f"{result.path} does not parse",
                    got=result.reason,
                    fix="run the same command again: the shard is set aside and its cells are run again",
                ) from result
        return tables

    def _listing(self) -> tuple[set[str], set[str]]:
        """Names of merged and of loose shards, such that no unit is missed while a writer merges.

        A listing that overlaps a merge may show neither the merged file nor the loose ones. Merged files are never
        removed, so a second listing shows it: only when both show the same merged files is the first complete.
        """
        first = self._names()
        while True:
            second = self._names()
            if second[0] == first[0]:
                return first
            first = second

    def _names(self) -> tuple[set[str], set[str]]:
        try:
            stems = [
                entry.name.removesuffix(".parquet")
                for entry in os.scandir(self.folder)
                if entry.name.endswith(".parquet") and not entry.name.startswith(".")
            ]
        except FileNotFoundError:
            return set(), set()
        except OSError as error:
            raise io_error(f"{self.folder} cannot be read", error) from error
        merged = {stem for stem in stems if stem.startswith(MERGED_PREFIX)}
        return merged, set(stems) - merged

    def _units_of(self, merged: str) -> frozenset[str]:
        if merged not in self._merged_units:
            try:
                metadata = pq.read_metadata(self.folder / f"{merged}.parquet").metadata or {}
                self._merged_units[merged] = frozenset(parse_json(metadata[UNITS_KEY]))
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError, KeyError, ValueError):
                return frozenset()  # Damaged; whoever reads its rows says so.
        return self._merged_units[merged]


class DamagedShard(Exception):
    """A shard that is there but does not parse, or fails its checksums."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def write_parquet(path: Path, table: pa.Table, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write a table atomically, with page checksums.

    Raises:
        RunError: The disk is full, read-only or broken.
    """
    if metadata:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    buffer = pa.BufferOutputStream()
    # Statistics of ~40 columns would make up most of a small shard, and nothing here reads them.
    pq.write_table(table, buffer, compression="zstd", write_statistics=False, write_page_checksum=True)
    write_atomic(path, memoryview(buffer.getvalue()))


def read_shard(path: Path, columns: Iterable[str] | None) -> pa.Table:
    """One shard in the present schema.

    Raises:
        DamagedShard: It does not parse or fails a checksum.
        FileNotFoundError: It is gone.
        RunError: It is of a newer version, or the system refuses to read it.
    """
    wanted = list(RECORD_SCHEMA.names if columns is None else columns)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            version = table_version(file.metadata.metadata)
            if version is None:
                raise DamagedShard(path, "it names no schema version")
            if version == SCHEMA_VERSION:
                table = file.read(wanted, use_threads=False)
            else:
                table = migrate(file.read(use_threads=False), version, TABLE_MIGRATIONS, str(path))
            return table.select(wanted).replace_schema_metadata(RECORD_SCHEMA.metadata)
    except FileNotFoundError:
        raise
    except pa.ArrowException as error:
        raise DamagedShard(path, _first_line(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise io_error(f"{path} cannot be read", error) from error
        raise DamagedShard(path, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


ANALYZE_FIX = "thoughtgraft analyze RUN makes it anew"
AGAIN_FIX = "run the command that made this run again; it adds what is missing"


def read_frame(file: Path, fix: str = f"delete it, then {AGAIN_FIX}") -> pd.DataFrame:
    """A parquet table of a run, other than its records.

    Args:
        file: The table.
        fix: What to do where it is damaged.

    Raises:
        RunError: It is missing or damaged.
    """
    import pandas as pd

    if not file.is_file():
        raise RunError(f"{file} is missing", expected="a run that got as far as that", fix=AGAIN_FIX)
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is damaged", got=first_line(error), fix=fix) from error


def read_effects(file: Path) -> pd.DataFrame:
    """A table of effects of an analysed run, its slots as tuples.

    Raises:
        RunError: It is missing, damaged, or of an earlier version, whose tables have slots as text.
    """
    import pandas as pd

    table = read_frame(file, fix=ANALYZE_FIX)
    if "label" not in table:
        raise RunError(f"{file} was made by an earlier version", got="slots as text", fix=ANALYZE_FIX)
    slots = [tuple(int(k) for k in slots) for slots in table["slots"]]
    return table.assign(slots=pd.Series(slots, index=table.index, dtype=object))


def table_to_frame(table: pa.Table) -> pd.DataFrame:
    """A table of records for analysis.

    Booleans are pandas `boolean` and integers `Int32`/`Int64`, so that undefined stays `<NA>`; undefined floats are
    NaN; `slots` are tuples, so that they can be grouped by; `token_ids` are numpy arrays.
    """
    import pandas as pd

    nullable = {pa.bool_(): pd.BooleanDtype(), pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    frame: pd.DataFrame = table.drop_columns([n for n in table.column_names if n == "slots"]).to_pandas(
        types_mapper=nullable.get
    )
    if "slots" in table.column_names:
        slots = pd.Series(_tuples(table["slots"]), index=frame.index, dtype=object)
        frame.insert(table.column_names.index("slots"), "slots", slots)
    return frame


def list_text(column: pa.ChunkedArray, separator: str = ",") -> pa.ChunkedArray:
    """Lists of integers as text: `[0, 3]` becomes `0,3`, and an empty list the empty text."""
    return pc.binary_join(column.cast(pa.list_(pa.string())), text_scalar(separator))


def text_scalar(text: str) -> pa.Scalar:
    """An arrow scalar made without `pa.scalar`, which imports pandas: longer than all of `status` may take."""
    data = text.encode()
    offsets = pa.py_buffer(struct.pack("=2i", 0, len(data)))
    return pa.StringArray.from_buffers(1, offsets, pa.py_buffer(data))[0]


def _tuples(column: pa.ChunkedArray) -> list[tuple[int, ...] | None]:
    # A run has few distinct slot lists: make each tuple once and share it.
    encoded = list_text(column).combine_chunks().dictionary_encode()
    made = [tuple(int(k) for k in text.split(",") if k) for text in encoded.dictionary.to_pylist()]
    return [None if i is None else made[i] for i in encoded.indices.to_pylist()]
