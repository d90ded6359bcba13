"""The reference: one problem at a time, the plainest way, which the fast engine must equal.

Thoughts are made by `think`, with the library's own attention and cache; here an arm's actions become what is changed
there, and the answer is written. It shares no code with the fast engine, so that "fast equals reference" means
something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine.think import Change, Keep, Trace, think
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, Prompt, attention_implementation

Edit = Callable[[int, Tensor], Tensor]
"""`edit(slot, live [d]) -> fed [d]`, the slot being the arm's, whatever step the loop makes it act at."""


@dataclass(frozen=True)
class ReferenceRun:
    """What one generation did. K' = steps of the latent loop that were run.

    Attributes:
        trace: Its thoughts, as a batch of one.
        token_ids: The answer, without the end of sequence.
        stopped: Whether the end of sequence was written.
        first_logits: Logits of the first answer token [V].
    """

    trace: Trace
    token_ids: tuple[int, ...]
    stopped: bool
    first_logits: Tensor

    @property
    def steps(self) -> Tensor:
        """What each step was fed [K', d]."""
        steps = self.trace.steps
        return torch.cat(steps) if steps else self.trace.fed[0]

    @property
    def fed(self) -> Tensor:
        """The thoughts as the loop counts them [K', d]: the same as `steps`, unless begin-of-thought is a step."""
        return self.trace.fed[0]

    @property
    def hidden(self) -> Tensor:
        """The state each `fed` would be made from, and in most loops the last one [K'+1, d]."""
        return self.trace.hidden[0]

    @property
    def resid(self) -> Tensor:
        """The residual stream after each of L blocks, at the prompt's last token and at each step [K'+1, L, d]."""
        return self.trace.resid[0]


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
    run = [action for action in actions or () if action.feed is not Feed.ABSENT]
    order = None if actions is None else [action.due(step) for step, action in enumerate(run)]
    edits = list[Change | Keep]()
    for step, action in enumerate(run):
        if action.feed is Feed.EDIT:
            assert edit is not None, "an EDIT action needs an edit"
            edits.append(Change(step, partial(_one, edit, model.loop.slot_of(step)), layer))
        elif action.feed is Feed.REPLAY:
            assert action.slot is not None
            edits.append(Change(step, partial(_instead, _need(clean).trace.steps[action.slot])))
        elif action.feed is Feed.CLEAN and edits:
            edits.append(Keep(step, _need(clean).trace))
    with attention_implementation(model.lm, "sdpa"):
        trace = think(model, prompt, edits=edits, capture=range(len(model.layers)), order=order)
        [written] = trace.answer(max_new_tokens)
        first = model.unembed(trace.close().last)[0]
    return ReferenceRun(trace, written.ids, written.stopped, first)


@with_ieee_products
@torch.no_grad()
def in_one_pass(model: LatentReasoner, prompt: Prompt, steps: Tensor) -> Tensor:
    """First answer logits [V] where the vectors of a run's steps [K, d] are fed all at once: no loop and no cache."""
    ids, end = (torch.tensor(x, device=model.device) for x in (prompt.ids, [model.end_of_thought]))
    embeds = torch.cat([model.embed(ids), steps, model.embed(end)])[None]
    length = embeds.shape[1]
    positions, mask = torch.arange(length, device=embeds.device)[None], whole_mask(length, prompt, embeds)
    with attention_implementation(model.lm, "sdpa"):
        states = model.forward(embeds, positions, mask)
    return model.unembed(states[0, -1:])[0]


def whole_mask(length: int, prompt: Prompt, like: Tensor) -> Tensor:
    """Additive mask [1, 1, T, T] of a prompt and what follows it, of the type and device of `like`.

    Causal; inside the prompt nobody sees its visible pads, after it everybody does. A pad's own row is masked
    everywhere inside the prompt with the same finite number, which makes its attention uniform.
    """
    mask = torch.full((length, length), -torch.inf, dtype=like.dtype, device=like.device).triu(1)
    mask[prompt.pad : len(prompt), : prompt.pad] = -torch.inf
    mask[: prompt.pad, : len(prompt)] = torch.finfo(like.dtype).min
    return mask[None, None]


def _one(edit: Edit, slot: int, live: Tensor) -> Tensor:
    return edit(slot, live[0])[None]


def _instead(vector: Tensor, live: Tensor) -> Tensor:
    return vector


def _need(clean: ReferenceRun | None) -> ReferenceRun:
    assert clean is not None, "CLEAN and REPLAY slots after an edit need the clean run"
    return clean
