"""`think`: what it gives is what one pass without a loop gives, alone or among others, and so are its gradients."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine.tiny import EVERY_MODEL, FAMILIES, difference, questions, tiny
from torch import Tensor

from thoughtgraft.engine.reference import in_one_pass
from thoughtgraft.engine.think import Change, Keep, Trace, think
from thoughtgraft.errors import ModelError, PlanError
from thoughtgraft.models.reasoner import LatentReasoner

K, BOUND = 6, 1e-9
EVERY = pytest.mark.parametrize("family", EVERY_MODEL)
BOTH = pytest.mark.parametrize("family", FAMILIES)
OURS = ("official", "cot-exploration-original", "cot-exploration-fixed")


def at_once(model: LatentReasoner, trace: Trace, question: str) -> tuple[list[Tensor], Tensor]:
    """One pass over the prompt, what the steps were fed and end-of-thought: each block's states, and the final ones."""
    ids, streams = model.prompt(question).ids, list[Tensor]()
    rows = [model.embed(torch.tensor(ids)), *trace.steps, model.embed(torch.tensor([model.end_of_thought]))]
    hooks = [block.register_forward_hook(lambda module, args, out: streams.append(out)) for block in model.layers]
    try:
        final = model.lm.base_model(inputs_embeds=torch.cat(rows)[None]).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return [states[0, len(ids) - 1 :] for states in streams], final[0, len(ids) - 1 :]


@EVERY
def test_one_pass_over_what_was_fed_gives_every_state(family: str) -> None:
    model, question = tiny(family), questions(family)[0]
    layers = range(len(model.layers))
    trace = think(model, question, capture=layers)
    with torch.no_grad():
        streams, final = at_once(model, trace, question)
        made = torch.stack([model.project(state, k) for k, state in enumerate(final[:K])])
    assert trace.hidden.shape == (1, K + 1, model.d_model) and trace.resid.shape == (
        1,
        K + 1,
        len(layers),
        model.d_model,
    )
    assert difference(trace.hidden[0], final[: K + 1]) < BOUND
    assert difference(trace.fed[0], made) < BOUND
    for layer in layers:
        assert difference(trace.resid[0, :, layer], streams[layer][: K + 1]) < BOUND
    assert difference(trace.close().last, final[-1:]) < BOUND


@pytest.mark.parametrize("protocol", [*OURS, "official-padded"])
@BOTH
def test_a_problem_among_others_thinks_as_it_does_alone(family: str, protocol: str) -> None:
    model = tiny(family, protocol=protocol, max_new_tokens=5)
    pads = (2, 0, 1, 0) if protocol == "official-padded" else (0,) * 4
    prompts = [model.prompt(question, pad) for question, pad in zip(questions(family), pads, strict=False)]
    assert len({len(prompt) for prompt in prompts}) > 1
    together = think(model, prompts, capture=[0])
    answers = together.answer()
    for i, prompt in enumerate(prompts):
        alone = think(model, prompt, capture=[0])
        for a, b in ((together.fed, alone.fed), (together.hidden, alone.hidden), (together.resid, alone.resid)):
            assert difference(a[i], b[0]) < BOUND * max(1, float(b.abs().max()))
        assert alone.answer() == [answers[i]]
        first = in_one_pass(model, prompt, torch.cat(alone.steps))
        assert difference(model.unembed(together.close().last[i]), first) < BOUND


@EVERY
def test_answers_are_greedy_and_teacher_forcing_predicts_them(family: str) -> None:
    model = tiny(family, max_new_tokens=5)
    trace = think(model, questions(family)[:3])
    for i, written in enumerate(trace.answer()):
        ids = torch.tensor([written.ids] * 3)
        best = trace.logits(ids)[i]
        best[:, list(model.forbidden_ids)] = -torch.inf
        assert best.argmax(-1).tolist() == list(written.ids)
    assert [len(written.ids) for written in trace.answer(2)] == [2, 2, 2]


def test_an_answer_ends_where_its_own_context_does() -> None:
    model, asked = tiny("codi-gpt2", max_new_tokens=500), questions("codi-gpt2")[:2]
    together = think(model, asked).answer()
    for question, written in zip(asked, together, strict=True):
        assert think(model, question).answer() == [written] and not written.stopped
        assert len(model.prompt(question)) + K + 1 + len(written.ids) == model.max_positions
    assert len(together[0].ids) != len(together[1].ids)


def slope(f: Callable[[float], Tensor], eps: float = 1e-5) -> float:
    return float((f(eps) - f(-eps)) / (2 * eps))


