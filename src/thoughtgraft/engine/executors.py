"""Where cells run: the contract, this process, and the choice by name."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import Any, Protocol

from thoughtgraft.engine.cells import Finished, Record, Work
from thoughtgraft.errors import PlanError
from thoughtgraft.interventions.plan import Cell
from thoughtgraft.models.reasoner import LatentReasoner

ENGINES = ("local", "ray")


class Executor(Protocol):
    """Something that runs cells, wherever it does.

    It returns records and writes nothing: the run's one writer is the process that holds its lock.
    """

    def run(
        self, model: LatentReasoner, work: Work, cells: Sequence[Cell], stored: Collection[Record] = ()
    ) -> Generator[Finished, None, None]:
        """Run every cell that is not stored once; yields what is finished, in any order and packing.

        A part without cells says no more than that the executor is alive. Closing the iterator ends the work.
        """

    def describe(self) -> dict[str, Any]:
        """What run.json says of it."""


class LocalExecutor:
    """This process, on the model's own device."""

    def run(
        self, model: LatentReasoner, work: Work, cells: Sequence[Cell], stored: Collection[Record] = ()
    ) -> Generator[Finished, None, None]:
        """Run the cells pack by pack, in the packs that an uninterrupted run makes."""
        return work.run(model, cells, stored)

    def describe(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {"name": "local"}


def make_executor(
    engine: str,
    *,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
) -> Executor:
    """The executor of this name.

    Args:
        engine: `local` or `ray`.
        address: A Ray cluster, `auto` or HOST:PORT; None starts one on this machine for as long as the run takes.
        workers: How many processes hold the model; None: as many as the resources allow.
        cpus_per_worker: CPUs of each, which are also its threads; None: 1.
        gpus_per_worker: GPUs of each, or the part of one; None: 1 for a model on a GPU, else 0.

    Raises:
        PlanError: An unknown name, or options of another engine.
        MissingExtraError: Ray is not installed.
    """
    if engine == "local":
        given = {
            "--ray-address": address,
            "--workers": workers,
            "--cpus-per-worker": cpus_per_worker,
            "--gpus-per-worker": gpus_per_worker,
        }
        if names := [name for name, value in given.items() if value is not None]:
            fix = "add --engine ray, or leave them out"
            raise PlanError("the local engine has no workers", got=", ".join(names), fix=fix)
        return LocalExecutor()
    if engine != "ray":
        raise PlanError("unknown engine", got=repr(engine), expected=", ".join(ENGINES))
    from thoughtgraft.engine.ray_executor import RayExecutor

    return RayExecutor(address, workers, cpus_per_worker or 1.0, gpus_per_worker)
