"""Whether a folder can be written, and whether it can be a run's."""

from __future__ import annotations

import os
from pathlib import Path

from thoughtgraft.arguments import path_of
from thoughtgraft.errors import RunError
from thoughtgraft.records.atomic import TMP_PREFIX, io_error
from thoughtgraft.records.layout import HEARTBEAT_FILE, LOCK_FILE, RECORDS_FOLDER, SPEC_FILE, THOUGHTS_FILE

_BEFORE_SPEC = (LOCK_FILE, HEARTBEAT_FILE, THOUGHTS_FILE)
"""What a start that was broken off early leaves behind."""
_LOGS = (".log", ".out", ".err")
"""What a shell or a scheduler writes of the very command that starts the run."""
_NAMED = 4


def prove_writable(path: Path) -> None:
    """Refuse a folder that could not be made or written into, before anything is computed for it.

    Proved by writing, since permissions alone do not say it: into the folder, or into the nearest of its parents that
    exists. Nothing is left behind, and nothing is made.

    Raises:
        RunError: A file is in its place, or the system refuses.
    """
    import tempfile

    folder = path.absolute()
    try:
        while not _is_there(folder):
            folder = folder.parent
        if not folder.is_dir():
            raise RunError(f"{folder} is a file", expected="a folder", fix="choose another folder with --out")
        with tempfile.TemporaryFile(dir=folder, prefix=TMP_PREFIX):
            pass
    except OSError as error:
        raise io_error(f"the folder {path} cannot be written", error) from error


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_folder(path: str | Path) -> None:
    """Refuse a place where no run can start or be continued, before anything is computed for it.

    Raises:
        RunError: It is a file, cannot be written, or is a folder with other things in it and no run; files of theirs
            could be overwritten.
    """
    path = path_of(path, "the run's folder")
    prove_writable(path)
    if not path.exists() or (path / SPEC_FILE).exists():
        return
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
