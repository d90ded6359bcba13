"""The planner's memory against the real peak: one pack in a process of its own, its peak beside what was planned."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.ours import Sweep
from benchmarks.shapes import SHAPES, random_model
from benchmarks.workload import make_workload
from thoughtgraft.engine.batching import plan_budget
from thoughtgraft.models.reasoner import LatentReasoner

_HOSTS = {"tiny": (4, 16), "135m": (2, 8), "1b": (8, 100)}
_DONORS, _ANSWER, _MEGA = 10, 8, 1e6


def measure(sizes: list[str], device: str) -> list[dict[str, object]]:
    """Planned and real megabytes of packs of two sizes for each shape, plain and with drafts and scores."""
    rows: list[dict[str, object]] = []
    for size in sizes:
        for hosts in _HOSTS[size]:
            for scored in (False, True):
                command = [sys.executable, "-m", "benchmarks.memory", size, str(hosts), str(int(scored)), device]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rows.append(json.loads(out.splitlines()[-1]))
    return rows


def pack(size: str, hosts: int, scored: bool, device: str) -> dict[str, object]:
    """Run one pack in this process and say what it took."""
    model = random_model(SHAPES[size], device=device, answer=_ANSWER)
    work = make_workload(model, hosts, _DONORS, SHAPES[size].question, answer=_ANSWER)
    longest = max(map(len, work.prompts))
    budget = plan_budget(model, "auto", longest)
    variants = len(work.swaps) // hosts
    if not budget.fits(hosts, variants + scored, longest):
        raise SystemExit(f"{hosts} problems of {variants} variants are more than one pack")
    planned = budget.needed(hosts, variants + scored, longest)
    before = _start(model)
    Sweep(model, work, scored=scored)()
    real = _peak(model) - before
    return {
        "shape": size,
        "rows": len(work.swaps),
        "drafts and scores": scored,
        "planned MB": round(planned / _MEGA),
        "peak MB": round(real / _MEGA),
        "peak / planned": round(real / planned, 2),
    }


def _start(model: LatentReasoner) -> int:
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what the clean run left behind is not there any more
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is resident now
    return _resident("VmRSS")


def _peak(model: LatentReasoner) -> int:
    return torch.cuda.max_memory_allocated() if model.device.type == "cuda" else _resident("VmHWM")


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found, f"/proc/self/status has no {name}"
    return 1024 * int(found.group(1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(pack(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1", sys.argv[4])))
