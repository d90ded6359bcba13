"""A process that loads the embedded model once and forks another for every run it is asked for: a start costs nothing.

Commands come as JSON lines: `{"start": {...}}` answers with the new process's pid, `{"wait": pid}` with how it ended
(`os.waitstatus_to_exitcode`: -9 for SIGKILL). A run notes in its log what it is doing, a line at a time:
`+ROWS` before generations begin, `=ROWS UNIT` when a unit is stored.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from typing import Any

import torch

from thoughtgraft.engine import cells as cells_module
from thoughtgraft.engine.run import run
from thoughtgraft.errors import ThoughtgraftError
from thoughtgraft.models.load import load_model
from thoughtgraft.records import shards
from thoughtgraft.records.store import RunStore
from thoughtgraft.studies.resampling.design import resampling_plan
from thoughtgraft.studies.sample import draw_sample

# Made before the fork, so once for all runs.
load, draw = functools.cache(load_model), functools.cache(draw_sample)


def main() -> None:
    torch.set_num_threads(1)  # A fork keeps only the thread that forked.
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201
            continue
        job = command["start"]
        model = load("tiny-codi", device="cpu", dtype=job["dtype"])
        problems = draw("arithmetic:test", first=0, n=job["hosts"], seed=0).problems
        pid = os.fork()
        if pid == 0:
            os._exit(_run(model, problems, job))
        print(pid, flush=True)  # noqa: T201


def _run(model: Any, problems: Any, job: dict[str, Any]) -> int:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    generate, store = cells_module.rollout, RunStore.write_unit

    def noted_rollout(model: Any, prompts: Any, rows: Any, *rest: Any, **more: Any) -> Any:
        os.write(log, b"+%d\n" % len(rows))
        return generate(model, prompts, rows, *rest, **more)

    def noted_store(self: RunStore, unit: str, rows: Any) -> None:
        store(self, unit, rows)
        os.write(log, b"=%d %s\n" % (len(rows), unit.encode()))

    cells_module.rollout, RunStore.write_unit = noted_rollout, noted_store  # type: ignore[method-assign]
    shards.MERGE_UNITS = 8  # Kills shall also fall into merging.
    plan = resampling_plan(model.num_latents, job["donors"], 0, full=False)
    try:
        run(model, problems, plan, job["out"], batch_size=job["batch_size"], progress=False)
    except ThoughtgraftError as error:
        os.write(log, f"! {error}\n".encode())
        return 2
    return 0


if __name__ == "__main__":
    main()
