"""The oracle: one problem, the plainest way. No cache, no batch; every step runs the whole sequence again.

It shares no code with the fast engine, so that "fast equals reference" means something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.edits.arms import Action, Feed
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, Prompt, attention_implementation

Edit = Callable[[int, Tensor], Tensor]
"""`edit(slot, live [d]) -> fed [d]`, the slot being the arm's, whatever step the protocol makes it act at."""


@dataclass(frozen=True)
class ReferenceRun:
    """What one generation did. K' = steps of the latent loop that were run.

    Attributes:
        steps: What each step was fed [K', d].
        fed: The thoughts: the same as `steps`; where begin-of-thought is the first step, those after it and the last
            one, which nothing was fed [K', d].
        hidden: The state each `fed` would be made from, and the last one [K'+1, d]; without the last one [K', d]
            where begin-of-thought is the first step.
        token_ids: The answer, without the end of sequence.
        stopped: Whether the end of sequence was written.
        first_logits: Logits of the first answer token [V].
        layer_inputs: What each layer received at every position [layers][T, d].
    """

    steps: Tensor
    fed: Tensor
    hidden: Tensor
    token_ids: tuple[int, ...]
    stopped: bool
    first_logits: Tensor
    layer_inputs: tuple[Tensor, ...]


@with_ieee_products
@torch.no_grad()
def reference_run(
    model: LatentReasoner,
    prompt: Prompt,
    actions: Sequence[Action] | None = None,
    *,
    edit: Edit | None = None,
    layer: int | None = None,
    clean: ReferenceRun | None = None,
    max_new_tokens: int | None = None,
) -> ReferenceRun:
    """Think and answer once.

    Args:
        model: The model.
        prompt: The encoded question.
        actions: What each slot is fed; None is the clean run.
        edit: The edit of slots whose action is EDIT.
        layer: The 0-based block after which it edits the residual stream at their positions, live vectors being fed;
            None: it edits what they are fed.
        clean: The clean run, which CLEAN slots after an edit and REPLAY slots need.
        max_new_tokens: The longest answer; None takes the model's.
    """
    limit = model.max_new_tokens if max_new_tokens is None else max_new_tokens
    actions = [Action(Feed.LIVE)] * model.num_latents if actions is None else list(actions)
    start = len(prompt)
    inputs = list(model.embed(torch.tensor(prompt.ids, device=model.device)))
    frozen: dict[int, list[Tensor]] = {}
    stream = _Stream(layer, edit)
    steps: list[Tensor] = []
    hidden = [_last_state(model, inputs, prompt, frozen, stream)]
    edited = False
    for slot, action in enumerate(actions):
        if action.feed is Feed.ABSENT:
            continue
        live = model.loop.feed(model, hidden[-1][None], action.due(slot))[0]
        if slot > 0 and actions[slot - 1].feed is Feed.CLEAN and edited:
            live = _need(clean).steps[slot]
        if action.feed is Feed.EDIT:
            assert edit is not None, "an EDIT action needs an edit"
            at = model.loop.slot_of(slot)
            vector, edited = live if layer is not None else edit(at, live), True
            stream.slots[len(inputs)] = at
        elif action.feed is Feed.REPLAY:
            assert action.slot is not None
            vector, edited = _need(clean).steps[action.slot], True
        elif action.feed is Feed.CLEAN and edited:
            vector = _need(clean).steps[slot]
            frozen[start + slot] = [layer[start + slot] for layer in _need(clean).layer_inputs]
        else:
            vector = live
        steps.append(vector)
        inputs.append(vector)
        hidden.append(_last_state(model, inputs, prompt, frozen, stream))

    if model.max_positions is not None:
        limit = min(limit, model.max_positions - len(inputs) - 1)
    ids: list[int] = []
    token, first, stopped = model.end_of_thought, None, False
    recorded: list[Tensor] = []
    while True:
        inputs.append(model.embed(torch.tensor(token, device=model.device)))
        state = _last_state(model, inputs, prompt, frozen, stream, recorded if first is None else None)
        logits = model.unembed(state[None])[0]
        first = logits if first is None else first
        allowed = logits.clone()
        allowed[list(model.forbidden_ids)] = -torch.inf
        token = int(allowed.argmax())
        if token in model.eos_ids:
            stopped = True
            break
        ids.append(token)
        if len(ids) == limit:
            break
    fed, hidden = model.loop.thoughts(model, [x[None] for x in steps], [x[None] for x in hidden])
    none = inputs[0].new_zeros(0, model.d_model)
    vectors = [torch.stack(steps) if steps else none, *(torch.cat(x) if x else none for x in (fed, hidden))]
    return ReferenceRun(vectors[0], vectors[1], vectors[2], tuple(ids), stopped, first, tuple(recorded))


@dataclass
class _Stream:
    """The edit of a residual stream: after which block, and the arm's slot of each position edited so far."""

    layer: int | None
    edit: Edit | None
    slots: dict[int, int] = field(default_factory=dict)

    def hook(self, module: Any, args: Any, states: Tensor) -> Tensor:
        assert self.edit is not None
        states = states.clone()
        for position, slot in self.slots.items():
            states[0, position] = self.edit(slot, states[0, position])
        return states


def _need(clean: ReferenceRun | None) -> ReferenceRun:
    assert clean is not None, "CLEAN and REPLAY slots after an edit need the clean run"
    return clean


def _last_state(
    model: LatentReasoner,
    inputs: Sequence[Tensor],
    prompt: Prompt,
    frozen: Mapping[int, Sequence[Tensor]],
    stream: _Stream,
    record: list[Tensor] | None = None,
) -> Tensor:
    """The final-normed state [d] at the last position of the whole sequence, computed from nothing."""
    embeds = torch.stack(list(inputs))[None]
    length = embeds.shape[1]
    mask = _mask(length, prompt, embeds)
    positions = torch.arange(length, device=embeds.device)[None]
    with attention_implementation(model.lm, "sdpa"), _layer_hooks(model, frozen, stream, record):
        return model.forward(embeds, positions, mask)[0, -1]


def _mask(length: int, prompt: Prompt, like: Tensor) -> Tensor:
    """Additive mask [1, 1, T, T].

    Causal; inside the prompt nobody sees its visible pads, after it everybody does. A pad's own row is
    masked everywhere inside the prompt with the same finite number, which makes its attention
    uniform: that is what the official code's fully masked rows do on a CPU.
    """
    low = torch.finfo(like.dtype).min
    mask = torch.full((length, length), -torch.inf, dtype=like.dtype, device=like.device).triu(1)
    mask[prompt.pad : len(prompt), : prompt.pad] = -torch.inf
    mask[: prompt.pad, : len(prompt)] = low
    return mask[None, None]


@contextmanager
def _layer_hooks(
    model: LatentReasoner, frozen: Mapping[int, Sequence[Tensor]], stream: _Stream, record: list[Tensor] | None
) -> Iterator[None]:
    """Put the clean run's layer inputs, and so its keys and values, at frozen positions; edit a stream; record."""

    def hook(layer: int) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
        def replace(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            states = args[0]
            if frozen:
                states = states.clone()
                for position, layers in frozen.items():
                    states[:, position] = layers[layer]
            if record is not None:
                record.append(states[0].clone())
            return (states, *args[1:])

        return replace

    handles = [block.register_forward_pre_hook(hook(i)) for i, block in enumerate(model.layers)]
    if stream.layer is not None:
        handles.append(model.layers[stream.layer].register_forward_hook(stream.hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
