"""Cells in parallel: threads, one linear-algebra thread each, with a progress bar; results in the order asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    work: Callable[[Item], Result], items: Sequence[Item], *, n_jobs: int | None, what: str, progress: bool
) -> list[Result]:
    """`work` on every item, several at once; linear algebra gives up the interpreter, so threads are enough.

    Args:
        work: A function without shared state.
        items: Its arguments.
        n_jobs: Threads; None: as many as there are processors.
        what: Words beside the progress bar.
        progress: Whether to show it.
    """
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        tqdm(total=len(items), desc=what, disable=not progress) as bar,
    ):
        # A probe that stops at its iteration budget is the probe as specified; the scores say what it is worth.
        warnings.simplefilter("ignore", ConvergenceWarning)

        def step(item: Item) -> Result:
            result = work(item)
            bar.update()
            return result

        with ThreadPoolExecutor(min(n_jobs or available_cores(), max(len(items), 1))) as pool:
            return list(pool.map(step, items))
