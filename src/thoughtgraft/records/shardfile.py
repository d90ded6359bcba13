"""One parquet file of records: written whole with checksums, read back in the present schema or named as damaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thoughtgraft.records.atomic import io_error, write_atomic
from thoughtgraft.records.migrations import TABLE_MIGRATIONS, migrate, table_version
from thoughtgraft.records.schema import RECORD_SCHEMA, SCHEMA_VERSION


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
