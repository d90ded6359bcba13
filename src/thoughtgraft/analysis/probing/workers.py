"""Cells in parallel, with a progress bar; results come in the order asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    n_jobs: int | None,
    what: str,
    progress: bool,
    processes: bool = False,
) -> list[Result]:
    """`work` on every item, several at once.

    Linear algebra gives up the interpreter, so threads are enough for it, each with one linear-algebra thread. Fitting
    many small models does not, so it wants processes.

    Args:
        work: A function without shared state; for processes one that can be pickled.
        items: Its arguments.
        n_jobs: Workers; None: as many as there are processors.
        what: Words beside the progress bar.
        progress: Whether to show it.
        processes: Whether workers are processes.
    """
    workers = min(n_jobs or available_cores(), max(len(items), 1))
    with tqdm(total=len(items), desc=what, disable=not progress) as bar:
        if processes and workers > 1:
            found = []
            for result in Parallel(workers, return_as="generator")(delayed(_quiet)(work, item) for item in items):
                bar.update()
                found.append(result)
            return found

        def step(item: Item) -> Result:
            result = work(item)
            bar.update()
            return result

        with threadpool_limits(1), warnings.catch_warnings(), ThreadPoolExecutor(1 if processes else workers) as pool:
            warnings.simplefilter("ignore", ConvergenceWarning)
            return list(pool.map(step, items))


def _quiet(work: Callable[[Item], Result], item: Item) -> Result:
    """In a worker process: a probe that stops at its iteration budget is the probe as specified, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return work(item)
