"""Cells on Ray: actors that each hold the model, and the session that they live in."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.edits.plan import Cell
from thoughtgraft.engine.batching import Budget, packs, rows_at_most
from thoughtgraft.engine.cells import Finished, Record, Work
from thoughtgraft.errors import MissingExtraError, ModelError, RunError, differences, first_line
from thoughtgraft.models.reasoner import LatentReasoner, Prompt
from thoughtgraft.records.spec import package_versions

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


_KNOCK_S = 10.0
_LONGEST_REASON = 200
_LOGGED = re.compile(r"\[[^]]* [EC] [^]]*\] (\(\w+\) )?\S+: (?P<text>.+)")
"""An error in a log of Ray's: time, level and process, then the place in its source."""
_LONGEST_FOLDER = 27
"""Characters of the folder that a session's own is made in: so a socket's path has 107 at most, as systems want."""


def need_ray() -> None:
    """Raise a MissingExtraError if Ray is not installed; does not import it."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")


@contextmanager
def ray_session(address: str | None, cpus: int, gpus: int) -> Iterator[Any]:
    """The `ray` module, connected. On leaving, what was started here is stopped and its files are removed.

    Args:
        address: `auto` or HOST:PORT of a cluster; None starts one here. A program that is connected already (a
            notebook, say) is left as it is.
        cpus: CPUs to offer, if one is started.
        gpus: GPUs to offer, if one is started.

    Raises:
        RunError: No cluster answers at the address, or none could be started.
    """
    need_ray()
    if address not in (None, "auto"):
        _knock(str(address))
    settings = {} if address else _private_settings()
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)  # before the import, which reads some of them
    folder: Path | None = None
    try:
        import ray

        if ray.is_initialized():
            yield ray
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        try:
            with _undisturbed():
                if address:
                    ray.init(address=address, **quiet)
                else:
                    folder = _session_folder()
                    started: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False}
                    ray.init(address="local", _temp_dir=str(folder), **started, **quiet)
        except Exception as error:  # Ray has no class of its own for this, and raises whatever stopped it
            raise _no_session(address, error, folder) from error
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        for name in added:
            os.environ.pop(name, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def check_address(address: str) -> tuple[str, int]:
    """Host and port of a cluster; of `auto`, which Ray looks up itself, none.

    Raises:
        RunError: It has not that form.
    """
    host, _, port = address.rpartition(":")
    number = typed_number(port) or 0
    if address != "auto" and not (host and 0 < number < 2**16):
        raise RunError("a Ray address cannot be used", got=shown(address), expected="auto or HOST:PORT")
    return host.strip("[]"), number


def _knock(address: str) -> None:
    """Refuse an address at which nobody listens, which Ray itself would try for minutes."""
    host, port = check_address(address)
    try:
        socket.create_connection((host, port), timeout=_KNOCK_S).close()
    except OSError as error:
        raise _no_session(address, error) from error


def _private_settings() -> dict[str, str]:
    """Environment of a cluster that is nobody else's business."""
    return {
        # Whoever reaches Ray's ports can run code as this user: loopback only, and with a token, as other users of
        # the machine reach its loopback too. The first is what Ray itself does on macOS and Windows, whence the name.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@cache
def _token() -> str:
    return secrets.token_hex(32)  # one for the process: Ray reads it once


def check_session_folder() -> Path:
    """The folder that Ray's logs and sockets are put below.

    Raises:
        RunError: RAY_TMPDIR is no folder, cannot be written, or its path is too long for a socket's.
    """
    given = os.environ.get("RAY_TMPDIR")
    folder = Path(given or ("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()))
    if given and not (folder.is_dir() and os.access(folder, os.W_OK) and len(given) <= _LONGEST_FOLDER):
        raise RunError(
            "Ray cannot put its sockets where RAY_TMPDIR says",
            got=given,
            expected=f"a folder that can be written, its path no longer than {_LONGEST_FOLDER} characters",
            fix="set RAY_TMPDIR to such a folder, or unset it",
        )
    return folder


def _session_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tg-ray-", dir=check_session_folder()))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Undo what starting Ray does to this process: its SIGTERM handler and its process group, which Ctrl-C reaches."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    group = os.getpgrp() if hasattr(os, "getpgrp") else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)
        if group is not None and os.getpgrp() != group:
            os.setpgid(0, group)


def _no_session(address: str | None, error: Exception, folder: Path | None = None) -> RunError:
    got = first_line(error)
    if address:
        fix = "start one with `ray start --head` and give its HOST:PORT, or leave --ray-address out to use this machine"
        return RunError(f"no Ray cluster answers at {address!r}", got=got, fix=fix)
    if folder and (reason := _own_reason(folder)):
        got = f"{reason} ({got})"
    return RunError("Ray did not start on this machine", got=got, fix="--engine local needs no Ray")


def _own_reason(folder: Path) -> str:
    """The first error that Ray's own processes logged; the logs are removed with the session."""
    for name in ("gcs_server", "raylet"):
        for file in folder.glob(f"session_2*/logs/{name}.err"):
            for line in file.read_text(errors="replace").splitlines():
                if found := _LOGGED.match(line):
                    # What follows a path is its own stack.
                    return found["text"].rpartition("what(): ")[2].partition(" /")[0].strip()[:_LONGEST_REASON]
    return ""
