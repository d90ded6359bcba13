"""Record tables as pandas frames, with column types that do not depend on what the rows happen to hold."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from thoughtgraft.errors import RunError, first_line

AGAIN_FIX = "run the command that made this run again; it adds what is missing"

if TYPE_CHECKING:
    import pandas as pd


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