@pytest.mark.parametrize("layer", [None, 0, 1])
@EVERY
def test_gradients_pass_through_every_later_thought(family: str, layer: int | None) -> None:
    """With respect to what a step was fed, or the stream after a block, against a central difference."""
    model, question, step = tiny(family), questions(family)[1], 1
    way = torch.randn(1, model.d_model, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def logit(trace: Trace) -> Tensor:
        return trace.logits(torch.tensor([[0, 3]]))[0, 1, 7]

    def moved(eps: float) -> Tensor:
        return logit(think(model, question, edits=[Change(step, lambda live: live + eps * way, layer)]))

    trace = think(model, question, capture=[0, 1], grad=True)
    node = trace.steps[step] if layer is None else trace.streams[step + 1, layer]
    found, *others = torch.autograd.grad(logit(trace), (node, *trace.steps, *trace.streams.values()), allow_unused=True)
    assert float((found * way).sum()) == pytest.approx(slope(moved), rel=1e-5, abs=1e-8)
    assert all(other is not None and other.abs().max() > 0 for other in others)
    assert not think(model, question).fed.requires_grad and trace.fed.requires_grad


@EVERY
def test_an_edits_own_numbers_get_gradients_and_a_constant_begins_the_graph_anew(family: str) -> None:
    model, question = tiny(family), questions(family)[1]
    steer = torch.full((1, model.d_model), 0.1, dtype=torch.float64, requires_grad=True)
    edits = [Change(2, lambda live: 0 * live.detach() + steer), Change(4, torch.zeros_like)]
    trace = think(model, question, grad=True, edits=edits)
    found = torch.autograd.grad(trace.close().last[0, 0], (steer, trace.steps[2], trace.steps[0], trace.steps[4]))
    assert torch.equal(found[0], found[1]) and all(one.abs().max() > 0 for one in found)


@EVERY
def test_weights_get_the_gradients_of_one_pass_where_nothing_is_fed_back(family: str) -> None:
    model, question = tiny(family, num_latents=0), questions(family)[2]
    weight = model.layers[0].get_parameter(
        next(name for name, _ in model.layers[0].named_parameters() if "weight" in name)
    )
    target = torch.tensor([[4, 9, 2]])
    weight.requires_grad_(True)
    try:
        mine = think(model, question, grad=True).logits(target)
        [found] = torch.autograd.grad(mine.logsumexp(-1).sum(), weight)
        ids = torch.tensor([[*model.prompt(question).ids, model.end_of_thought, *target[0, :-1]]])
        whole = model.lm(ids).logits[:, -3:]
        [wanted] = torch.autograd.grad(whole.logsumexp(-1).sum(), weight)
    finally:
        weight.requires_grad_(False)
    assert difference(mine.detach(), whole.detach()) < BOUND
    assert difference(found, wanted) < 1e-8 and wanted.abs().max() > 1e-4


def test_fewer_steps_are_a_model_that_is_fed_fewer_and_kept_ones_are_anothers() -> None:
    model, question = tiny("codi-llama"), questions("codi-llama")[0]
    assert torch.equal(
        think(model, question, order=range(2)).fed, think(tiny("codi-llama", num_latents=2), question).fed
    )
    clean = think(model, question, capture=[1])
    kept = think(
        model, question, capture=[1], edits=[Change(0, torch.zeros_like), *(Keep(k, clean) for k in range(1, K))]
    )
    assert torch.equal(kept.fed[:, 1:], clean.fed[:, 1:]) and not kept.fed[:, 0].any()
    assert torch.equal(kept.hidden[:, 2:], clean.hidden[:, 2:]) and torch.equal(kept.resid[:, 2:], clean.resid[:, 2:])
    assert difference(kept.close().last, clean.close().last) > 1e-6


def test_a_past_stays_as_it_is_and_hooks_do_not_stay() -> None:
    model, question = tiny("codi-gpt2"), questions("codi-gpt2")[0]
    trace = think(model, question)
    columns = [tuple(keys.shape) for keys, *_ in trace.start.cache]
    assert torch.equal(trace.close().last, trace.close().last)
    assert trace.answer(3) == trace.answer(3)
    assert [tuple(keys.shape) for keys, *_ in trace.start.cache] == columns

    def broken(live: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        think(model, question, edits=[Change(1, broken, 0)])
    assert not any(block._forward_hooks for block in model.layers)


def test_what_cannot_be_is_refused_in_words() -> None:
    model, question = tiny("codi-gpt2"), questions("codi-gpt2")[0]
    with pytest.raises(PlanError, match=r"the edit at step 2 changed the shape; got \[48\]; expected \[1, 48\]"):
        think(model, question, edits=[Change(2, lambda live: live[0])])
    with pytest.raises(ModelError, match=r"problem 1 of the batch is too long for"):
        think(model, [question, question * 40])
    for wrong in ({"capture": [0, 3]}, {"edits": [Change(0, torch.zeros_like, 3)]}):
        with pytest.raises(PlanError, match=r"has no layer 3; expected layers 0\.\.2"):
            think(model, question, **wrong)
    with pytest.raises(ModelError, match="expected a model that load_model gave"):
        think("tiny-codi", question)  # type: ignore[arg-type]


def test_what_the_documentation_shows_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text.partition("## Step by step")[2].partition("\n## ")[0], re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["trace"].fed.shape == (1, K, 128) and len(found["gradients"]) == K


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"edits": [Change(9, torch.zeros_like)]}, "an edit acts at a step that there is not; got 9; expected 0..5"),
        ({"edits": [Change(-1, torch.zeros_like)]}, "the step of an edit is not usable; got -1"),
        ({"edits": [Change(1, 3)]}, "the edit of a Change is a function; got 3"),
        ({"edits": [3]}, "one of the edits is none; got 3"),
        ({"prompts": []}, "there is nothing to think about"),
        ({"prompts": 3}, "wrong kind of value for the prompts|the prompts is not usable|the prompts"),
    ],
)
def test_what_would_change_nothing_or_fail_on_the_way_is_refused(asked: dict[str, Any], message: str) -> None:
    model = tiny("codi-gpt2")
    with pytest.raises(PlanError, match=message):
        think(model, **({"prompts": questions("codi-gpt2")[:1]} | asked))
