"""Records on disk: the contract between the half that produces and the half that reads."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thoughtgraft.records.export import export_records, load_records
    from thoughtgraft.records.features import Features, load_features
    from thoughtgraft.records.folder import check_folder, prove_writable
    from thoughtgraft.records.schema import RECORD_SCHEMA, SCHEMA_VERSION, arm_key, rows_to_table
    from thoughtgraft.records.spec import RunSpec
    from thoughtgraft.records.status import Status, read_status
    from thoughtgraft.records.store import RunStore

# Loaded when first asked for: `status` must not pay for importing what it does not use.
_HOMES = {
    "Features": "features",
    "RECORD_SCHEMA": "schema",
    "SCHEMA_VERSION": "schema",
    "RunSpec": "spec",
    "RunStore": "store",
    "Status": "status",
    "arm_key": "schema",
    "check_folder": "folder",
    "export_records": "export",
    "load_features": "features",
    "load_records": "export",
    "prove_writable": "folder",
    "read_status": "status",
    "rows_to_table": "schema",
}

__all__ = [
    "RECORD_SCHEMA",
    "SCHEMA_VERSION",
    "Features",
    "RunSpec",
    "RunStore",
    "Status",
    "arm_key",
    "check_folder",
    "export_records",
    "load_features",
    "load_records",
    "prove_writable",
    "read_status",
    "rows_to_table",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
