"""`run.json` as it lies on disk, read without the validating model, which takes longer to import than `status` may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thoughtgraft.errors import RunError
from thoughtgraft.records.jsonfile import DAMAGE_FIX, read_json
from thoughtgraft.records.layout import SPEC_FILE
from thoughtgraft.records.migrations import SPEC_MIGRATIONS, migrate


def read_spec_file(path: Path) -> dict[str, Any]:
    """The fields of a run folder's `run.json`, in the present version, not yet validated.

    Raises:
        RunError: The folder is not a run's, or the file is damaged or of a newer version.
    """
    file = path / SPEC_FILE
    if not file.is_file():
        expected = f"a folder with {SPEC_FILE}" if path.exists() else "an existing folder"
        raise RunError(f"{path} is not a run", expected=expected, fix="give the folder that was given to --out")
    raw = read_json(file)
    if not isinstance(raw, dict) or not isinstance(raw.get("schema_version"), int):
        raise RunError(f"{file} is damaged", got="no schema_version", fix=DAMAGE_FIX)
    return migrate(raw, raw["schema_version"], SPEC_MIGRATIONS, str(file))
