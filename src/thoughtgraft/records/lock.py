"""One writer per run folder: a lock that the kernel drops with its process, so that none goes stale."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import warnings
from pathlib import Path

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import RunError
from thoughtgraft.records.atomic import io_error
from thoughtgraft.records.heartbeat import SILENCE_S, read_heartbeat
from thoughtgraft.records.layout import LOCK_FILE

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# POSIX record locks, not flock: they are not inherited by forks (a forked worker that outlives its parent must
# not hold the run) and they work across machines on NFS. But they do not exclude within one process, and closing
# ANY handle on the file drops them: hence this set, asked before the file is opened.
_held: dict[str, int] = {}
_guard = threading.Lock()


class RunLock:
    """The right to write records into one run folder, until `release` or the end of the process.

    Raises:
        RunError: Another process has it (its pid and machine are named), or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._key = str(folder.resolve())
        self._handle: int | None = None
        with _guard:
            # A forked child inherits the set but not the lock, so only this process's entries count.
            if _held.get(self._key) == os.getpid():
                raise _refusal(folder, f"this process (pid {os.getpid()})", "close the other RunStore first")
            self._handle = self._acquire(folder)
            _held[self._key] = os.getpid()

    def _acquire(self, folder: Path) -> int:
        try:
            handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise io_error(f"the run folder {folder} cannot be written", error) from error
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no fcntl")
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = _holder(handle)
                os.close(handle)
                raise _refusal(folder, holder, "wait for it or stop it, or use --out another folder") from error
            try:
                _refuse_by_heartbeat(folder)
            except RunError:
                os.close(handle)
                raise
        with contextlib.suppress(OSError):  # Only for the refusal's message; the lock is held without it.
            text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
            os.ftruncate(handle, 0)
            os.pwrite(handle, text.encode(), 0)
        return handle

    def release(self) -> None:
        """Let others write; safe to call twice."""
        with _guard:
            if self._handle is None:
                return
            if _held.get(self._key) == os.getpid():
                del _held[self._key]
            os.close(self._handle)
            self._handle = None


def _holder(handle: int) -> str:
    try:
        facts = parse_json(os.pread(handle, 4096, 0))
        return f"pid {facts['pid']} on {facts['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _refusal(folder: Path, holder: str, fix: str) -> RunError:
    return RunError(f"{folder} is being written by {holder}", expected="one writer per run folder", fix=fix)


def _refuse_by_heartbeat(folder: Path) -> None:
    """Where the file system has no locks, a fresh heartbeat of another living process is the next best sign."""
    beat = read_heartbeat(folder)
    mine = (os.getpid(), socket.gethostname())
    if beat is not None and (beat.pid, beat.host) != mine and beat.alive and beat.age_s < SILENCE_S:
        raise _refusal(folder, f"pid {beat.pid} on {beat.host}", "wait for it or stop it, or use --out another folder")
    warnings.warn(f"{folder}: this file system has no locks; do not start a second writer here", stacklevel=4)
