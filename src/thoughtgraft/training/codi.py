"""CODI's objective: one model learns explicit reasoning and distils it into its continuous thoughts.

Source: Shen et al. 2025, "CODI: Compressing Chain-of-Thought into Continuous Space via
Self-Distillation" (arXiv 2502.21074). The teacher task (question, steps, answer) and the student
task (question, K thoughts, answer) share the weights; the student's hidden states at the token before
the answer's number are pulled to the teacher's over all layers. The question is encoded once for both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.data import Batch
from thoughtgraft.training.objective import Objective, all_argmax, cross_entropy, encode, fork, greedy, tail


class CodiObjective(Objective):
    """The three losses of CODI for one batch.

    Args:
        lm: A causal LM whose embedding holds the base rows plus pad, BOT and EOT (in this order).
        projection: `prj`, from hidden states [..., d] to fed vectors [..., d]; not used where no thought is fed.
        config: The recipe.
    """

    def __init__(self, lm: PreTrainedModel, projection: nn.Module, config: TrainingConfig) -> None:
        super().__init__(lm, config)
        self.projection = projection
        rows = lm.get_input_embeddings().num_embeddings
        self.bot, self.eot = rows - 2, rows - 1

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Losses by name: `loss` (their weighted sum), `ref_ce`, and after the teacher's steps `ce`, `distill`."""
        config = self.config
        teacher_only = step < config.teacher_steps
        ref_logits, logits, teacher, student = self._both_tasks(batch, teacher_only)
        losses = {"ref_ce": cross_entropy(ref_logits, batch.reasoning)}
        losses["loss"] = config.ref_loss_factor * losses["ref_ce"]
        if logits is not None:
            losses["ce"] = cross_entropy(logits, batch.answer)
            losses["distill"] = self._distill(student, teacher)
            losses["loss"] = losses["loss"] + losses["ce"] + config.distill_loss_factor * losses["distill"]
        return losses

    @torch.no_grad()
    def exact(self, batch: Batch) -> dict[str, Tensor]:
        """Whether greedy decoding would reproduce each target exactly: `explicit` [B] and `latent` [B].

        Greedy decoding writes the target if and only if every teacher-forced argmax is the target's token.
        """
        ref_logits, logits, _, _ = self._both_tasks(batch, False)
        assert logits is not None, "both tasks were run"
        return {
            "explicit": all_argmax(ref_logits, batch.reasoning),
            "latent": all_argmax(logits, batch.answer),
        }

    @torch.no_grad()
    def answers(self, batch: Batch, eos: int) -> list[list[int]]:
        """What the model writes greedily from its thoughts, as ids without the end."""
        cache, mask, length, _ = encode(self.lm, batch)
        return greedy(self.lm, *self.think(cache, mask, length), eos)

    def _both_tasks(self, batch: Batch, teacher_only: bool) -> tuple[Tensor, Tensor | None, list[Tensor], list[Tensor]]:
        cache, mask, length, last = encode(self.lm, batch)
        ref_logits, states = tail(self.lm, cache, mask, length, last, batch.reasoning)
        if teacher_only:
            return ref_logits, None, [], []
        teacher = _at(states, batch.reasoning_colon)
        cache, mask, length, last = self.think(fork(cache), mask, length)
        logits, states = tail(self.lm, cache, mask, length, last, batch.answer)
        return ref_logits, logits, teacher, _at(states, batch.answer_colon)

    def think(self, cache: DynamicCache, mask: Tensor, length: Tensor) -> tuple[DynamicCache, Tensor, Tensor, Tensor]:
        """Feed BOT, the K thoughts and EOT; returns the cache, mask, next position and EOT's state [B, 1, d]."""
        embed = self.lm.get_input_embeddings()
        rows = mask.shape[0]
        one = mask.new_ones(rows, 1)
        fed = embed(one * self.bot)
        for slot in range(self.config.num_latent + 2):
            mask = torch.cat([mask, one], 1)
            out = self.lm.base_model(
                inputs_embeds=fed, attention_mask=mask, position_ids=length, past_key_values=cache, use_cache=True
            )
            length = length + 1
            last = slot == self.config.num_latent
            fed = embed(one * self.eot) if last else self.projection(out.last_hidden_state).to(fed.dtype)
        return cache, mask, length, out.last_hidden_state

    def _distill(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        total = student[0].new_zeros((), dtype=torch.float32)
        for s, t in zip(student, teacher, strict=True):
            t = t.detach().float()
            loss = F.smooth_l1_loss(s.float(), t)
            total = total + (loss / t.std() if self.config.distill_loss_div_std else loss)
        return total / len(student)


def _at(states: tuple[Tensor, ...], column: Tensor) -> list[Tensor]:
    """Each layer's state [B, d] at one column [B] of each row."""
    rows = torch.arange(column.shape[0], device=column.device)
    return [layer[rows, column] for layer in states]
