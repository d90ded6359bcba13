"""The path from older files to the present schema: one function per version, applied in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pyarrow as pa

from thoughtgraft.errors import RunError
from thoughtgraft.records.schema import SCHEMA_VERSION, VERSION_KEY

Stored = TypeVar("Stored")


def _table_from_1(table: pa.Table) -> pa.Table:
    """Records did not say under which edit of the loaded model they were made; nobody could name one."""
    return table.append_column("model_edit", pa.nulls(table.num_rows, pa.string()))


def _spec_from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """`run.json` did not say the model's parts, the answer limit or the task: they stay unknown."""
    return raw | {"schema_version": 2}


# version -> what turns a table (or a run.json dict) of that version into one of the next version.
TABLE_MIGRATIONS: dict[int, Callable[[pa.Table], pa.Table]] = {1: _table_from_1}
SPEC_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _spec_from_1}


def table_version(metadata: Mapping[bytes, bytes] | None) -> int | None:
    """The schema version that a shard's metadata names; None where it names none."""
    text = (metadata or {}).get(VERSION_KEY, b"").decode()
    return int(text) if text.isdigit() else None


def migrate(stored: Stored, version: int, steps: Mapping[int, Callable[[Stored], Stored]], where: str) -> Stored:
    """`stored`, written at `version`, as the present version has it.

    Args:
        stored: A table or a `run.json` dict.
        version: The version it was written at.
        steps: `TABLE_MIGRATIONS` or `SPEC_MIGRATIONS`.
        where: The file, for messages.

    Raises:
        RunError: The version is newer than this program knows, or no path leads from it.
    """
    if version > SCHEMA_VERSION:
        raise RunError(
            f"{where} was written by a newer thoughtgraft",
            got=f"schema version {version}",
            expected=f"at most {SCHEMA_VERSION}",
            fix="pip install --upgrade thoughtgraft",
        )
    for step in range(version, SCHEMA_VERSION):
        if step not in steps:
            raise RunError(f"{where} has schema version {version}, from which no path leads to {SCHEMA_VERSION}")
        stored = steps[step](stored)
    return stored
