"""How cost grows with donors, problems, answer tokens and question length, on the tiny shape."""

from __future__ import annotations

from benchmarks.baselines import origin
from benchmarks.ours import Sweep
from benchmarks.shapes import SHAPES, random_model
from benchmarks.timing import Spread, interleaved
from benchmarks.workload import make_workload

_BASE = {"problems": 4, "donors": 10, "answer": 8, "question": 90}
_CURVES = {
    "donors": (1, 3, 10, 30),
    "problems": (1, 2, 4, 16),
    "answer": (2, 8, 32),
    "question": (30, 90, 360),
}
_ORIGIN_CELLS = 4


def curves(device: str, rounds: int) -> list[dict[str, object]]:
    """One row for each point: what was varied, its value, ms per cell, and how many times cheaper than the origin."""
    rows: list[dict[str, object]] = []
    for name, values in _CURVES.items():
        for value in values:
            at = {**_BASE, name: value}
            model = random_model(SHAPES["tiny"], device=device, answer=at["answer"])
            work = make_workload(
                model, at["problems"], at["donors"], at["question"], answer=at["answer"], spread=name != "question"
            )
            cells = list(work.swaps)[:: max(1, len(work.swaps) // _ORIGIN_CELLS)][:_ORIGIN_CELLS]
            times = interleaved(
                {"ours": Sweep(model, work), "origin": lambda m=model, w=work, c=cells: origin(m, w, c)},
                rounds,
                model.device,
            )
            ours = [t / len(work.swaps) * 1e3 for t in times["ours"]]
            theirs = [t / len(cells) * 1e3 for t in times["origin"]]
            rows.append(
                {
                    "varied": name,
                    "value": value,
                    "ms per cell": Spread.of(ours),
                    "times cheaper": Spread.of([b / a for a, b in zip(ours, theirs, strict=True)]),
                }
            )
    return rows
