"""Whether a folder can be a run's."""

from __future__ import annotations

from pathlib import Path

from thoughtgraft.errors import RunError
from thoughtgraft.records.atomic import make_folder
from thoughtgraft.records.layout import HEARTBEAT_FILE, LOCK_FILE, RECORDS_FOLDER, SPEC_FILE, THOUGHTS_FILE

_BEFORE_SPEC = (LOCK_FILE, HEARTBEAT_FILE, THOUGHTS_FILE)
"""What a start that was broken off early leaves behind."""
_LOGS = (".log", ".out", ".err")
"""What a shell or a scheduler writes of the very command that starts the run."""
_NAMED = 4


def check_folder(path: str | Path) -> None:
    """Refuse a place where no run can start or be continued, before anything is computed for it.

    Raises:
        RunError: It is a file, or a folder with other things in it and no run; files of theirs could be overwritten.
    """
    path = Path(path)
    if not path.exists() or (path / SPEC_FILE).exists():
        return
    make_folder(path)
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
