"""What a run of up to a million records costs to read: time and peak memory of each verb, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import table
from thoughtgraft.edits.plan import Cell, Plan
from thoughtgraft.engine.cells import arm_of
from thoughtgraft.records.spec import PROBLEMS_FILE, RunSpec, package_versions
from thoughtgraft.records.store import RunStore
from thoughtgraft.studies.resampling.design import resampling_plan
from thoughtgraft.tasks.files import problem_table
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.problem import ProblemSet

SIZES = (100_000, 1_000_000)
_DONORS, _BLOCK = 10, 100
_LARGEST, _CLEAN_ACCURACY, _KEPT = 30, 0.95, 0.8
_IDENTITY = {"model": "invented", "num_latents": 6}

_MAIN = "from thoughtgraft.cli.app import main; main()"
_READ = "import thoughtgraft; records = thoughtgraft.load_records(sys.argv[1])"
_ANALYSE = (
    "\nfrom thoughtgraft.studies.resampling.analysis import analyse"
    "\nfrom thoughtgraft.studies.registry import load_run"
    f"\nanalyse(records, load_run(sys.argv[1]).problem_set(), largest={_LARGEST})"
)
_VERBS = {
    "`status --json`": (_MAIN, ("status", "RUN", "--json")),
    "`status`": (_MAIN, ("status", "RUN")),
    "`load_records`": (_READ, ("RUN",)),
    "`build_frame`": (_READ + "; from thoughtgraft.effects.frame import build_frame; build_frame(records)", ("RUN",)),
    "`analyse`: every table and test": (_READ + _ANALYSE, ("RUN",)),
    "`records --format csv`": (_MAIN, ("records", "RUN", "--format", "csv")),
    "`records --format parquet`": (_MAIN, ("records", "RUN", "--format", "parquet")),
    "`records --format jsonl`": (_MAIN, ("records", "RUN", "--format", "jsonl")),
    "continue: recover, then the stored cells": (
        "from thoughtgraft.records.store import RunStore; spec = RunStore.open(sys.argv[1]).spec\n"
        "with RunStore.create(sys.argv[1], spec) as store: store.stored_cells()",
        ("RUN",),
    ),
}
# The peak is of the process image itself: what wait4 reports also counts the parent's pages before exec.
_PROBE = """
import atexit, os, sys
def _tell():
    used, peak = os.times(), [l for l in open("/proc/self/status") if l.startswith("VmHWM")][0].split()[1]
    heavy = [m for m in ("torch", "pandas") if m in sys.modules]
    print("PROBE", used.user + used.system, int(peak) / 1024, *heavy, file=sys.stderr)
atexit.register(_tell)
"""


@dataclass(frozen=True)
class Cost:
    """What one verb took: seconds of the clock and of the processor, interpreter start included, and peak memory."""

    records: int
    verb: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    imported: str


def costs(sizes: tuple[int, ...], repeats: int) -> Iterator[Cost]:
    """Invent a run of each size in a temporary folder and time every verb on it, the best of `repeats`."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            wall, cpu = time.perf_counter(), time.process_time()
            stored = invent(run, size)
            took = (time.perf_counter() - wall, time.process_time() - cpu)
            yield Cost(stored, "inventing and writing them", *took, np.nan, "")
            for verb, (code, arguments) in _VERBS.items():
                words = [str(run) if word == "RUN" else word for word in arguments]
                yield min((_cost(stored, verb, code, words) for _ in range(repeats)), key=lambda cost: cost.cpu_s)


def cost_table(found: list[Cost]) -> str:
    """The costs as markdown."""
    header = ("records", "what", "wall s", "CPU s", "peak MB", "imports")
    rows = [
        (
            f"{c.records:,}",
            c.verb,
            f"{c.wall_s:.2f}",
            f"{c.cpu_s:.2f}",
            "" if np.isnan(c.peak_mb) else f"{c.peak_mb:,.0f}",
            c.imported,
        )
        for c in found
    ]
    return table(header, rows)


