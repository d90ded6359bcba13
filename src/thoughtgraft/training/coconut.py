"""Coconut's curriculum: written steps are replaced by continuous thoughts, one stage after the other.

Source: Hao et al. 2024, "Training Large Language Models to Reason in a Continuous Latent Space" (arXiv 2412.06769).
Stage s leaves out the first s steps and feeds s * c_thought thoughts in their place; after the last stage no written
step is left. Only what is still written is trained on.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.data import IGNORE, Batch
from thoughtgraft.training.objective import Objective, all_argmax, cross_entropy, encode, tail


class CoconutObjective(Objective):
    """Coconut's loss for one batch.

    Args:
        lm: A causal LM whose embedding holds the base rows plus start, end and latent (in this order).
        step_end: Id of the token that ends a written step.
        config: The recipe.
    """

    def __init__(self, lm: PreTrainedModel, step_end: int, config: TrainingConfig) -> None:
        super().__init__(lm, config)
        self.step_end = step_end
        rows = lm.get_input_embeddings().num_embeddings
        self.start, self.end = rows - 3, rows - 2

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Losses by name: `loss`, and the same as `ref_ce` while steps are all written, else as `ce`."""
        stage = self.stage(step)
        logits, target = self._written(batch, stage)
        loss = cross_entropy(logits, target)
        return {"loss": loss, "ce" if stage else "ref_ce": loss}

    def phase(self, step: int) -> int:
        """The stage: each feeds more thoughts and writes fewer steps."""
        return self.stage(step)

    def stage(self, step: int) -> int:
        """The stage of a 0-based optimizer step: 0 while all steps are written, max_latent_stage + 1 at the end."""
        config = self.config
        if step < config.teacher_steps:
            return 0
        return min((step - config.teacher_steps) // config.steps_per_stage, config.max_latent_stage) + 1

    @torch.no_grad()
    def exact(self, batch: Batch) -> dict[str, Tensor]:
        """Whether greedy decoding would reproduce each target exactly: `explicit` [B] and `latent` [B]."""
        return {
            "explicit": all_argmax(*self._written(batch, 0)),
            "latent": all_argmax(*self._written(batch, self.config.max_latent_stage + 1)),
        }

    def _written(self, batch: Batch, stage: int) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V] of what is still written at a stage, and that text [B, T]."""
        config, embed = self.config, self.lm.get_input_embeddings()
        last_stage = stage > config.max_latent_stage
        thoughts = config.num_latent if last_stage else stage * config.c_thought
        target = without_steps(batch.reasoning, self.step_end, None if last_stage else stage)
        cache, mask, length, _ = encode(self.lm, batch)
        one = mask.new_ones(mask.shape[0], 1)
        fed = embed(one * self.start)
        for slot in range(thoughts + 2):
            mask = torch.cat([mask, one], 1)
            out = self.lm.base_model(
                inputs_embeds=fed, attention_mask=mask, position_ids=length, past_key_values=cache, use_cache=True
            )
            length = length + 1
            fed = embed(one * self.end) if slot == thoughts else out.last_hidden_state
        logits, _ = tail(self.lm, cache, mask, length, out.last_hidden_state, target)
        return logits, target


def without_steps(reasoning: Tensor, step_end: int, count: int | None) -> Tensor:
    """`reasoning` [B, T] without its first `count` steps (None: without all), moved to the left and cut."""
    ends = reasoning == step_end
    before = ends.cumsum(1) - ends.long()
    total = ends.sum(1, keepdim=True)
    dropped = (before < (total if count is None else total.clamp_max(count))).sum(1, keepdim=True)
    source = torch.arange(reasoning.shape[1], device=reasoning.device) + dropped
    moved = reasoning.gather(1, source.clamp_max(reasoning.shape[1] - 1))
    moved = moved.masked_fill(source >= reasoning.shape[1], IGNORE)
    return moved[:, : int((moved != IGNORE).sum(1).max())]
