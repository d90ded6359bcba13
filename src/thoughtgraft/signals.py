"""SIGINT and SIGTERM on the command line: the first ends a command in good order, a second one at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)
# `timeout` and some schedulers send a signal to the process and again to its group: within this time it is one signal.
ECHO_S = 0.5


class Interruption:
    """What a command was asked by signals.

    Outside of `held` the first signal raises KeyboardInterrupt where the command is, as Python does for SIGINT.

    Attributes:
        received: The signal that came first; None while there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._at = 0.0
        self._held = False

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.received or signal.SIGINT)

    def asked(self) -> bool:
        """Whether the command should end."""
        return self.received is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the first signal wait: the code inside asks `asked` between two units and ends by itself.

        Raises:
            KeyboardInterrupt: At the end, if a signal came and the code inside did not see it.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.asked():
            raise KeyboardInterrupt

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """The handler of both signals."""
        now = time.monotonic()
        if self.received is not None:
            if now - self._at > ECHO_S:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received, self._at = signal.Signals(number), now
        if not self._held:
            raise KeyboardInterrupt
        # Not through a stream: the signal may have come in the middle of one's write.
        os.write(2, b"\nfinishing and storing what is in progress; a second signal ends at once\n")


_current = Interruption()


def current() -> Interruption:
    """The running command's."""
    return _current


@contextmanager
def listening() -> Iterator[Interruption]:
    """Handle both signals for one command, then put back what handled them before.

    A signal that is ignored (a background job's SIGINT) stays ignored; outside of the main thread nothing is handled.
    """
    global _current
    before, _current = _current, Interruption()
    replaced = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    replaced[number] = signal.signal(number, _current.receive)
        yield _current
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
        _current = before