def invent(path: Path, size: int) -> int:
    """Write a run of the full resampling design through the real store; the outcomes are random, no model is asked.

    Returns:
        The number of records: `size` or a little more, since hosts are whole.
    """
    plan = resampling_plan(6, _DONORS, 0)
    per_host = len(plan.cells(load_problems("arithmetic:train", n=_BLOCK, seed=0), _IDENTITY)) // _BLOCK
    hosts = -(-size // per_host)
    problems = load_problems("arithmetic:train", n=-(-hosts // _BLOCK) * _BLOCK, seed=0)
    draw = np.random.default_rng(0)
    spec = _spec(plan, problems, hosts, hosts * per_host)
    with RunStore.create(path, spec) as store:
        store.write_table(PROBLEMS_FILE, problem_table(problems))
        for first in range(0, hosts, _BLOCK):
            block = problems[first : first + _BLOCK]
            right = draw.random(len(block)) < _CLEAN_ACCURACY
            units: dict[int, list[dict[str, Any]]] = {}
            for cell in plan.cells(block, _IDENTITY):
                units.setdefault(cell.host, []).append(_row(cell, block, right, draw))
            for host, rows in units.items():
                if first + host < hosts:
                    store.write_unit(f"u{first + host}", rows)
    return hosts * per_host


def _spec(plan: Plan, problems: ProblemSet, hosts: int, n_cells: int) -> RunSpec:
    cells = plan.cells(problems[:_BLOCK], _IDENTITY)
    counts = Counter(arm_of(cell) for cell in cells if cell.host == 0)
    return RunSpec(
        study="invented",
        model="invented",
        model_hash="invented",
        protocol="official",
        num_latents=6,
        problems=problems.name,
        problem_hash=problems.content_hash,
        plan_hash=plan.plan_hash,
        plan=plan.describe() | {"cells_per_arm": [arm.columns | {"n": n * hosts} for arm, n in counts.items()]},
        seed=0,
        dtype="float32",
        device="cpu",
        n_hosts=hosts,
        n_donors=_DONORS,
        n_cells=n_cells,
        versions=package_versions(),
    )


def _row(cell: Cell, block: ProblemSet, right: np.ndarray, draw: np.random.Generator) -> dict[str, Any]:
    """A record of the size and kinds of a real one."""
    arm, problem, base = cell.arm, block[cell.host], bool(right[cell.host])
    wrong = str(int(problem.answer or 0) + 1)
    keeps = arm.change.name in ("baseline", "noop", "self") or draw.random() < _KEPT
    pred = (problem.answer if base else wrong) if keeps else str(draw.integers(_LARGEST))
    score = float(draw.normal())
    row: dict[str, Any] = {
        "run_id": "0" * 16,
        "cell": cell.key,
        "arm": arm.label,
        **arm_of(cell).columns,
        "protocol": "official",
        "num_latents": 6,
        "problem_id": problem.id,
        "split": problem.split,
        "n_steps": len(problem.steps),
        "operation": problem.operation,
        "gold": problem.answer,
        "base_pred": problem.answer if base else wrong,
        "base_correct": base,
        "text": f"The answer is: {pred}",
        "token_ids": [15, 27, 9, 4, int(draw.integers(512))],
        "stop_reason": "eos",
        "n_tokens": 5,
        "pred": pred,
        "valid": True,
        "correct": pred == problem.answer,
        "changed": not keeps,
        "logp_gold": -abs(score),
        "dlogp_gold": 0.0 if keeps else score,
        "kl": abs(score) / 10,
        "fed_norm": 10 + score,
        "pad": 0,
        "seed": 0 if cell.draw is not None else None,
    }
    if cell.donor is not None:
        donor = block[cell.donor]
        row |= {"donor_id": donor.id, "donor_pred": donor.answer}
        row |= {"donor_correct": bool(right[cell.donor]), "adopted": pred == donor.answer}
        row |= {"logp_donor": -2 * abs(score), "donor_cos": score / 10}
    return row


def _cost(records: int, verb: str, code: str, words: list[str]) -> Cost:
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _PROBE + code, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - begin
    cpu, peak, *imports = next(line for line in done.stderr.splitlines() if line.startswith("PROBE")).split()[1:]
    return Cost(records, verb, wall, float(cpu), float(peak), ", ".join(imports) or "neither")
