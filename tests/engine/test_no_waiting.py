"""While thoughts and answers are made, the host never waits for the device.

The steps run on the meta device, which holds no numbers: whatever would read one back raises, and tensors on the host
stand out among the operators' arguments. (Python lists as indices are copied where no dispatcher sees it.)
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.engine.tiny import FAMILIES, Case, own_op, questions, run_cases, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.site import Resid
from thoughtgraft.engine import answer as decode
from thoughtgraft.engine.latents import plan_steps, think_clean, think_forked
from thoughtgraft.engine.rollout import shared_bias
from thoughtgraft.engine.rows import EditLog, Grid, Source
from thoughtgraft.models.attention import ATTENTION, ColumnCache, Prefix
from thoughtgraft.models.reasoner import attention_implementation

K = 6
CASES = [
    Case(Arm("swap", (1,)), 0, 1),
    Case(Arm("zero", (0, 2), "freeze_input"), 1),
    Case(Arm("swap", (3,), "freeze_kv"), 0, 2),
    Case(Arm("skip", (2,)), 2),
    Case(Arm("own", (4,), op=own_op), 1, 0),
    Case(Arm("zero", (2,), site=Resid(1)), 2),
]


class Watch(TorchDispatchMode):
    """Writes down the operators that are called, and those that are given or give more than a number on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.on_host: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        name = func._schema.name
        self.seen.append(name)
        if any(x.device.type == "cpu" and x.dim() > 0 for x in tensors):
            self.on_host.append(name)
        return out


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_thoughts_and_answers_are_made_without_reading_anything_back(family: str) -> None:
    model = tiny(family, "float32", max_new_tokens=5)
    prompts = [model.prompt(q) for q in questions(family)[:3]]
    # A copy: the tests of a family share its weights.
    model.checkpoint = replace(model.checkpoint, feeder=deepcopy(model.checkpoint.feeder).to("meta"))
    model.lm = deepcopy(model.lm).to("meta")
    device = torch.device("meta")
    assert model.device == device
    grid = Grid([case.row(K) for case in CASES], len(prompts), K, device)
    steps = plan_steps(grid, K, device)
    source = Source.from_fed(torch.empty(3, K, model.d_model, device=device))
    with attention_implementation(model.lm, ATTENTION):
        clean = think_clean(model, prompts)
        cache = ColumnCache(len(grid.rows), K + 5, by_column=True)
        prefix = Prefix(clean.cache, shared_bias(clean, grid))
        bias = torch.zeros(len(grid.rows), K, device=device)
        log = EditLog(len(grid.rows), model)
        with Watch() as forked:
            think_forked(model, clean, steps, cache, prefix, bias, source, log)
        positions = torch.zeros(len(grid.rows), dtype=torch.long, device=device)
        state = decode.begin(model, grid, cache, prefix, bias, positions, 5, log.failures)
        eos = torch.tensor(model.decoding.ends, device=device)
        with Watch() as written:
            for _ in range(3):
                decode.write_token(model, state, eos)
    assert forked.on_host == written.on_host == []
    assert len(forked.seen) > 100 < len(written.seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_looking_less_often_at_which_rows_have_ended_changes_no_answer(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(family, max_new_tokens=7)
    prompts = [model.prompt(q) for q in questions(family)[:3]]
    source = Source.from_fed(run_cases(model, prompts, [], None).fed.clone())
    wanted = run_cases(model, prompts, CASES, source).answers
    monkeypatch.setattr(decode, "look_every", lambda device: 4)
    found = run_cases(model, prompts, CASES, source).answers
    assert found.token_ids == wanted.token_ids
    assert found.stopped == wanted.stopped
