"""The certificate passes on honest models and fails, with the right check, when a known mistake is planted."""

from __future__ import annotations

import pytest
import torch
from tests.engine.tiny import EVERY_MODEL, loaded, questions

from thoughtgraft.engine import rollout as rollout_module
from thoughtgraft.engine import verify as verify_module
from thoughtgraft.engine.verify import verify
from thoughtgraft.errors import PlanError
from thoughtgraft.interventions import ops
from thoughtgraft.models import prefix as prefix_module
from thoughtgraft.problems import Problem, ProblemSet


def problems(family: str) -> ProblemSet:
    return ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions(family)[:4])))


def failed(family: str) -> set[str]:
    certificate = verify(loaded(family, "float64"), problems(family))
    return {check.name for check in certificate.checks if not check.passed}


@pytest.mark.parametrize("family", EVERY_MODEL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_honest_models_pass_every_check(family, dtype):
    certificate = verify(loaded(family, dtype), problems(family))
    assert certificate.passed, [(c.name, c.figure, c.threshold) for c in certificate.checks]
    assert certificate.to_json()["checks"][0]["figure"] == certificate.checks[0].figure


def test_a_shifted_index_is_caught_by_the_self_swap(monkeypatch):
    """The origin's mistake: what is written at slot k was read at slot k - 1."""

    def shifted(live, context):
        return context.host[:, max(context.slot - 1, 0)]

    monkeypatch.setitem(ops.OPS, "self", shifted)
    assert "self-swap identity" in failed("codi-llama")


def test_a_swap_that_does_nothing_is_caught(monkeypatch):
    monkeypatch.setitem(ops.OPS, "swap", lambda live, context: live)
    assert "donor swaps reach the logits" in failed("codi-llama")


def test_a_swap_from_the_next_slot_is_caught_by_the_reference(monkeypatch):
    def ahead(live, context):
        return context.donor[:, min(context.slot + 1, context.donor.shape[1] - 1)]

    monkeypatch.setitem(ops.OPS, "swap", ahead)
    assert {"transplant", "fast equals reference"} <= failed("codi-gpt2")


def test_visible_padding_is_caught_by_batch_invariance(monkeypatch):
    honest = rollout_module._question_mask

    def leaky(length, empty, pads, dtype):
        return honest(length, torch.zeros_like(empty), pads, dtype)

    monkeypatch.setattr(rollout_module, "_question_mask", leaky)
    assert "batch invariance" in failed("codi-llama")


def test_a_prefix_that_is_written_to_is_caught(monkeypatch):
    """A stale cache: the edited rows' attention spoils what the next run would read if it were shared."""
    honest = prefix_module.prefix_attention

    def spoiling(module, query, key, value, attention_mask, scaling=None, dropout=0.0, prefix=None, **rest):
        if prefix is not None:
            prefix.cache.keys[module.layer_idx].mul_(1.01)
        return honest(module, query, key, value, attention_mask, scaling, dropout, prefix, **rest)

    from transformers import AttentionInterface

    AttentionInterface.register(prefix_module.ATTENTION, spoiling)
    try:
        assert failed("codi-llama")
    finally:
        AttentionInterface.register(prefix_module.ATTENTION, honest)


def test_a_bound_too_wide_to_fail_is_itself_a_failure(monkeypatch):
    monkeypatch.setattr(verify_module, "_ROUNDINGS", 1e18)
    assert "the checks can fail" in failed("codi-gpt2")


def test_one_problem_or_no_thought_is_a_clear_error():
    with pytest.raises(PlanError, match=r"1 problems.*expected at least 2 problems"):
        verify(loaded("codi-gpt2", "float64"), problems("codi-gpt2")[:1])
