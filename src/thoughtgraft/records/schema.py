"""What a record looks like on disk: its columns, how rows are put into them, and the arm that a row is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import pyarrow as pa

from thoughtgraft.edits.site import Kind, Site, after_layer, slots_label
from thoughtgraft.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 3
VERSION_KEY = b"thoughtgraft.schema_version"

RECORD_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("unit", pa.string()),
        ("cell", pa.string()),
        ("arm", pa.string()),
        ("method", pa.string()),
        ("slots", pa.list_(pa.int32())),
        # Where an edit acts: "fed", the vectors that the slots are fed, or "resid", the residual stream after block
        # `site_layer`. Null where nothing is edited.
        ("site_kind", pa.string()),
        ("site_layer", pa.int32()),
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


ARM_COLUMNS = ("method", "slots", "site_kind", "site_layer", "downstream", "donor_stratum")
"""The columns that say which arm a row is of."""


@dataclass(frozen=True)
class ArmKey:
    """What tells the arms of a run apart, from the typed columns of records and tables; sortable.

    Attributes:
        method: The edit's name.
        site: Where it acts; None where nothing is edited.
        after: What the unedited slots after the edit receive; "" where nothing is edited.
        donors: How donors were drawn; "" without donors.
    """

    method: str
    site: Site | None = None
    after: str = ""
    donors: str = ""

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Self:
        """From the columns of `columns` in a record, a row of a table or JSON; an absent column counts as null."""
        found = {name: None if _null(row.get(name)) else row.get(name) for name in ARM_COLUMNS}
        slots, layer, site = found["slots"], found["site_layer"], None
        if slots is not None and len(slots):
            layer = None if layer is None else int(float(layer))
            site = Site(found["site_kind"] or "fed", tuple(int(k) for k in slots), layer)
        after = str(found["downstream"] or "") if site else ""
        return cls(str(found["method"]), site, after, str(found["donor_stratum"] or ""))

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> list[Self]:
        """The arm of each row."""
        return [cls.of_row({str(name): value for name, value in row.items()}) for row in table.to_dict("records")]

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of `ARM_COLUMNS`, as records have them: None for what the arm does not have."""
        kind, layer = (self.site.kind, self.site.layer) if self.site else (None, None)
        values = (self.method, self.slots, kind, layer, self.after or None, self.donors or None)
        return dict(zip(ARM_COLUMNS, values, strict=True))

    @property
    def slots(self) -> tuple[int, ...]:
        """The edited slots, 0-based and ascending; none where nothing is edited."""
        return self.site.slots if self.site else ()

    @property
    def family(self) -> Family:
        """The arms that one multiplicity correction covers: they differ in their slots only."""
        kind, layer = (self.site.kind, self.site.layer) if self.site else ("fed", None)
        return Family(self.method, kind, layer, self.after, self.donors)

    @property
    def main(self) -> bool:
        """Whether later thoughts are recomputed, and donors, if there are any, drawn at random or the host itself."""
        return self.after in ("", "recompute") and self.donors in ("", "random", "self")

    def span(self, n_slots: int) -> Literal["none", "one", "all", "some"]:
        """How many of `n_slots` slots are edited; where there is one slot, "one"."""
        if len(self.slots) < 2:
            return "one" if self.slots else "none"
        return "all" if len(self.slots) == n_slots else "some"

    def place(self, n_slots: int | None = None) -> str:
        """The site in words, `-` for none; see `Site.label`."""
        return self.site.label(n_slots) if self.site else slots_label(())

    def label(self, n_slots: int | None = None) -> str:
        """The arm in words: `swap CT3`, `swap CT3 freeze_kv (same operation)`, `baseline`."""
        parts = [self.method, *([self.place(n_slots)] if self.site else [])]
        parts += [] if self.after in ("", "recompute") else [self.after]
        drawn = {"": [], "random": [], "self": ["(its own donor)"]}.get(self.donors, [f"(same {self.donors})"])
        return " ".join([*parts, *drawn])

    def __lt__(self, other: ArmKey) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[Any, ...]:
        """By family, then single slots before several."""
        method, kind, layer, after, donors = self.family
        return method, kind, -1 if layer is None else layer, after, donors, len(self.slots), self.slots


class Family(NamedTuple):
    """Arms that differ in their slots only; its parts are those of `ArmKey` and `Site`."""

    method: str
    kind: Kind = "fed"
    layer: int | None = None
    after: str = "recompute"
    donors: str = ""

    def at(self, slots: Iterable[int]) -> ArmKey:
        """Its arm at these slots."""
        slots = tuple(slots)
        return ArmKey(self.method, Site(self.kind, slots, self.layer) if slots else None, self.after, self.donors)

    @property
    def name(self) -> str:
        """The edit, and where it acts if not on what slots are fed: `swap`, `zero after L2`."""
        return self.method if self.layer is None else f"{self.method} {after_layer(self.layer)}"

    @property
    def seeds(self) -> tuple[str, str, str]:
        """The texts that resamplings of the family are seeded with; numbers in print hang on them."""
        return self.name, self.after, self.donors


def _null(value: Any) -> bool:
    """Whether a value stands for nothing: None, NaN or pandas' NA."""
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value)
