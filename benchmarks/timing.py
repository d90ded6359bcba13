"""Interleaved rounds of the same work by different variants, in CPU time (CUDA events on a GPU)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Spread:
    """A number measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Median, lowest and highest."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, unit: str = "", digits: int = 3) -> str:
        """For example `12.3x (11.8-12.9)`."""
        low, mid, high = (f"{x:#.{digits}g}".rstrip(".") for x in (self.low, self.median, self.high))
        return f"{mid}{unit} ({low}-{high})"


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that a run takes: of the processor, or between two events on a GPU."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    begin = time.process_time()
    run()
    return time.process_time() - begin


def interleaved(
    variants: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, *, warm: bool = True
) -> dict[str, list[float]]:
    """Times of each variant in each round; the order turns by one each round, so that nobody is always first."""
    names = list(variants)
    if warm:
        for name in names:
            variants[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(seconds(variants[name], device))
    return times
