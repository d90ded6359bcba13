"""The linear slot x layer map at full size: 16 layers x 7 positions x 600 problems, 2,048 wide, invented features."""

from __future__ import annotations

import os
import time

import numpy as np
import pandas as pd

from thoughtgraft.probing.controls import Setup, control_task, map_p, probe_linear
from thoughtgraft.probing.rows import Place, join, make_folds
from thoughtgraft.probing.scores import label_orders
from thoughtgraft.probing.stratum import each

LAYERS, POSITIONS, PROBLEMS, WIDTH = 16, 7, 600, 2048
FOLDS, REPEATS, PERMUTATIONS, FUNCTIONS = 10, 5, 200, 20
TARGET_S = 600


def invented(place: Place) -> np.ndarray:
    """Features [problem, d] as a model keeps them: components of falling size, rounded to bfloat16's 8 bits."""
    assert place.layer is not None
    rng = np.random.default_rng([place.layer, *place.slot.encode()])
    scale = np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.5
    x = (rng.standard_normal((PROBLEMS, WIDTH), dtype=np.float32) * scale).view(np.uint32)
    return (x & np.uint32(0xFFFF0000)).view(np.float32)


def measure(threads: int, *, quick: bool) -> dict[str, object]:
    """Time the map with permutations and control task, features ready in memory not included in the CPU time.

    Args:
        threads: Cells at once.
        quick: One layer instead of 16; the whole map's time is then calculated.
    """
    labels = pd.DataFrame(
        {
            "id": [str(i) for i in range(PROBLEMS)],
            "operation": np.array(["addition", "mixed", "multiplication"])[np.arange(PROBLEMS) % 3],
            "question": [f"{i % 40} of {i} things" for i in range(PROBLEMS)],
            "split": "test",
        }
    )
    rows = join(labels.id.tolist(), labels, "operation")
    rng = np.random.default_rng(0)
    setup = Setup(
        rows,
        make_folds(rows, FOLDS, REPEATS, 0),
        label_orders(rows.groups, rows.split, PERMUTATIONS, rng),
        control_task(rows, FUNCTIONS, rng),
    )
    layers = range(1 if quick else LAYERS)
    slots = ("BOT", *(f"CT{k}" for k in range(POSITIONS - 1)))
    places = [Place(slot, layer) for layer in layers for slot in slots]
    begin, cpu = time.perf_counter(), time.process_time()
    made = 0.0

    def one(place: Place) -> object:
        nonlocal made
        start = time.thread_time()
        x = invented(place)
        made += time.thread_time() - start
        return probe_linear(x, setup)

    outcomes = each(one, places, n_jobs=threads, what="map", progress=False)
    _, whole = map_p(outcomes)  # type: ignore[arg-type]
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu - made
    full = cpu * LAYERS / len(layers)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cells": len(places),
        "threads": threads,
        "cores": cores,
        "wall s": wall,
        "CPU s": cpu,
        "CPU s, whole map": full,
        "s on 2 cores": full / 2,
        "target s": TARGET_S,
        "met": full / 2 <= TARGET_S,
        "smallest p_maxT (noise)": float(whole.min()),
    }
