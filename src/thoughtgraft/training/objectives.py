"""What each method minimises: CODI's distillation, Coconut's curriculum, the controls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from thoughtgraft.engine.think import Past, think_on
from thoughtgraft.models.thinker import Decoding, Thinker
from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.data import IGNORE, Batch
from thoughtgraft.training.lora import GrownEmbedding

ANSWER_TOKENS = 24
"""The longest answer that is written while training."""


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


class Student(Thinker):
    """The model of an objective, as `think` takes it; its three added rows are in the family's order.

    Args:
        lm: The language model, with V + 3 embedding rows.
        num_latents: How many thoughts it is fed, K.
        tokens: Ids of begin- and end-of-thought.
        make: What thoughts are made by, from states [R, d] to vectors [R, d].
    """

    def __init__(
        self, lm: PreTrainedModel, num_latents: int, tokens: tuple[int, int], make: Callable[[Tensor], Tensor]
    ) -> None:
        self.lm, self.num_latents, self.tokens, self.make = lm, num_latents, tokens, make

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        """The thought of a state."""
        return self.make(hidden)

    @property
    def begin_of_thought(self) -> int:
        """Fed after the question."""
        return self.tokens[0]

    @property
    def end_of_thought(self) -> int:
        """Fed after the thoughts."""
        return self.tokens[1]

    def ask(self, batch: Batch) -> Past:
        """The past after the questions, before begin-of-thought."""
        return Past.of(self, batch.question, batch.question_mask)

    def think(self, asked: Past, steps: int | None = None) -> Past:
        """The past after begin-of-thought, the thoughts (K if None) and end-of-thought."""
        begun, _ = asked.read(self.embed_token(self.begin_of_thought, asked.last)[:, None])
        return think_on(begun, order=range(self.num_latents if steps is None else steps)).close()


def tail(past: Past, target: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Teacher-force `target` [B, T], padded on the right by `IGNORE`.

    Returns the logits that predict `target` [B, T, V] and each layer's states [B, T, d].
    """
    lm, real = past.model.lm, (target != IGNORE).long()
    out = lm.base_model(
        target.clamp_min(0),
        attention_mask=torch.cat([past.seen, real], 1),
        position_ids=past.next + torch.arange(target.shape[1], device=target.device),
        past_key_values=past.fork(),
        output_hidden_states=True,
    )
    return lm.lm_head(torch.cat([past.last[:, None], out.last_hidden_state[:, :-1]], 1)), out.hidden_states[1:]


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
        self.student = Student(lm, config.num_latent, (rows - 2, rows - 1), self.make)

    def make(self, hidden: Tensor) -> Tensor:
        """`prj` of states, in the type that tokens are embedded in."""
        table = self.lm.get_input_embeddings()
        embedding = table.base if isinstance(table, GrownEmbedding) else table
        return self.projection(hidden).to(embedding.weight.dtype)

    def think(self, asked: Past) -> Past:
        """The past after begin-of-thought, the thoughts and end-of-thought."""
        return self.student.think(asked)

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
        return [
            list(written.ids) for written in self.think(self.student.ask(batch)).write(Decoding(ANSWER_TOKENS, (eos,)))
        ]

    def _both_tasks(self, batch: Batch, teacher_only: bool) -> tuple[Tensor, Tensor | None, list[Tensor], list[Tensor]]:
        asked = self.student.ask(batch)
        ref_logits, states = tail(asked, batch.reasoning)
        if teacher_only:
            return ref_logits, None, [], []
        teacher = _at(states, batch.reasoning_colon)
        logits, states = tail(self.think(asked), batch.answer)
        return ref_logits, logits, teacher, _at(states, batch.answer_colon)

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
        self.student = Student(lm, config.num_latent, (rows - 3, rows - 2), lambda hidden: hidden)

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
        config = self.config
        last_stage = stage > config.max_latent_stage
        thoughts = config.num_latent if last_stage else stage * config.c_thought
        target = without_steps(batch.reasoning, self.step_end, None if last_stage else stage)
        return tail(self.student.think(self.student.ask(batch), thoughts), target)[0], target


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

    def think(self, asked: Past) -> Past:
        """The past after BOT, the K vectors and EOT, which are read at once: no state makes any of them."""
        ends = self.student.embed(torch.tensor(self.student.tokens, device=asked.last.device))
        pauses = self.projection(torch.arange(self.config.num_latent, device=asked.last.device))
        fed = torch.cat([ends[:1], pauses, ends[1:]])
        return asked.read(fed.expand(len(asked.last), -1, -1))[0]


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
        return tail(self.think(self.student.ask(batch)), batch.reasoning)[0]


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
