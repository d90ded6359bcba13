"""Batches: out-of-memory loses nothing and changes no record; the planner keeps to rows and memory."""

from __future__ import annotations

import ctypes
import math
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.tiny import tiny

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine import cells, collect, run
from thoughtgraft.engine.answer import best_token
from thoughtgraft.engine.batching import Budget, packs, plan_budget, surviving
from thoughtgraft.engine.memory import free_memory, is_out_of_memory, keep_freed_memory
from thoughtgraft.errors import ModelError
from thoughtgraft.models import load
from thoughtgraft.models.load import load_model
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.problem import ProblemSet

CPU = torch.device("cpu")
PLAN = Plan(
    (Arm("baseline"), Arm("noop"), *(Arm(m, (k,)) for m in ("swap", "mean", "skip") for k in (0, 2, 5))), n_donors=3
)


def problems(n: int = 5) -> ProblemSet:
    return load_problems("arithmetic:test", n=n, seed=3)


class Memory:
    """Lets a rollout run only up to so many places (variants x problems), and counts what it refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception | None = None) -> None:
        self.most, self.error, self.refused, self.ran = most, error or torch.OutOfMemoryError("injected"), 0, 0
        for module in (cells, collect):
            monkeypatch.setattr(module, "rollout", self.rollout)

    def rollout(self, model: Any, prompts: Any, rows: Any, *args: Any, **options: Any) -> Any:
        from thoughtgraft.engine.rollout import rollout

        counts = [sum(r.problem == p for r in rows) for p in range(len(prompts))]
        if len(prompts) * max(counts) > self.most:
            self.refused += 1
            raise self.error
        self.ran += 1
        return rollout(model, prompts, rows, *args, **options)


def records(**options: Any) -> pd.DataFrame:
    return run.run(tiny("codi-gpt2", max_new_tokens=5), problems(), PLAN, progress=False, **options)


def assert_same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("most", [100, 30, 7, 1])
def test_out_of_memory_loses_nothing_and_changes_no_record(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one problem's variants alone do not fit."""
    wanted = records()
    memory = Memory(monkeypatch, most)
    found = records()
    assert_same(found, wanted)
    assert (memory.refused > 0) == (most < 100)
    assert not found["cell"].duplicated().any()


def test_a_size_that_failed_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, 8)
    records(batch_size=30)
    # One pack fails at each of 17, 8.5 ... rows; the packs behind it are cut before they run.
    assert memory.refused <= 6
    assert memory.ran >= 5 * 17 // 8


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: ..."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    ],
)
def test_every_allocators_words_are_understood(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = records()
    memory = Memory(monkeypatch, 20, error)
    assert_same(records(), wanted)
    assert memory.refused > 0


def test_other_errors_are_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, 20, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        records()
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_single_generation_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, 0)
    with pytest.raises(ModelError, match=r"a single generation does not fit in memory.*bfloat16"):
        records()


