"""Where cells run: the contract, this process, and the choice by name."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from thoughtgraft.arguments import answers_for_calls, choice, need, positive, whole
from thoughtgraft.errors import PlanError

if TYPE_CHECKING:
    from thoughtgraft.edits.plan import Cell
    from thoughtgraft.engine.cells import Finished, Record, Work
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


@answers_for_calls(PlanError)
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
    if check_engine(engine, address, workers, cpus_per_worker, gpus_per_worker) == "local":
        return LocalExecutor()
    from thoughtgraft.engine.ray import RayExecutor

    return RayExecutor(address, workers, 1.0 if cpus_per_worker is None else float(cpus_per_worker), gpus_per_worker)


def check_engine(
    engine: str,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
) -> str:
    """The engine's name, if `make_executor` would take all this; nothing is started, and torch is not needed.

    Raises:
        PlanError: An unknown name, options of another engine, or a value that no worker can have.
        RunError: The address has not the form of one, or Ray could not start here.
        MissingExtraError: Ray is not installed.
    """
    choice(engine, "engine", ENGINES, PlanError)
    given = {
        "--ray-address": address,
        "--workers": workers,
        "--cpus-per-worker": cpus_per_worker,
        "--gpus-per-worker": gpus_per_worker,
    }
    names = [name for name, value in given.items() if value is not None]
    if engine == "local" and names:
        fix = "add --engine ray, or leave them out"
        raise PlanError("the local engine has no workers", got=", ".join(names), fix=fix)
    if engine == "local":
        return engine
    from thoughtgraft.engine.ray import check_address, check_session_folder, need_ray

    need_ray()
    if address is None:
        check_session_folder()
    else:
        check_address(need(address, str, "the Ray address", PlanError, expected="auto or HOST:PORT"))
    if workers is not None:
        whole(workers, "the number of workers", PlanError, least=1)
    if cpus_per_worker is not None:
        positive(cpus_per_worker, "the number of CPUs of each worker", PlanError)
    if gpus_per_worker not in (None, 0):
        positive(gpus_per_worker, "the number of GPUs of each worker", PlanError)
    return engine
