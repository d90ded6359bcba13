"""Records for other tools: a pandas frame, or a CSV, JSON-lines or parquet file with a dataset card."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from thoughtgraft.arguments import answers_for_calls, choice, path_of
from thoughtgraft.errors import RunError
from thoughtgraft.records.atomic import make_folder, write_atomic
from thoughtgraft.records.card import CARD_MARK, dataset_card
from thoughtgraft.records.frames import list_text
from thoughtgraft.records.layout import RECORDS_FOLDER
from thoughtgraft.records.shardfile import write_parquet
from thoughtgraft.records.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

ExportFormat = Literal["csv", "parquet", "jsonl"]
_ROWS_AT_ONCE = 4_096


@answers_for_calls(RunError)
def load_records(path: str | Path, where: str | None = None) -> pd.DataFrame:
    """All records of a run, one row per generation.

    Args:
        path: The run folder; it may be running.
        where: Keep only the rows for which this holds (see `filters`).

    Returns:
        Column types as `table_to_frame` says: undefined is `<NA>` or NaN, `slots` are tuples.

    Raises:
        RunError: The folder is not a run's, a shard is damaged, or the condition does not parse.
    """
    return RunStore.open(path).frame(where=where)


def export_records(
    path: str | Path, out: str | Path, format: ExportFormat = "csv", where: str | None = None
) -> list[Path]:
    """Write a run's records to one file, atomically.

    Lists are JSON text in CSV (`[0,3]`) and lists elsewhere; undefined is an empty field in CSV, null elsewhere.

    Args:
        path: The run folder.
        out: The file to write; an earlier export there is replaced.
        format: `csv`, `parquet` or `jsonl`. Beside a parquet file a dataset card is written: `README.md`, or
            `NAME.README.md` where somebody else's README.md is already there.
        where: Keep only the rows for which this holds (see `filters`).

    Returns:
        The files written.

    Raises:
        RunError: The run cannot be read, the format is unknown, or the file cannot be written.
    """
    out = path_of(out, "the file to write")
    choice(format, "export format", ("csv", "parquet", "jsonl"), RunError)
    if out.is_dir():
        raise RunError(f"{out} is a folder", expected="a file to write", fix=f"for example {out / f'records.{format}'}")
    store = RunStore.open(path)
    if out.resolve().parent == (store.path / RECORDS_FOLDER).resolve():
        raise RunError(f"{out} lies among the run's own shards", fix="write the export elsewhere")
    table = store.table(where=where)
    make_folder(out.parent)
    if format == "csv":
        write_atomic(out, _csv(table))
    elif format == "jsonl":
        write_atomic(out, _jsonl(table))
    else:
        write_parquet(out, table)
        card = out.parent / "README.md"
        if card.exists() and CARD_MARK not in card.read_text(encoding="utf-8", errors="replace"):
            card = out.parent / f"{out.stem}.README.md"
        write_atomic(card, dataset_card(store.spec, out.name, table.num_rows, where).encode())
        return [out, card]
    return [out]


def _csv(table: pa.Table) -> memoryview:
    import pyarrow.csv as pacsv

    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = pa.chunked_array(_bracketed(table[field.name]), type=pa.string())
            table = table.set_column(index, field.name, texts)
    buffer = pa.BufferOutputStream()
    pacsv.write_csv(table, buffer)
    return memoryview(buffer.getvalue())


def _bracketed(column: pa.ChunkedArray) -> list[pa.Array]:
    import pyarrow.compute as pc

    return [pc.binary_join_element_wise("[", chunk, "]", "") for chunk in list_text(column).chunks]


def _jsonl(table: pa.Table) -> memoryview:
    lines = io.BytesIO()
    # As Python objects rows take many times their space on disk: a few at a time.
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            lines.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return lines.getbuffer()
