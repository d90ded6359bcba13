"""The sign of life of a running process: who it is, how far it is, when it last said so."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import weakref
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import RunError
from thoughtgraft.records.atomic import write_atomic
from thoughtgraft.records.layout import HEARTBEAT_FILE

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
