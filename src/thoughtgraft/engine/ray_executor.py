"""Cells on Ray: workers hold the model, packs of whole hosts are tasks, a lost worker costs the pack it had."""

from __future__ import annotations

import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from thoughtgraft.engine.batching import Budget, packs, rows_at_most
from thoughtgraft.engine.cells import Finished, Record, Work
from thoughtgraft.engine.ray_session import need_ray, ray_session
from thoughtgraft.errors import ModelError, RunError, differences
from thoughtgraft.interventions.plan import Cell
from thoughtgraft.models.reasoner import LatentReasoner, Prompt
from thoughtgraft.records.provenance import package_versions

_BEAT_S = 1.0
_WAIT_S = 60.0  # without a worker, before it is said
_TRIES = 3
_TASKS_PER_WORKER = 4
_SHOWN_DIFFERENCES = 3
_SAME_VERSIONS = ("thoughtgraft", "torch", "transformers")


class Worker:
    """A process with its own model; Ray makes an actor of it."""

    def __init__(self, recipe: Callable[..., LatentReasoner], device: str, threads: int, work: Work) -> None:
        self._recipe, self._device, self._threads, self._work = recipe, device, threads, work
        self._model: LatentReasoner | None = None

    def load(self, identity: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Load the model; it and the packages must be the driver's.

        Raises:
            ModelError: They are not.
        """
        fix = "give every node the same files and packages"
        here = worker_versions()
        if here != dict(versions):
            raise ModelError("a worker has other packages", got=here, expected=dict(versions), fix=fix)
        torch.set_num_threads(self._threads)
        model = self._recipe(device=self._device)
        if lines := differences("", dict(identity), model.identity, ("here", "on the worker")):
            got = "; ".join(lines[:_SHOWN_DIFFERENCES])
            raise ModelError("a worker loaded another model", got=got, expected="this process's model", fix=fix)
        self._model = model

    def run(self, cells: Sequence[Cell]) -> list[Finished]:
        """Run a task to its end."""
        assert self._model is not None
        return list(self._work.run(self._model, cells))


@dataclass
class Task:
    """Cells that travel together; `tries` counts the workers that were given them."""

    cells: list[Cell]
    tries: int = 0


@dataclass(frozen=True)
class RayExecutor:
    """Workers on a Ray cluster.

    Records come back through Ray to the process that called, which alone writes the run's folder: its lock and its
    write-once units hold as they do without Ray, and the nodes need no common disk.

    Attributes:
        address: `auto` or HOST:PORT of a cluster; None starts one on this machine.
        workers: How many; None: as many as the resources allow.
        cpus_per_worker: CPUs of each, which are also its threads.
        gpus_per_worker: GPUs of each; None: 1 for a model on a GPU, else 0.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        need_ray()

    def describe(self) -> dict[str, Any]:
        """What run.json says of it; no address: that is nobody else's business."""
        found = {"name": "ray", "cluster": "given" if self.address else "own", "workers": self.workers}
        return found | {"cpus_per_worker": self.cpus_per_worker, "gpus_per_worker": self.gpus_per_worker}

    def run(
        self, model: LatentReasoner, work: Work, cells: Sequence[Cell], stored: Collection[Record] = ()
    ) -> Generator[Finished, None, None]:
        """Run the cells on workers that hold the same model.

        Raises:
            ModelError: The model was not made by `load_model` or carries edits, or a worker has another one or other
                packages.
            RunError: No cluster, too few resources for one worker, or a task that lost three workers.
        """
        todo = [cell for cell in cells if cell.record not in stored]
        if not todo:
            return
        if model.recipe is None:
            fix = "load it with load_model, or use the local engine"
            raise ModelError(f"{model.name} was made by hand, so workers cannot make it", fix=fix)
        if model.edit is not None:
            fix = "take the edit back, or use the local engine"
            raise ModelError(f"{model.full_name}: workers load the model anew, without the edit", fix=fix)
        cpus, gpus = self.cpus_per_worker, self._gpus(model)
        offered = _own_cpus() if self.workers is None else math.ceil(self.workers * cpus)
        n_gpus = torch.cuda.device_count() if gpus else 0
        with ray_session(self.address, max(offered, math.ceil(cpus)), n_gpus) as ray:
            n = self._count(ray.cluster_resources(), gpus)
            sharers = max(1, round(1 / gpus)) if gpus else max(1, min(n, int(_own_cpus() / cpus)))
            tasks = make_tasks(todo, work.prompts, rows_at_most(model, work.batch_size), n)
            given = (model.recipe, model.device.type, max(1, int(cpus)), ray.put(replace(work, sharers=sharers)))
            actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(Worker)
            pool = _Pool(ray, lambda: actor.remote(*given), (model.identity, worker_versions()), n)
            yield from pool.run(tasks)

    def _gpus(self, model: LatentReasoner) -> float:
        on_gpu = model.device.type == "cuda"
        if self.gpus_per_worker is None:
            return 1.0 if on_gpu else 0.0
        if on_gpu != (self.gpus_per_worker > 0):
            where = f"{self.gpus_per_worker:g} GPUs per worker, a model on {model.device.type}"
            fix = "--device and --gpus-per-worker must go together"
            raise ModelError("workers run on the same kind of device as the model", got=where, fix=fix)
        return self.gpus_per_worker

    def _count(self, resources: Mapping[str, float], gpus: float) -> int:
        """How many workers: as asked, else as many as fit; later nodes may make room for the rest of those asked."""
        fit = int(resources.get("CPU", 0) / self.cpus_per_worker)
        if gpus:
            whole = int(resources.get("GPU", 0))
            fit = min(fit, whole * int(1 / gpus) if gpus < 1 else int(whole / gpus))  # a part never spans two GPUs
        if fit < 1:
            got = ", ".join(f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
            expected = f"{self.cpus_per_worker:g} CPUs and {gpus:g} GPUs for each worker"
            raise RunError("the cluster has no room for a worker", got=got, expected=expected, fix="ask for less")
        return self.workers or fit


@dataclass
class _Pool:
    """Workers at work: who has which task, and who has none."""

    ray: Any
    make: Callable[[], Any]
    same: tuple[Any, ...]
    n: int
    busy: dict[Any, tuple[Any, Task | None]] = field(default_factory=dict)
    free: list[Any] = field(default_factory=list)
    failed_starts: int = 0

    def run(self, tasks: Sequence[Task]) -> Iterator[Finished]:
        """Hand out the tasks until every one is finished, then stop the workers."""
        waiting, silent = deque(tasks), 0.0
        try:
            for _ in range(min(self.n, len(waiting))):
                self._start()
            while waiting or self._working:
                ready, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=_BEAT_S)
                silent = 0.0 if ready or self.free or self._working else silent + _BEAT_S
                if silent == _WAIT_S:
                    reason = "loading the model, or waiting for resources"
                    warnings.warn(f"no worker is ready after {_WAIT_S:.0f} s ({reason})", stacklevel=2)
                if not ready:
                    yield Finished([], [])
                for name in ready:
                    yield from self._take(name, waiting)
                while waiting and self.free:
                    self._give(self.free.pop(), waiting.popleft())
        finally:
            for worker in [*self.free, *(worker for worker, _ in self.busy.values())]:
                self.ray.kill(worker)

    @property
    def _working(self) -> bool:
        return any(task for _, task in self.busy.values())

    def _take(self, name: Any, waiting: deque[Task]) -> list[Finished]:
        """What a worker gave; if it was lost, its task waits again and another is started."""
        worker, task = self.busy.pop(name)
        try:
            parts = self.ray.get(name)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._lose(worker, task, error)
            if task:
                waiting.appendleft(task)
            if len(self.free) < len(waiting):
                self._start()
            return []
        self.free.append(worker)
        self.failed_starts = 0
        return parts or []

    def _start(self) -> None:
        worker = self.make()
        self.busy[worker.load.remote(*self.same)] = worker, None

    def _give(self, worker: Any, task: Task) -> None:
        task.tries += 1
        self.busy[worker.run.remote(task.cells)] = worker, task

    def _lose(self, worker: Any, task: Task | None, error: Exception) -> None:
        """Count a lost worker; one that only seems lost must not go on beside its successor."""
        self.ray.kill(worker)
        self.failed_starts += task is None
        reason = str(error).strip().splitlines()[0]
        # A node may take all its workers with it while they load; that alone is no reason to give up.
        starts = self.failed_starts if self.failed_starts == _TRIES + self.n - 1 else 0
        if starts or (task and task.tries == _TRIES):
            doing = "loading the model" if task is None else f"running the same {len(task.cells)} cells"
            fix = "a smaller --batch-size, or more memory for each worker; run the same command again to continue"
            raise RunError(f"{starts or _TRIES} workers were lost while {doing}", got=reason, fix=fix)
        again = "" if task is None else f"; its {len(task.cells)} cells are run again"
        warnings.warn(f"a worker was lost ({reason}){again}", stacklevel=3)


def make_tasks(cells: Sequence[Cell], prompts: Sequence[Prompt], rows: int, workers: int) -> list[Task]:
    """Cells in tasks of whole hosts of like size, the largest first; none is so large that workers would wait for it.

    Args:
        cells: Those to run.
        prompts: Every problem's.
        rows: The most rows that a worker runs at once.
        workers: How many there are.
    """
    groups: dict[int, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.host, []).append(cell)
    size = min(rows, math.ceil(len(cells) / (workers * _TASKS_PER_WORKER)))
    packed = packs(list(groups.values()), len, lambda group: len(prompts[group[0].host]), Budget(size))
    return [Task([cell for group in pack for cell in group]) for pack in reversed(packed)]


def worker_versions() -> dict[str, str]:
    """Versions of what must not differ between driver and workers."""
    return {name: version for name, version in package_versions().items() if name in _SAME_VERSIONS}


def _own_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
