"""What a record looks like on disk: its columns, and how rows are put into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from thoughtgraft.errors import RunError

SCHEMA_VERSION = 2
VERSION_KEY = b"thoughtgraft.schema_version"

RECORD_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("unit", pa.string()),
        ("cell", pa.string()),
        ("arm", pa.string()),
        ("method", pa.string()),
        ("slots", pa.list_(pa.int32())),
        ("downstream", pa.string()),
        ("protocol", pa.string()),
        ("num_latents", pa.int32()),
        # What the user called the hooks or edits that the loaded model carried; null = it was as it was loaded.
        ("model_edit", pa.string()),
        ("problem_id", pa.string()),
        ("split", pa.string()),
        ("n_steps", pa.int32()),
        ("operation", pa.string()),
        # Answers are exact numbers in canonical text ("42", "1/3"); null = nothing parsed.
        ("gold", pa.string()),
        ("base_pred", pa.string()),
        ("base_correct", pa.bool_()),
        ("donor_id", pa.string()),
        ("donor_stratum", pa.string()),
        ("donor_pred", pa.string()),
        ("donor_correct", pa.bool_()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("stop_reason", pa.string()),
        ("n_tokens", pa.int32()),
        ("pred", pa.string()),
        ("valid", pa.bool_()),
        ("correct", pa.bool_()),
        ("changed", pa.bool_()),
        ("adopted", pa.bool_()),
        # Natural-log probabilities and nats; null = undefined for this cell.
        ("logp_gold", pa.float64()),
        ("dlogp_gold", pa.float64()),
        ("logp_donor", pa.float64()),
        ("kl", pa.float64()),
        ("fed_norm", pa.float64()),
        ("donor_cos", pa.float64()),
        ("pad", pa.int32()),
        ("seed", pa.int64()),
        ("error", pa.string()),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)

REQUIRED_COLUMNS = ("cell", "arm", "method", "slots", "problem_id")


def rows_to_table(rows: Sequence[Mapping[str, Any]], unit: str | None = None) -> pa.Table:
    """Rows as a table of the record schema; absent columns become null.

    Args:
        rows: One mapping per cell, keyed by column name.
        unit: Put in every row's `unit` column, if given.

    Raises:
        RunError: A row has an unknown column, lacks a required one, or holds a value of the wrong type.
    """
    known = set(RECORD_SCHEMA.names)
    for row in rows:
        if unknown := sorted(set(row) - known):
            raise RunError(
                "a record has columns that the schema lacks", got=", ".join(unknown), expected="RECORD_SCHEMA's"
            )
        if missing := [name for name in REQUIRED_COLUMNS if row.get(name) is None]:
            raise RunError("a record lacks columns that every record needs", got=f"null in {', '.join(missing)}")
    columns = {name: [row.get(name) for row in rows] for name in RECORD_SCHEMA.names}
    if unit is not None:
        columns["unit"] = [unit] * len(rows)
    arrays = []
    for field in RECORD_SCHEMA:
        try:
            arrays.append(pa.array(columns[field.name], type=field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError) as error:
            raise RunError(
                f"record column {field.name!r} holds a wrong value", got=str(error), expected=str(field.type)
            ) from error
    return pa.Table.from_arrays(arrays, schema=RECORD_SCHEMA)


def arm_key(method: str, slots: Sequence[int], downstream: str | None, donor_stratum: str | None) -> str:
    """The name under which `plan["cells_per_arm"]` and `status` count: `method|slots|downstream|stratum`.

    Slots are joined with commas; nothing stands for none: `swap|3|recompute|random`, `baseline|||`.
    """
    return "|".join([method, ",".join(str(k) for k in slots), downstream or "", donor_stratum or ""])
