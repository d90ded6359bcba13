"""Where a result comes from: versions, machine facts and the source's commit; nothing secret, no paths, no names."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "thoughtgraft", "torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "datasets", "numpy",
    "pandas", "pyarrow", "scipy", "statsmodels", "scikit-learn", "pydantic", "ray", "wandb",
)  # fmt: skip
GIT_TIMEOUT_S = 5.0


def package_versions() -> dict[str, str]:
    """Installed versions of what can change a number, without importing any of it."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_state() -> dict[str, Any]:
    """`commit` and `dirty` of this project's own repository; empty when it does not run from one."""
    package = Path(__file__).resolve().parents[1]
    root = _git(package, "rev-parse", "--show-toplevel")
    # An installed copy may lie inside somebody else's repository: that one's commit says nothing.
    if root is None or Path(root).resolve() / "src" / package.name != package:
        return {}
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")  # of the package: run folders beside it are no change
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def collect_provenance() -> dict[str, Any]:
    """The facts of this start: time (UTC), python, platform, processors, package versions, source state."""
    return {
        "started_utc": utc_now(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "versions": package_versions(),
        "source": source_state(),
    }


def without_home(text: str) -> str:
    """The text with the home folder as `~`, as shells read it: run folders are shared, user names need not be."""
    home = os.path.expanduser("~").rstrip("/")  # noqa: PTH111 - Path.home() raises where there is none
    return re.sub(rf"(?<![\w/]){re.escape(home)}(?![\w.-])", "~", text) if home.startswith("/") else text


def utc_now() -> str:
    """The time now, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Meter:
    """Measures a process from its making to `finish`."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), _cpu_s()

    def finish(self) -> dict[str, Any]:
        """`wall_s` and `cpu_s` since the start (seconds, children included) and the process's `peak_memory_mb` (MB)."""
        return {
            "ended_utc": utc_now(),
            "wall_s": round(time.monotonic() - self._wall, 3),
            "cpu_s": round(_cpu_s() - self._cpu, 3),
            "peak_memory_mb": _peak_memory_mb(),
        }


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _peak_memory_mb() -> float | None:
    # Linux counts the memory of whoever started a process into its ru_maxrss: a large notebook's, for example.
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return round(int(found[1]) * 1.024e-3, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3 / 1.024), 1)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
