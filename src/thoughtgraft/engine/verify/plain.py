"""The smallest loop around the model library's own forward: no mask, no cache, no batch, no schedule of ours.

What it shares with the rest are the adapter's `project` and the prompt's ids, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, attention_implementation


@dataclass(frozen=True)
class PlainRun:
    """What the loop's steps were fed [n, d], the thoughts as the protocol records them [n, d], first logits [V]."""

    steps: Tensor
    fed: Tensor
    logits: Tensor


@with_ieee_products
@torch.inference_mode()
def plain_run(
    model: LatentReasoner, question: str, feed: Callable[[int, Tensor], Tensor | None] = lambda step, live: live
) -> PlainRun:
    """Think once and look at the first answer token.

    Args:
        model: The model.
        question: The question; without visible padding.
        feed: `feed(step, live [d])` gives what a step of the loop is fed; None leaves it out.
    """
    prompt = model.prompt(question)
    sequence = list(model.embed(torch.tensor(prompt.ids, device=model.device)))
    steps: list[Tensor] = []

    def live(step: int) -> Tensor:
        out = model.lm.base_model(inputs_embeds=torch.stack(sequence)[None], use_cache=False)
        return model.project(out.last_hidden_state[:, -1], step)[0]

    with attention_implementation(model.lm, "sdpa"):
        for step in range(model.num_latents):
            begins = step == 0 and prompt.first is not None
            vector = feed(step, model.embed(torch.tensor(prompt.first, device=model.device)) if begins else live(step))
            if vector is not None:
                steps.append(vector)
                sequence.append(vector)
        # Where begin-of-thought is a step, thoughts are counted from the next, and the last is fed to nothing.
        fed = steps if prompt.first is None else [*steps[1:], live(len(steps))]
        sequence.append(model.embed(torch.tensor(model.end_of_thought, device=model.device)))
        logits = model.lm(inputs_embeds=torch.stack(sequence)[None], use_cache=False).logits[0, -1]
    none = sequence[0].new_zeros(0, model.d_model)
    return PlainRun(torch.stack(steps) if steps else none, torch.stack(fed) if fed else none, logits.cpu())
