"""Every answer of the engine against the plain reference, on the embedded model in float32 with natural stops."""

from __future__ import annotations

import time

from benchmarks.ours import Sweep
from benchmarks.shapes import trained_model
from benchmarks.workload import make_workload
from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.tasks.load import load_problems


def check(cells: int, device: str) -> dict[str, float]:
    """Compare the first so many of 6,000 cells (100 hosts x 6 slots x 10 donors), spread evenly over them.

    Returns:
        Cells, how many answers are equal, and the CPU seconds of both.
    """
    model = trained_model(device=device)
    prompts = [model.prompt(p.question) for p in load_problems("arithmetic:test", n=100, seed=0)]
    work = make_workload(model, len(prompts), 10, 0, answer=32, prompts=prompts)
    begin = time.process_time()
    found = Sweep(model, work)()
    ours = time.process_time() - begin

    chosen = range(0, len(work.swaps), max(1, len(work.swaps) // cells))[:cells]
    begin = time.process_time()
    clean = [reference_run(model, prompt, max_new_tokens=work.answer) for prompt in prompts]
    equal = 0
    for i in chosen:
        swap = work.swaps[i]
        run = reference_run(
            model,
            prompts[swap.host],
            schedule(Arm("swap", (swap.slot,)), model.num_latents),
            edit=lambda slot, live, donor=swap.donor: clean[donor].fed[slot],
            clean=clean[swap.host],
            max_new_tokens=work.answer,
        )
        equal += run.token_ids == found[i]
        if run.token_ids != found[i]:
            print("differs:", swap, run.token_ids, found[i])
    reference = time.process_time() - begin
    return {
        "cells": len(chosen),
        "equal": equal,
        "engine CPU-s, all 6,000": ours,
        "reference CPU-s": reference,
    }
