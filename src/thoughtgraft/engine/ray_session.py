"""A connection to Ray: a cluster that exists, or one started on this machine's loopback for as long as it is used."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.errors import MissingExtraError, RunError, first_line

_KNOCK_S = 10.0
_LONGEST_REASON = 200
_LOGGED = re.compile(r"\[[^]]* [EC] [^]]*\] (\(\w+\) )?\S+: (?P<text>.+)")
"""An error in a log of Ray's: time, level and process, then the place in its source."""
_LONGEST_FOLDER = 27
"""Characters of the folder that a session's own is made in: so a socket's path has 107 at most, as systems want."""


def need_ray() -> None:
    """Raise a MissingExtraError if Ray is not installed; does not import it."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")


@contextmanager
def ray_session(address: str | None, cpus: int, gpus: int) -> Iterator[Any]:
    """The `ray` module, connected. On leaving, what was started here is stopped and its files are removed.

    Args:
        address: `auto` or HOST:PORT of a cluster; None starts one here. A program that is connected already (a
            notebook, say) is left as it is.
        cpus: CPUs to offer, if one is started.
        gpus: GPUs to offer, if one is started.

    Raises:
        RunError: No cluster answers at the address, or none could be started.
    """
    need_ray()
    if address not in (None, "auto"):
        _knock(str(address))
    settings = {} if address else _private_settings()
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)  # before the import, which reads some of them
    folder: Path | None = None
    try:
        import ray

        if ray.is_initialized():
            yield ray
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        try:
            with _undisturbed():
                if address:
                    ray.init(address=address, **quiet)
                else:
                    folder = _session_folder()
                    started: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False}
                    ray.init(address="local", _temp_dir=str(folder), **started, **quiet)
        except Exception as error:  # Ray has no class of its own for this, and raises whatever stopped it
            raise _no_session(address, error, folder) from error
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        for name in added:
            os.environ.pop(name, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def check_address(address: str) -> tuple[str, int]:
    """Host and port of a cluster; of `auto`, which Ray looks up itself, none.

    Raises:
        RunError: It has not that form.
    """
    host, _, port = address.rpartition(":")
    number = typed_number(port) or 0
    if address != "auto" and not (host and 0 < number < 2**16):
        raise RunError("a Ray address cannot be used", got=shown(address), expected="auto or HOST:PORT")
    return host.strip("[]"), number


def _knock(address: str) -> None:
    """Refuse an address at which nobody listens, which Ray itself would try for minutes."""
    host, port = check_address(address)
    try:
        socket.create_connection((host, port), timeout=_KNOCK_S).close()
    except OSError as error:
        raise _no_session(address, error) from error


def _private_settings() -> dict[str, str]:
    """Environment of a cluster that is nobody else's business."""
    return {
        # Whoever reaches Ray's ports can run code as this user: loopback only, and with a token, as other users of
        # the machine reach its loopback too. The first is what Ray itself does on macOS and Windows, whence the name.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@cache
def _token() -> str:
    return secrets.token_hex(32)  # one for the process: Ray reads it once


def check_session_folder() -> Path:
    """The folder that Ray's logs and sockets are put below.

    Raises:
        RunError: RAY_TMPDIR is no folder, cannot be written, or its path is too long for a socket's.
    """
    given = os.environ.get("RAY_TMPDIR")
    folder = Path(given or ("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()))
    if given and not (folder.is_dir() and os.access(folder, os.W_OK) and len(given) <= _LONGEST_FOLDER):
        raise RunError(
            "Ray cannot put its sockets where RAY_TMPDIR says",
            got=given,
            expected=f"a folder that can be written, its path no longer than {_LONGEST_FOLDER} characters",
            fix="set RAY_TMPDIR to such a folder, or unset it",
        )
    return folder


def _session_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tg-ray-", dir=check_session_folder()))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Undo what starting Ray does to this process: its SIGTERM handler and its process group, which Ctrl-C reaches."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    group = os.getpgrp() if hasattr(os, "getpgrp") else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)
        if group is not None and os.getpgrp() != group:
            os.setpgid(0, group)


def _no_session(address: str | None, error: Exception, folder: Path | None = None) -> RunError:
    got = first_line(error)
    if address:
        fix = "start one with `ray start --head` and give its HOST:PORT, or leave --ray-address out to use this machine"
        return RunError(f"no Ray cluster answers at {address!r}", got=got, fix=fix)
    if folder and (reason := _own_reason(folder)):
        got = f"{reason} ({got})"
    return RunError("Ray did not start on this machine", got=got, fix="--engine local needs no Ray")


def _own_reason(folder: Path) -> str:
    """The first error that Ray's own processes logged; the logs are removed with the session."""
    for name in ("gcs_server", "raylet"):
        for file in folder.glob(f"session_2*/logs/{name}.err"):
            for line in file.read_text(errors="replace").splitlines():
                if found := _LOGGED.match(line):
                    # What follows a path is its own stack.
                    return found["text"].rpartition("what(): ")[2].partition(" /")[0].strip()[:_LONGEST_REASON]
    return ""
