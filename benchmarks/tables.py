"""Outcomes as markdown: the targets with every miss called a miss, and what is behind them."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from benchmarks.compare import Outcome
from benchmarks.timing import Spread

_TARGETS = {
    "tiny (": {"origin": 38.0, "official": 12.0, "official, clean": 1.6, "floor": 0.65, "memory": 0.2},
    "135m (": {"origin": 27.0, "official": 11.0, "official, clean": 1.6, "floor": 0.75, "memory": 0.2},
}
_GPU_CELLS, _GPU_SECONDS = 6000, 2.0
_NAMES = {
    "origin": "the origin's algorithm (batch 1, question encoded each time)",
    "official": "official-style batches of 128, question encoded each time",
    "expanded": "expanded caches (prefix copied for each cell)",
    "official, clean": "official-style batches, clean evaluation",
    "ours bf16": "bfloat16 (ours) against float32 (ours)",
    "ours + scores": "with drafts and scores against plain greedy (ours)",
}


def machine(device: str) -> str:
    """What it was measured on, without the machine's name."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    cpu = model.group(1).strip() if model else platform.processor()
    where = torch.cuda.get_device_name() if device == "cuda" else f"{cpu}, {torch.get_num_threads()} thread(s)"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{where}; {cores} core(s) allowed; {torch.backends.cpu.get_cpu_capability()}; "
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def targets(outcomes: Sequence[Outcome]) -> str:
    """Each target beside what was measured."""
    rows = []
    for out in outcomes:
        if out.name.startswith("1b (") and out.cells == _GPU_CELLS:
            got = out.seconds["ours bf16"]
            rows.append((out.name, f"{out.cells:,} swaps in bfloat16", got.show(" s"), f"<= {_GPU_SECONDS:g} s",
                         _verdict(got.median <= _GPU_SECONDS)))  # fmt: skip
        wanted = next((t for prefix, t in _TARGETS.items() if out.name.startswith(prefix)), None)
        if wanted is None:
            continue
        for name in ("origin", "official", "official, clean"):
            got = out.ratios[name]
            rows.append((out.name, f"against {_NAMES[name]}", got.show("x"), f">= {wanted[name]:g}x",
                         _verdict(got.median >= wanted[name])))  # fmt: skip
        for name, label in (("own", "in the model's own shapes"), ("square", "of the best square product")):
            got = out.floor[name]
            rows.append((out.name, f"share of the GEMM floor {label}", _percent(got), f">= {wanted['floor']:.0%}",
                         _verdict(got.median >= wanted["floor"])))  # fmt: skip
        share = out.memory["held / expanded"]
        rows.append((out.name, "keys and values held, against an expanded prefix", f"{share:.3f}",
                     f"<= {wanted['memory']:g}", _verdict(share <= wanted["memory"])))  # fmt: skip
    return table(("model", "what", "measured: median (low-high)", "target", ""), rows) if rows else ""


def details(out: Outcome) -> str:
    """Times, ratios, answers, ceilings and memory of one model."""
    rows = [
        (
            _NAMES.get(name, name),
            f"{spread.median / _cells(out, name) * 1e3:.3g}",
            out.ratios[name].show("x") if name in out.ratios else "",
            out.subset.get(name, "all"),
            out.same_answers.get(name, ""),
        )
        for name, spread in out.seconds.items()
    ]
    parts = [f"### {out.name}", f"{out.cells} swaps. Times are per cell; ratios are to ours in the same round.",
             table(("variant", "ms per cell", "ratio", "cells timed", "same answers as ours"), rows)]  # fmt: skip
    if out.ceilings and out.need:
        ours = out.seconds["ours"].median
        parts.append(
            f"Matrix products: {out.ceilings.own / 1e9:.4g} GFLOP/s in the model's shapes, "
            f"{out.ceilings.square / 1e9:.4g} in squares; memory copies {out.ceilings.copy / 1e9:.3g} GB/s. "
            f"Needed: {out.need.matrices / 1e9:.4g} GFLOP in products with weights, "
            f"{out.need.attention / 1e9:.3g} in attention; reached {out.need.total / ours / 1e9:.4g} GFLOP/s, "
            f"{_percent(out.floor['own'])} of the floor in the model's shapes, "
            f"{_percent(out.floor['square'])} of squares."
        )
    if memory := out.memory:
        parts.append(
            f"Keys and values: {memory['held MB']:.4g} MB held (counted {memory['counted MB']:.4g}), "
            f"{memory['expanded MB']:.4g} MB expanded: {memory['held / expanded']:.3f} of it."
        )
    return "\n\n".join(parts)


def curve_table(rows: Sequence[dict[str, object]]) -> str:
    """The scaling curves."""
    header = ("varied", "value", "ms per cell", "times cheaper than the origin's algorithm")
    shown = [[v.show() if isinstance(v, Spread) else v for v in row.values()] for row in rows]
    return table(header, shown)


def _cells(out: Outcome, name: str) -> int:
    if not name.endswith("clean"):
        return out.cells
    return int(out.same_answers["official, clean"].split("/")[1])


def _percent(spread: Spread) -> str:
    return f"{spread.median:.0%} ({spread.low:.0%}-{spread.high:.0%})"


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"
