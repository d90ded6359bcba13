"""How much memory is free on a device, what running out of it looks like, and keeping what was freed for reuse."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import torch

_MESSAGES = ("out of memory", "can't allocate memory")
_CGROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)

# `mallopt`'s names, the largest block that it lets the heap hold, and how much freed memory the process may keep.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK, _KEPT = 32 << 20, 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next tensor; whether it could be asked to.

    A forward pass makes hundreds of tensors of some megabytes that live for a moment. glibc gives such blocks back to
    the system and takes new ones, whose every page then costs a fault: about a tenth of the engine's time on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_M_TRIM_THRESHOLD, _KEPT))


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that may still be taken on a device; None where that cannot be known.

    On a CPU the smaller of what the machine and what the control group (a container's limit) have left.

    Args:
        device: The device.
        root: Where `/proc` and `/sys` are.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    known = [n for n in (_machine(root / "proc/meminfo"), _group(root / "sys/fs/cgroup")) if n is not None]
    return min(known) if known else None


def _machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except (OSError, ValueError):
        pass
    try:  # no /proc: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (OSError, ValueError, AttributeError):
        return None


def _group(folder: Path) -> int | None:
    for limit, used in _CGROUPS:
        try:
            return max(0, int((folder / limit).read_text()) - int((folder / used).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; CPU and MPS allocators raise plain RuntimeErrors."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MESSAGES)


def release(device: torch.device) -> None:
    """Give cached blocks back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