def test_what_is_finished_is_kept_when_memory_runs_out_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command continues behind it and the run is the one it would have been."""
    wanted = records(out=tmp_path / "whole", batch_size=20)
    memory = Memory(monkeypatch, 40)
    original, allowed = memory.rollout, 3

    def fails_later(*args: Any, **options: Any) -> Any:
        if memory.ran == allowed:
            memory.most = 0
        return original(*args, **options)

    monkeypatch.setattr(cells, "rollout", fails_later)
    with pytest.raises(ModelError):
        records(out=tmp_path / "cut", batch_size=20)
    kept = len(list((tmp_path / "cut" / "records").glob("*.parquet")))
    assert 0 < kept < len(list((tmp_path / "whole" / "records").glob("*.parquet")))
    memory.most, allowed = 40, -1
    found = records(out=tmp_path / "cut", batch_size=20)
    assert_same(found.drop(columns="run_id"), wanted.drop(columns="run_id"))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 50)), max_size=30),
    limit=st.integers(1, 60),
    memory=st.integers(100, 5000),
)
def test_packs_hold_everything_once_and_fit(sizes: list[tuple[int, int]], limit: int, memory: int) -> None:
    budget = Budget(limit, memory, row_bytes=10, token_bytes=3)
    items = list(range(len(sizes)))
    found = packs(items, lambda i: sizes[i][0], lambda i: sizes[i][1], budget)
    assert sorted(i for pack in found for i in pack) == items
    for pack in found:
        most, longest = (max(sizes[i][n] for i in pack) for n in (0, 1))
        assert len(pack) == 1 or budget.fits(len(pack), most, longest)


@given(counts=st.lists(st.integers(1, 40), max_size=8), most=st.integers(1, 60))
def test_surviving_runs_every_row_once(counts: list[int], most: int) -> None:
    packed = [[list(range(i * 100, i * 100 + n))] for i, n in enumerate(counts)]
    ran: list[int] = []

    def once(pack: list[list[int]]) -> None:
        if len(pack) * max(map(len, pack)) > most:
            raise torch.OutOfMemoryError
        ran.extend(row for item in pack for row in item)

    done = list(surviving(once, packed, len, cells.halved, CPU))
    assert sorted(ran) == sorted(row for pack in packed for item in pack for row in item)
    assert [row for pack in done for item in pack for row in item] == ran


def test_the_planner_knows_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("codi-llama", "float32")
    config = model.lm.config
    monkeypatch.setattr("thoughtgraft.engine.batching.free_memory", lambda device: 10**8)
    budget = plan_budget(model, "auto", 100)
    keys_values = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert budget.memory == pytest.approx(6e7)
    assert budget.row_bytes > keys_values * (6 + 32)
    assert budget.token_bytes > keys_values
    assert 1 <= budget.variants(100) <= budget.rows
    monkeypatch.setattr("thoughtgraft.engine.batching.free_memory", lambda device: 0)
    assert plan_budget(model, "auto", 100).variants(100) == 1
    monkeypatch.setattr("thoughtgraft.engine.batching.free_memory", lambda device: None)
    assert math.isinf(plan_budget(model, "auto", 100).memory)
    assert plan_budget(model, "17", 100) == Budget(17)
    for wrong in ("0", "-3", "many", 0):
        with pytest.raises(ModelError, match=r"batch size is not usable.*auto or a number"):
            plan_budget(model, wrong, 100)


def test_a_little_memory_gives_the_same_records(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = records()
    monkeypatch.setattr("thoughtgraft.engine.batching.free_memory", lambda device: 2_000_000)
    assert_same(records(), wanted)


def test_free_memory_is_the_smaller_of_machine_and_container(tmp_path: Path) -> None:
    assert (free_memory(CPU, tmp_path) or 1) > 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory(CPU, tmp_path) == 5000 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    for limit, wanted in (("max\n", 5000 * 1024), ("4000\n", 3000), ("500\n", 0)):
        (group / "memory.max").write_text(limit)
        assert free_memory(CPU, tmp_path) == wanted


def test_freed_memory_is_kept_where_the_c_library_can_be_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    library = types.SimpleNamespace(mallopt=lambda *option: asked.append(option) or 1)
    for found, wanted in ((library, True), (types.SimpleNamespace(), False)):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, found=found: found)
        assert keep_freed_memory.__wrapped__() is wanted
    assert asked == [(-3, 32 << 20), (-1, 1 << 30)]


@pytest.mark.parametrize("columns", [1, 5, 127, 128, 129, 1000])
def test_best_token_is_argmax_also_in_ties(columns: int) -> None:
    logits = torch.randint(0, 4, (50, columns), generator=torch.Generator().manual_seed(columns)).float()
    logits[0] = -torch.inf
    assert torch.equal(best_token(logits)[0], logits.argmax(-1))
    assert torch.equal(best_token(logits.bfloat16())[0], logits.argmax(-1))


def test_float64_on_mps_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load.torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ModelError, match=r"MPS.*float64.*--dtype float32"):
        load_model("tiny-codi", device="mps", dtype="float64")
