"""Ray: the same records as without it, also when a worker is killed; nothing is left behind or open to others."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.engine.tiny import loaded, questions, tiny

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import encode
from thoughtgraft.engine.executors import LocalExecutor, make_executor
from thoughtgraft.engine.ray import RayExecutor, Worker, make_tasks, worker_versions
from thoughtgraft.engine.run import run
from thoughtgraft.errors import MissingExtraError, ModelError, PlanError, RunError
from thoughtgraft.records.status import read_status
from thoughtgraft.tasks.numbers import extract_answer
from thoughtgraft.tasks.problem import Problem, ProblemSet

# A loaded machine may need longer to start workers than it takes until that is said.
pytestmark = pytest.mark.filterwarnings("ignore:no worker is ready")

TOKENS = 8
PLAN = Plan([Arm("baseline"), *(Arm(m, (k,)) for m in ("swap", "zero", "noise") for k in range(6))], n_donors=4, seed=3)


@pytest.fixture(scope="module")
def model():
    return loaded("codi-gpt2", "float64")


@pytest.fixture(scope="module")
def problems():
    base = [f"{q} {note}".strip() for note in ("", "Why?", "Think.") for q in questions("codi-gpt2")]
    return ProblemSet(tuple(Problem(str(i), q, extract_answer(str(i))) for i, q in enumerate(base)))


def descendants(pid: int) -> dict[int, str]:
    """Processes below this one that live, each with its command line."""
    parents, commands = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if stat[0] != "Z":
            parents[int(entry.name)], commands[int(entry.name)] = int(stat[1]), command
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= new
    return {child: commands[child] for child in found}


def listening(pids: set[int]) -> set[str]:
    """Addresses at which these processes accept TCP connections, as /proc writes them."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_killed_worker_costs_its_task_and_nothing_else(tmp_path, model, problems):
    def slow(live, context):  # long enough to be killed in
        time.sleep(0.2)
        return live + 1

    def fails(live, context):  # on the hosts whose thought begins so
        if (hit := context.host(slot=0)[:, 0] > 0).any():
            raise ValueError("on these hosts")
        return live.masked_fill(hit[:, None], 0)

    arms = (
        Arm("slow", (2,), op=slow, identity="slow"),
        *(Arm("fails", (k,), op=fails, repeats=k > 1, identity="1") for k in (1, 4)),
    )
    plan = replace(PLAN, arms=(*PLAN.arms, *arms))
    alone = run(model, problems, plan, tmp_path / "local", max_new_tokens=TOKENS, progress=False)
    before, handler, group = descendants(os.getpid()), signal.getsignal(signal.SIGTERM), os.getpgrp()
    killed: list[str] = []
    seen: list[set[str]] = []

    def watch():
        workers = {pid: name for pid, name in descendants(os.getpid()).items() if "ray::Worker" in name}
        done = read_status(tmp_path / "ray").done
        # One in the middle of a task; if there never is one, a free one, which is given a task next.
        victims = [pid for pid, name in workers.items() if "Worker.run" in name or done > len(alone) / 2]
        if done and victims and not killed:
            assert read_status(tmp_path / "ray").state == "alive"
            seen.append(listening(set(descendants(os.getpid())) - set(before)))
            killed.append(workers[victims[0]])
            os.kill(victims[0], signal.SIGKILL)

    executor = make_executor("ray", workers=2)
    with pytest.warns(UserWarning, match=r"a worker was lost .*; its \d+ cells are run again"):
        there = run(
            model, problems, plan, tmp_path / "ray", max_new_tokens=TOKENS, progress=False,
            executor=executor, watch=watch,
        )  # fmt: skip
    assert len(killed) == 1
    assert 0 < alone["error"].notna().sum() < 18 * 5, "some hosts fail, and not all"
    continuous = ["logp_gold", "dlogp_gold", "logp_donor", "kl", "fed_norm", "donor_cos"]
    packing = ["unit"]  # which records lie in one file
    exact = [name for name in alone if name not in continuous + packing]
    assert there[exact].astype(str).equals(alone[exact].astype(str)) and there["cell"].is_unique
    for name in continuous:
        assert there[name].to_numpy(float) == pytest.approx(alone[name].to_numpy(float), abs=1e-9, nan_ok=True)
    assert read_status(tmp_path / "ray").state == "finished"

    assert seen[0] and all(address[-8:] == "0100007F" for address in seen[0]), "somebody else can reach Ray"
    left = {pid: name for pid, name in descendants(os.getpid()).items() if pid not in before and "ray" in name}
    assert not left
    assert (signal.getsignal(signal.SIGTERM), os.getpgrp()) == (handler, group)
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_tasks_hold_every_cell_once_and_hosts_whole(model, problems):
    cells = PLAN.cells(problems, model.identity)
    prompts = encode(model, problems)
    per_host = len(cells) // len(problems)
    for rows, workers in ((1024, 1), (1024, 3), (3 * per_host, 1), (1, 1)):
        tasks = make_tasks(cells, prompts, rows, workers)
        assert Counter(c.key for task in tasks for c in task.cells) == Counter(c.key for c in cells)
        assert all(len({id(task) for task in tasks if any(c.host == h for c in task.cells)}) == 1 for h in range(6))
        assert len(tasks) >= min(len(problems), 4 * workers)
        assert all(len(task.cells) <= max(rows, per_host) for task in tasks)


