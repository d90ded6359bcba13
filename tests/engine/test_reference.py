"""The oracle: a self-swap changes nothing at all, frozen slots stand still, and nothing is left behind on the model."""

from __future__ import annotations

import ast
import functools
import inspect

import pytest
import torch
from tests.engine.tiny import FAMILIES, Oracle, questions, tiny
from torch import Tensor

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine import reference
from thoughtgraft.engine.reference import ReferenceRun, reference_run
from thoughtgraft.errors import PlanError

K = 6
EVERY = pytest.mark.parametrize("family", FAMILIES)
SLOTS = [(k,) for k in range(K)] + [tuple(range(K))]


@functools.cache
def oracle(family: str, dtype: str = "float32") -> Oracle:
    model = tiny(family, dtype, max_new_tokens=4)
    return Oracle(model, [model.prompt(q) for q in questions(family)[:3]])


@EVERY
@pytest.mark.parametrize("slots", SLOTS)
def test_self_swap_changes_the_logits_by_exactly_zero(family: str, slots: tuple[int, ...]) -> None:
    runs = oracle(family)
    for host in range(2):
        clean, edited = runs.clean(host), runs.run(Arm("self", slots), host)
        assert torch.equal(edited.first_logits, clean.first_logits)
        assert torch.equal(edited.hidden, clean.hidden)
        assert edited.token_ids == clean.token_ids


@EVERY
@pytest.mark.parametrize("slot", range(K))
def test_a_donors_thought_changes_the_logits_at_every_slot(family: str, slot: int) -> None:
    runs = oracle(family)
    edited = runs.run(Arm("swap", (slot,)), 0, 1)
    assert not torch.equal(edited.first_logits, runs.clean(0).first_logits)
    assert torch.equal(edited.fed[:slot], runs.clean(0).fed[:slot])
    assert torch.equal(edited.fed[slot], runs.clean(1).fed[slot])
    assert not any(torch.equal(edited.fed[k], runs.clean(0).fed[k]) for k in range(slot, K))


@EVERY
def test_downstream_rules_leave_less_and_less_of_the_effect(family: str) -> None:
    """Recompute changes later inputs; freeze_input only what later positions compute; freeze_kv not even that."""
    runs = oracle(family, "float64")
    clean = runs.clean(0)
    recompute, inputs, kv = (
        runs.run(Arm("swap", (2,), rule), 0, 1) for rule in ("recompute", "freeze_input", "freeze_kv")
    )
    assert not torch.equal(recompute.fed[3:], clean.fed[3:])
    for run in (inputs, kv):
        assert torch.equal(run.fed[3:], clean.fed[3:])
        assert torch.equal(run.fed[2], runs.clean(1).fed[2])
    assert not torch.allclose(inputs.resid[4:, -1], clean.resid[4:, -1])
    assert torch.equal(kv.resid[4:], clean.resid[4:])
    start = len(runs.prompts[0])
    made, kept, own = ([keys[:, :, start + 3 :] for keys, *_ in run.trace.past.cache] for run in (inputs, kv, clean))
    assert all(torch.equal(a, b) for a, b in zip(kept, own, strict=True))
    assert not torch.allclose(made[-1], own[-1])
    firsts = [run.first_logits for run in (clean, recompute, inputs, kv)]
    assert not any(torch.equal(a, b) for i, a in enumerate(firsts) for b in firsts[:i])


@EVERY
@pytest.mark.parametrize("rule", ["freeze_input", "freeze_kv"])
def test_freezing_after_the_last_slot_is_recomputing(family: str, rule: str) -> None:
    runs = oracle(family)
    frozen, usual = runs.run(Arm("swap", (5,), rule), 0, 1), runs.run(Arm("swap", (5,)), 0, 1)
    assert torch.equal(frozen.first_logits, usual.first_logits)


@EVERY
def test_skip_feeds_one_thought_less_and_moves_the_next_one_forward(family: str) -> None:
    runs = oracle(family)
    clean = runs.clean(0)
    for slot in range(K):
        run = runs.run(Arm("skip", (slot,)), 0)
        assert len(run.fed) == K - 1
        assert torch.equal(run.fed[:slot], clean.fed[:slot])
        if slot < K - 1:
            assert torch.equal(run.fed[slot], clean.fed[slot + 1])
    shorter = tiny(family, "float32", num_latents=K - 1, max_new_tokens=4)
    assert torch.equal(
        runs.run(Arm("skip", (K - 1,)), 0).first_logits, reference_run(shorter, runs.prompts[0]).first_logits
    )


@EVERY
def test_truncate_is_a_model_that_is_fed_fewer_thoughts(family: str) -> None:
    runs = oracle(family)
    for slot in range(K):
        shorter = tiny(family, "float32", num_latents=slot, max_new_tokens=4)
        wanted, found = reference_run(shorter, runs.prompts[0]), runs.run(Arm("truncate", (slot,)), 0)
        assert torch.equal(found.first_logits, wanted.first_logits)
        assert found.token_ids == wanted.token_ids


@EVERY
def test_a_donors_question_and_thoughts_give_the_donors_answer(family: str) -> None:
    """All slots swapped on the donor's own question is the donor's clean run."""
    runs = oracle(family)
    donor = runs.clean(1)
    run = reference_run(
        runs.model, runs.prompts[1], schedule(Arm("swap", tuple(range(K))), K), edit=lambda slot, live: donor.fed[slot]
    )
    assert torch.equal(run.first_logits, donor.first_logits)


@EVERY
def test_visible_pads_change_the_answer_and_no_pads_do_not(family: str) -> None:
    model, question = tiny(family, "float32", protocol="official-padded", max_new_tokens=2), questions(family)[0]
    bare, none, some = (
        reference_run(model, p) for p in (model.prompt(question), model.prompt(question, 0), model.prompt(question, 3))
    )
    assert torch.equal(bare.first_logits, none.first_logits)
    assert not torch.allclose(bare.first_logits, some.first_logits)


def _forward_hooks(run: Oracle) -> int:
    return sum(len(block._forward_pre_hooks) for block in run.model.layers)


def test_hooks_and_attention_are_put_back_even_after_an_error() -> None:
    runs = oracle("codi-llama")
    runs.clean(0)
    before = runs.model.lm.config._attn_implementation

    def broken(slot: int, live: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        reference_run(runs.model, runs.prompts[0], schedule(Arm("own", (1,), op=broken), K), edit=broken)
    with pytest.raises(PlanError, match=r"the edit at step 0 changed the shape; got \[1, 3\]; expected \[1, \d+\]"):
        reference_run(runs.model, runs.prompts[0], [Action(Feed.EDIT)] * K, edit=lambda slot, live: live[:3])
    assert _forward_hooks(runs) == 0
    assert runs.model.lm.config._attn_implementation == before


def test_running_twice_gives_the_same_bits() -> None:
    runs = oracle("codi-gpt2")
    first, second = (reference_run(runs.model, runs.prompts[0]) for _ in range(2))
    assert _bits(first) == _bits(second)


def _bits(run: ReferenceRun) -> list[bytes]:
    return [t.numpy().tobytes() for t in (run.fed, run.hidden, run.first_logits)]


def test_the_oracle_shares_no_code_with_the_batched_engine() -> None:
    tree = ast.parse(inspect.getsource(reference))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    own = {name for name in imported if name.startswith("thoughtgraft.")}
    plain = ("edits.schedule", "engine.think", "models.precision", "models.reasoner")
    assert own == {f"thoughtgraft.{name}" for name in plain}
