"""What a method asks of the model: the losses of a batch; and the passes that all methods are made of.

Shapes: B problems, T tokens of a tail, V embedding rows, d = d_model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.data import IGNORE, Batch


class Objective(nn.Module, ABC):
    """A language model with V + 3 embedding rows and one method's losses."""

    def __init__(self, lm: PreTrainedModel, config: TrainingConfig) -> None:
        super().__init__()
        self.lm, self.config = lm, config

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Losses by name at a 0-based optimizer step; `loss` is minimised."""

    def phase(self, step: int) -> int:
        """A number that steps of equal cost share, of a 0-based optimizer step."""
        return int(step >= self.config.teacher_steps)

    def answers(self, batch: Batch, eos: int) -> list[list[int]]:
        """What the model writes greedily from its thoughts, as ids without the end; empty where it has none."""
        return []

    @abstractmethod
    def exact(self, batch: Batch) -> dict[str, Tensor]:
        """Whether greedy decoding would write each target, by kind of answer: booleans [B]."""


def encode(lm: PreTrainedModel, batch: Batch) -> tuple[DynamicCache, Tensor, Tensor, Tensor]:
    """Run the questions; returns the cache, mask, next position [B, 1] and the last token's state [B, 1, d]."""
    mask = batch.question_mask
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    out = lm.base_model(batch.question, attention_mask=mask, position_ids=positions, use_cache=True)
    return out.past_key_values, mask, mask.sum(1, keepdim=True), out.last_hidden_state[:, -1:]


def tail(
    lm: PreTrainedModel, cache: DynamicCache, mask: Tensor, length: Tensor, last: Tensor, target: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Teacher-force `target` [B, T] after the state `last` [B, 1, d] of the token before it.

    Returns the logits that predict `target` [B, T, V] and each layer's states [B, T, d].
    """
    real = (target != IGNORE).long()
    out = lm.base_model(
        target.clamp_min(0),
        attention_mask=torch.cat([mask, real], 1),
        position_ids=length + torch.arange(target.shape[1], device=target.device),
        past_key_values=fork(cache),
        output_hidden_states=True,
    )
    return lm.lm_head(torch.cat([last, out.last_hidden_state[:, :-1]], 1)), out.hidden_states[1:]


def greedy(
    lm: PreTrainedModel, cache: DynamicCache, mask: Tensor, length: Tensor, last: Tensor, eos: int, limit: int = 24
) -> list[list[int]]:
    """Write greedily after the state `last` [B, 1, d], at most `limit` tokens; returns ids up to `eos`."""
    written: list[Tensor] = []
    for _ in range(limit):
        written.append(lm.lm_head(last).argmax(-1))
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], 1)
        out = lm.base_model(written[-1], attention_mask=mask, position_ids=length, past_key_values=cache)
        length, last = length + 1, out.last_hidden_state
    rows = torch.cat(written, 1).tolist()
    return [row[: row.index(eos)] if eos in row else row for row in rows]


def fork(cache: DynamicCache) -> DynamicCache:
    """A cache that starts from the same keys and values; growing one leaves the other as it was."""
    return DynamicCache(ddp_cache_data=[(layer.keys, layer.values) for layer in cache.layers])


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the tokens of `target` [B, T] that are not padding; `logits` [B, T, V]."""
    return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORE)


def all_argmax(logits: Tensor, target: Tensor) -> Tensor:
    """Whether every token of a row of `target` [B, T] is the most likely one [B]."""
    return ((logits.argmax(-1) == target) | (target == IGNORE)).all(1)
