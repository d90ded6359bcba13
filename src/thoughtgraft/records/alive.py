"""One writer per run folder, and the heartbeat that tells others it is alive."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import warnings
import weakref
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import RunError
from thoughtgraft.files import io_error, write_atomic
from thoughtgraft.records.spec import HEARTBEAT_FILE, LOCK_FILE

INTERVAL_S = 1.0
# A process on another machine cannot be asked whether it lives: silence this long counts as death.
SILENCE_S = 120.0
# So the last sign is repeated while a long step (thinking, a large batch) has nothing new to say.
PULSE_S = 30.0


@dataclass(frozen=True)
class Heartbeat:
    """One sign of life; times are seconds since the epoch, `rate` is items per second in this phase.

    `ended` says that the process stopped writing the run in good order, though it may live on (a notebook).
    """

    pid: int
    host: str
    pid_started: str | None
    started: float
    updated: float
    done: int
    total: int
    phase: str
    rate: float | None
    ended: bool = False

    @property
    def age_s(self) -> float:
        """Seconds since it was written."""
        return max(0.0, time.time() - self.updated)

    @property
    def alive(self) -> bool:
        """Whether its process writes on: asked of this machine, or judged by silence for another."""
        if self.ended:
            return False
        if self.host == socket.gethostname():
            return process_runs(self.pid, self.pid_started)
        return self.age_s < SILENCE_S


class HeartbeatWriter:
    """Writes `heartbeat.json`, at most once a second, and never stops a run by failing to.

    From the first beat on a thread repeats the last one, until `end` or until nobody holds the writer.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / HEARTBEAT_FILE
        self._started = time.time()
        self._written = float("-inf")
        self._phase: str | None = None
        self._last: Heartbeat | None = None
        self._anchor = (0.0, 0)
        self._writing = threading.Lock()
        self._ended = threading.Event()

    def beat(self, done: int, total: int, phase: str) -> None:
        """Say how far the run is; the first, the last and a new phase's are written whatever the clock says.

        Args:
            done: Items finished, counting those of earlier starts.
            total: Items of the phase.
            phase: What is being done, for people.
        """
        now = time.monotonic()
        new_phase = phase != self._phase
        if not new_phase and done < total and now - self._written < INTERVAL_S:
            return
        if new_phase:
            # The rate counts from here: what was stored before, and loading, say nothing of the speed.
            self._phase, self._anchor = phase, (now, done)
        since, before = self._anchor
        rate = (done - before) / (now - since) if now > since and done > before else None
        pid = os.getpid()
        beat = Heartbeat(
            pid, socket.gethostname(), process_started(pid), self._started, time.time(), done, total, phase, rate
        )
        first = self._last is None
        with self._writing:
            self._write(beat)
        self._written = now
        if first:
            threading.Thread(target=_pulse, args=(weakref.ref(self), self._ended), daemon=True).start()

    def end(self) -> None:
        """Say that this process has stopped writing the run."""
        self._ended.set()
        self.repeat(ended=True)

    def repeat(self, *, ended: bool = False) -> None:
        """Say the last again, as of now."""
        with self._writing:
            if self._last is not None and ended == self._ended.is_set():
                self._write(replace(self._last, updated=time.time(), ended=ended))

    def _write(self, beat: Heartbeat) -> None:
        self._last = beat
        # A full disk stops the run where it matters, at the next shard, with a better message.
        with contextlib.suppress(RunError):
            write_atomic(self._path, json.dumps(asdict(beat)).encode(), sync=False)


def _pulse(writer: weakref.ref[HeartbeatWriter], ended: threading.Event) -> None:
    while not ended.wait(PULSE_S):
        alive = writer()
        if alive is None:
            return
        alive.repeat()
        del alive  # Not held while waiting: a dropped writer must not look alive.


def read_heartbeat(folder: Path) -> Heartbeat | None:
    """The last sign of life in a run folder; None where there is none that can be read."""
    try:
        return Heartbeat(**parse_json((folder / HEARTBEAT_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def process_started(pid: int) -> str | None:
    """When a process of this machine began, in clock ticks since boot as text; None where unknown.

    Pids are reused: pid and start together name one process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rfind(")") + 2 :].split()
    # A zombie has ended and only waits for its parent to notice.
    return None if fields[0] == "Z" else fields[19]


def process_runs(pid: int, started: str | None = None) -> bool:
    """Whether this machine runs process `pid`, the one that began at `started` if that is known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # It exists and belongs to somebody else.
    return started is None or process_started(pid) == started


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
