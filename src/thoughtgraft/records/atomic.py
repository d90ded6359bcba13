"""Files that exist whole or not at all: write beside, sync, rename, sync the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from pathlib import Path

from thoughtgraft.errors import RunError

TMP_PREFIX = ".tmp-"
SWEEP_AGE_S = 60.0

_FIXES = {
    errno.ENOSPC: "free some disk space, then run the same command again: everything stored before is unharmed",
    errno.EDQUOT: "free some of your disk quota, then run the same command again: everything stored before is unharmed",
    errno.EROFS: "choose a folder on a writable disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENOENT: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "choose a path whose parents are folders",
}


def io_error(what: str, error: OSError) -> RunError:
    """The user's version of an operating-system error."""
    fix = _FIXES.get(error.errno or 0, "check the disk, then run the same command again")
    return RunError(what, got=error.strerror or str(error), fix=fix)


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        RunError: It cannot be created, or a file is in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RunError(f"{path} is a file", expected="a folder", fix="choose another folder with --out") from error
    except OSError as error:
        raise io_error(f"the folder {path} cannot be created", error) from error


def sync_folder(path: Path) -> None:
    """Make renames and deletions in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename itself is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes | memoryview, *, sync: bool = True) -> None:
    """Write a file so that any reader, at any moment, sees the old file or the new one, whole.

    Args:
        path: The file; its folder must exist.
        data: The whole content.
        sync: Force it to disk. False only for what may be lost, such as a heartbeat.

    Raises:
        RunError: The disk is full, read-only or broken. Nothing is left behind and `path` is as it was.
    """
    tmp = path.with_name(f"{TMP_PREFIX}{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        with tmp.open("wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        tmp.replace(path)
        if sync:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            tmp.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise io_error(f"{path} cannot be written", error) from error
        raise


def sweep(folder: Path, *, min_age_s: float = SWEEP_AGE_S) -> int:
    """Remove what killed writers left in a folder; how many files that were.

    Args:
        folder: Searched itself, not below.
        min_age_s: Seconds; younger leftovers may belong to a writer at work and stay.
    """
    removed = 0
    for tmp in folder.glob(f"{TMP_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - tmp.stat().st_mtime >= min_age_s:
                tmp.unlink()
                removed += 1
    return removed
