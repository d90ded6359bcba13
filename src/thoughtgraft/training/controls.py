"""Matched controls of CODI: learned pause vectors in place of thoughts, and reasoning that is only written out.

Pause vectors: Goyal et al. 2024, "Think before you speak" (arXiv 2310.02226). `direct`, the answer with no thought at
all, needs no class of its own: it is CODI with K = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from thoughtgraft.training.codi import CodiObjective
from thoughtgraft.training.data import Batch
from thoughtgraft.training.objective import all_argmax, cross_entropy, encode, tail


class PauseObjective(CodiObjective):
    """CODI's three losses, with the same K learned vectors fed for every problem.

    The computation is CODI's at every position; only nothing is fed back. `projection` is an embedding [K, d].
    """

    def think(self, cache: DynamicCache, mask: Tensor, length: Tensor) -> tuple[DynamicCache, Tensor, Tensor, Tensor]:
        """Feed BOT, the K vectors and EOT at once; returns the cache, mask, next position and EOT's state [B, 1, d]."""
        rows, count = mask.shape[0], self.config.num_latent + 2
        embed = self.lm.get_input_embeddings()
        ends = embed(torch.tensor([self.bot, self.eot], device=mask.device))
        pauses = self.projection(torch.arange(self.config.num_latent, device=mask.device))
        fed = torch.cat([ends[:1], pauses, ends[1:]])
        mask = torch.cat([mask, mask.new_ones(rows, count)], 1)
        out = self.lm.base_model(
            inputs_embeds=fed.expand(rows, -1, -1),
            attention_mask=mask,
            position_ids=length + torch.arange(count, device=mask.device),
            past_key_values=cache,
            use_cache=True,
        )
        return cache, mask, length + count, out.last_hidden_state[:, -1:]


class CotObjective(CodiObjective):
    """One loss: the steps and the answer are written after the question, BOT and EOT; nothing is distilled."""

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Losses by name: `loss` and the same as `ref_ce`, at every step."""
        loss = cross_entropy(self._written(batch), batch.reasoning)
        return {"loss": loss, "ref_ce": loss}

    @torch.no_grad()
    def exact(self, batch: Batch) -> dict[str, Tensor]:
        """Whether greedy decoding would reproduce the steps and the answer exactly: `explicit` [B]."""
        return {"explicit": all_argmax(self._written(batch), batch.reasoning)}

    def _written(self, batch: Batch) -> Tensor:
        cache, mask, length, _ = encode(self.lm, batch)
        cache, mask, length, last = self.think(cache, mask, length)
        return tail(self.lm, cache, mask, length, last, batch.reasoning)[0]
