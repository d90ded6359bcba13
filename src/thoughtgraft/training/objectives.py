"""What each method minimises: CODI's distillation, Coconut's curriculum, the controls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
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


def parameter_count(objective: Objective) -> int:
    """Weights that are trained; tied ones count once."""
    return sum(p.numel() for p in objective.parameters() if p.requires_grad)


@torch.no_grad()
def forward_flops(objective: Objective, batch: Batch, steps: int) -> int:
    """Floating-point operations of all forward passes of a training, matrix products only.

    Steps of one phase cost the same on the same problems, so each phase is counted once, on `batch`, and scaled to the
    recipe's batch. A backward pass costs about twice its forward pass, for every method.

    Args:
        objective: The model with its losses.
        batch: Problems like those that it was trained on.
        steps: Optimizer steps taken.
    """
    config, device = objective.config, next(objective.parameters()).device
    seen = config.per_device_train_batch_size * config.gradient_accumulation_steps
    share = seen / len(batch.question)
    phases = Counter(objective.phase(step) for step in range(steps))
    first = {phase: next(s for s in range(steps) if objective.phase(s) == phase) for phase in phases}
    total = 0.0
    for phase, count in phases.items():
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.bf16)
        with FlopCounterMode(display=False) as counter, autocast:
            objective(batch.to(device), first[phase])
        total += count * share * counter.get_total_flops()
    return round(total)
