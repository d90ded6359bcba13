"""The smallest loop around the model library's own forward: no mask, no cache, no batch, no schedule of ours.

What it shares with the rest are the adapter's `project` and the prompt's ids, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.models.reasoner import LatentReasoner, attention_implementation


@dataclass(frozen=True)
class PlainRun:
    """What was fed [n, d], and the first answer logits [V]."""

    fed: Tensor
    logits: Tensor


@torch.inference_mode()
def plain_run(
    model: LatentReasoner, question: str, feed: Callable[[int, Tensor], Tensor | None] = lambda slot, live: live
) -> PlainRun:
    """Think once and look at the first answer token.

    Args:
        model: The model.
        question: The question; without visible padding.
        feed: `feed(slot, live [d])` gives what the slot is fed; None leaves it out.
    """
    sequence = list(model.embed(torch.tensor(model.question_ids(question), device=model.device)))
    fed: list[Tensor] = []
    with attention_implementation(model.lm, "sdpa"):
        for slot in range(model.num_latents):
            out = model.lm.base_model(inputs_embeds=torch.stack(sequence)[None], use_cache=False)
            vector = feed(slot, model.project(out.last_hidden_state[:, -1])[0])
            if vector is not None:
                fed.append(vector)
                sequence.append(vector)
        sequence.append(model.embed(torch.tensor(model.end_of_thought, device=model.device)))
        logits = model.lm(inputs_embeds=torch.stack(sequence)[None], use_cache=False).logits[0, -1]
    return PlainRun(torch.stack(fed) if fed else sequence[0].new_zeros(0, model.d_model), logits.cpu())