def test_a_worker_with_another_model_or_other_packages_is_refused(model):
    recipe = loaded("codi-llama", "float64").recipe
    worker = Worker(recipe, "cpu", torch.get_num_threads(), None)
    with pytest.raises(ModelError, match=r"a worker loaded another model.*the same files"):
        worker.load(model.identity, worker_versions())
    with pytest.raises(ModelError, match=r"a worker has other packages; got .*0\.0\.1"):
        worker.load(model.identity, worker_versions() | {"torch": "0.0.1"})


def test_a_model_made_by_hand_is_refused(problems):
    hand_made = tiny("codi-gpt2")
    with pytest.raises(ModelError, match=r"made by hand.*load_model"):
        run(hand_made, problems, PLAN, max_new_tokens=TOKENS, progress=False, executor=make_executor("ray"))


def test_a_recipe_makes_the_same_model_from_another_folder(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model.recipe(device="cpu").identity == model.identity


def test_options_that_cannot_be_are_refused(monkeypatch, model):
    assert isinstance(make_executor("local"), LocalExecutor)
    with pytest.raises(PlanError, match="unknown engine; got 'spark'; expected local, ray"):
        make_executor("spark")
    with pytest.raises(PlanError, match=r"no workers; got --ray-address, --workers\. Fix: add --engine ray"):
        make_executor("local", workers=2, address="auto")
    with pytest.raises(ModelError, match=r"same kind of device.*got 1 GPUs per worker, a model on cpu.*--gpus-per"):
        RayExecutor(gpus_per_worker=1)._gpus(model)
    with pytest.raises(RunError, match=r"no room for a worker; got 4 CPUs, 0 GPUs; expected 8 CPUs and 0 GPUs"):
        RayExecutor(cpus_per_worker=8)._count({"CPU": 4.0}, 0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"'ray' is not installed\. Fix: pip install 'thoughtgraft\[ray\]'"):
        make_executor("ray")


class Unable:
    """A `ray` that cannot be started, and its processes' log says why."""

    class __spec__:
        name = "ray"

    def is_initialized(self) -> bool:
        return False

    def init(self, *, _temp_dir: str, **_: object) -> None:
        logs = Path(_temp_dir) / "session_2026-01-01" / "logs"
        logs.mkdir(parents=True)
        place = "[2026-01-01 00:00:00,1 E 7 9] (gcs_server) logging.cc:118: "
        (logs / "gcs_server.err").write_text(
            f"RAW: 1\n{place}Unhandled. what(): epoll: Too many open files /lib/x\n/lib/y\n"
        )
        raise Exception("The current node timed out during startup.\nIt could be overloaded.")  # Ray's own words


def test_a_ray_that_does_not_start_is_one_sentence_with_its_own_reason(
    model, problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", Unable())
    told = (
        r"Ray did not start on this machine; got epoll: Too many open files \(The current node timed out during "
        r"startup\.\)\. Fix: --engine local needs no Ray\.$"
    )
    with pytest.raises(RunError, match=told):
        run(model, problems, PLAN, max_new_tokens=TOKENS, progress=False, executor=RayExecutor(workers=1))


def test_a_place_that_ray_cannot_use_is_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("/proc/nowhere", "/proc/version", str(tmp_path / ("x" * 90))):
        Path(place).mkdir() if place.startswith(str(tmp_path)) else None
        monkeypatch.setenv("RAY_TMPDIR", place)
        with pytest.raises(RunError, match=rf"RAY_TMPDIR says; got {place}; expected a folder.*no longer than 27 char"):
            make_executor("ray")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert make_executor("ray", workers=2).describe()["workers"] == 2


def test_an_address_without_a_cluster_is_refused_at_once(model, problems):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    for address, message in (
        (f"127.0.0.1:{free}", "no Ray cluster answers at .*ray start --head"),
        ("me", "HOST:PORT"),
    ):
        with pytest.raises(RunError, match=message):
            run(model, problems, PLAN, max_new_tokens=TOKENS, progress=False, executor=RayExecutor(address))


def test_workers_fill_the_cluster():
    cluster = {"CPU": 64.0, "GPU": 8.0}
    assert RayExecutor()._count(cluster, 0) == 64
    assert RayExecutor(cpus_per_worker=16)._count(cluster, 0) == 4
    assert RayExecutor()._count(cluster, 1) == 8
    assert RayExecutor()._count(cluster, 0.4) == 16  # two on each: a part never spans two GPUs
    assert RayExecutor()._count(cluster, 2) == 4
    assert RayExecutor(workers=3)._count(cluster, 1) == 3
