"""What the checks share: a model's clean run, ears at its input, float32 while they last."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.edit import Change, Custom, Edit
from thoughtgraft.edits.known import Baseline, Swap
from thoughtgraft.edits.site import slots_label
from thoughtgraft.engine.collect import encode, refuse_broken
from thoughtgraft.engine.rollout import RolloutResult, rollout
from thoughtgraft.engine.rows import Row, Source
from thoughtgraft.models.attention import ColumnCache
from thoughtgraft.models.live import as_it_is
from thoughtgraft.models.reasoner import LatentReasoner, Prompt
from thoughtgraft.tasks.problem import ProblemSet

NUDGE = 1e-2
"""The relative error of a thought that every check must be able to see."""

ROUNDINGS = 30
"""The same number computed in another order or shape is rounded differently. How much that shows in the logits depends
on the model, so it is measured: the size of the logits plus their change per relative change of the question's
embeddings, taken at a change so small that it grows as rounding does, times so many machine epsilons."""


class Bench:
    """A model with P problems on it. H hosts = the problems; each host's donor is the next problem.

    Attributes:
        model: The model.
        problems: The problems.
        tokens: The longest answer.
        prompts: Encoded together, under the model's protocol.
        base: The clean run of all of them at once.
        source: Its thoughts, what edits draw on.
    """

    def __init__(self, model: LatentReasoner, problems: ProblemSet, tokens: int) -> None:
        self.model, self.problems, self.tokens = model, problems, tokens
        self.hosts, self.slots = range(len(problems)), range(model.num_latents)
        self.donors = [(h + 1) % len(problems) for h in self.hosts]
        self.prompts = encode(model, problems)
        self.source: Source | None = None
        self.base = self.roll(self.rows(Baseline()))
        refuse_broken(self.base.hidden, self.base.failed, problems)
        self.source = Source.from_fed(self.base.fed.clone())

    def row(self, change: Change, slots: Sequence[int], host: int, donor: int | None = None) -> Row:
        """One row of a change at some slots."""
        arm = Arm(change, slots)
        actions = schedule(arm, self.model.num_latents, self.model.loop.step_of)
        return Row(host, actions, arm.edit, host, donor)

    def rows(self, change: Change, *slots: int) -> list[Row]:
        """One row for each host."""
        donors = self.donors if "donor" in change.needs else [None] * len(self.donors)
        return [self.row(change, slots, h, donors[h]) for h in self.hosts]

    def every_slot(self, change: Change) -> list[Row]:
        """One row for each slot and host, slot by slot."""
        return [row for k in self.slots for row in self.rows(change, k)]

    def roll(self, rows: Sequence[Row], prompts: Sequence[Prompt] | None = None) -> RolloutResult:
        """Run rows over these prompts (all of the bench's if None) with first logits."""
        return rollout(
            self.model,
            self.prompts if prompts is None else prompts,
            rows,
            self.source,
            max_new_tokens=self.tokens,
            keep_logits=True,
        )

    def alone(self, row: Row, prompt: Prompt | None = None) -> Tensor:
        """First logits [V] of one row, run with no other."""
        found = self.roll([replace(row, problem=0)], [self.prompts[row.problem] if prompt is None else prompt])
        return logits_of(found)[0]

    @cached_property
    def logits(self) -> Tensor:
        """The clean first logits [H, V]."""
        return logits_of(self.base)

    @cached_property
    def nudged(self) -> Tensor:
        """Largest change of the first answer logits when a saved thought comes back slightly wrong [K, H]."""
        return self.by_slot(self.roll(self.every_slot(Custom("nudged", _nudge))))

    @cached_property
    def bound(self) -> float:
        """How far apart two logits may be and still be the same number, rounded differently."""
        rows = self.rows(Baseline()) + self.every_slot(Swap())
        exact = logits_of(self.roll(rows))
        with disturbing(self.model, self.touch):
            off = logits_of(self.roll(rows))
        return self.rounding(exact, off)

    @property
    def floor(self) -> float:
        """The same for two logits of one row in one place of one batch: there rounding is the same, too."""
        return ROUNDINGS * self.epsilon * float(self.logits.abs().max())

    def touch(self, embeds: Tensor) -> Tensor:
        """The embeddings of the question [R, T, d] with a relative error of the root of the machine epsilon."""
        return embeds + math.sqrt(self.epsilon) * noise_like(embeds.flatten(0, 1), 0).view_as(embeds)

    def rounding(self, exact: Tensor, touched: Tensor) -> float:
        """What rounding may do to figures, from them and what they become when the question is touched."""
        return ROUNDINGS * self.epsilon * (float(exact.abs().max()) + gap(exact, touched) / math.sqrt(self.epsilon))

    @cached_property
    def reach(self) -> Tensor:
        """Largest difference that two very different contents of a slot make to the first logits [K, H].

        Contents: zeros, and two random vectors of ten times the thought's norm. All three run in the same place of
        the same batch, so that a slot that nothing reads gives the same bits.
        """

        def put(seed: int) -> Edit:
            def op(live: Tensor, at: EditContext) -> Tensor:
                clean = at.host()
                return 10 * noise_like(clean, seed) if seed else torch.zeros_like(clean)

            return Custom(f"content {seed}", op)

        found = [logits_of(self.roll(self.every_slot(put(seed)))) for seed in range(3)]
        gaps = torch.maximum((found[0] - found[1]).abs(), (found[1] - found[2]).abs())
        return gaps.amax(1).view(len(self.slots), -1)

    @cached_property
    def dead_slots(self) -> tuple[int, ...]:
        """Slots whose content cannot reach the output."""
        return tuple(k for k in self.slots if float(self.reach[k].max()) <= self.floor)

    @cached_property
    def shared_slots(self) -> tuple[int, ...]:
        """Slots at which every problem is fed the same vector."""
        spread = (self.base.fed - self.base.fed[:1]).abs().amax((0, 2))
        size = self.base.fed.abs().amax((0, 2))
        return tuple(k for k in self.slots if float(spread[k]) <= ROUNDINGS * self.epsilon * float(size[k]))

    @property
    def epsilon(self) -> float:
        """Machine epsilon of what the model computes in."""
        return torch.finfo(self.model.dtype).eps

    @property
    def live_slots(self) -> tuple[int, ...]:
        """All slots but the dead ones."""
        return tuple(k for k in self.slots if k not in self.dead_slots)

    def by_slot(self, found: RolloutResult) -> Tensor:
        """Largest change against the clean run [K, H] of rows made by `every_slot`."""
        change = logits_of(found) - self.logits.repeat(len(self.slots), 1)
        return change.abs().amax(1).view(len(self.slots), -1)


def _nudge(live: Tensor, at: EditContext) -> Tensor:
    """The host's own thought with a relative error of `NUDGE`."""
    own = at.host()
    return own + NUDGE * noise_like(own, at.slot)


def noise_like(vectors: Tensor, seed: int) -> Tensor:
    """Random directions [n, d] at the norms of `vectors` [n, d]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
    return vectors.norm(dim=-1, keepdim=True) * (noise / noise.norm(dim=-1, keepdim=True)).to(vectors)


def logits_of(found: RolloutResult) -> Tensor:
    """The first logits, which the bench always keeps [R, V]."""
    assert found.answers.first_logits is not None
    return found.answers.first_logits


def gap(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; infinite where only one side is a number."""
    difference = (a - b).abs()
    return float(torch.where(difference.isnan(), torch.inf, difference).max())


def slot_name(slot: int) -> str:
    """`CT3`."""
    return slots_label((slot,))


@dataclass(frozen=True)
class Call:
    """One forward pass of the network.

    Attributes:
        embeds: What it was fed [R, T, d].
        states: The final-normed states that came out [R, T, d].
        positions: The positions [R, T].
        forked: Whether the rows are variants that share a prefix.
        keys_values: What each layer wrote, keys and values [R, H, T, hd]; empty unless asked for.
    """

    embeds: Tensor
    states: Tensor
    positions: Tensor
    forked: bool
    keys_values: tuple[Tensor, ...] = ()

    @property
    def one(self) -> bool:
        """Whether each row was fed a single vector."""
        return self.embeds.shape[1] == 1


@contextmanager
def listening(model: LatentReasoner, *, keys_values: bool = False) -> Iterator[list[Call]]:
    """Write down every forward pass of the network while the block runs."""
    calls: list[Call] = []

    def heard(module: Any, args: Any, kwargs: dict[str, Any], out: Any) -> None:
        embeds, cache = kwargs["inputs_embeds"], kwargs.get("past_key_values")
        written = cache.written(embeds.shape[1]) if keys_values and isinstance(cache, ColumnCache) else ()
        forked = kwargs.get("prefix") is not None
        calls.append(
            Call(embeds.clone(), out.last_hidden_state.clone(), kwargs["position_ids"].clone(), forked, written)
        )

    handle = model.lm.base_model.register_forward_hook(heard, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def after_questions(calls: Sequence[Call], problems: int) -> tuple[Tensor, Sequence[Call]]:
    """The states at the last tokens of so many questions [P, d], the first one or more calls, and the other calls."""
    states: list[Tensor] = []
    while sum(map(len, states)) < problems:
        states.append(calls[len(states)].states[:, -1])
    return torch.cat(states), calls[len(states) :]


@contextmanager
def disturbing(model: LatentReasoner, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the questions' embeddings, the first that are looked up in the block: `change(embeds [P, T, d])`."""
    waiting = [change]

    def speak(module: Any, args: Any, output: Tensor) -> Tensor | None:
        return waiting.pop()(output) if waiting else None

    handle = model.lm.get_input_embeddings().register_forward_hook(speak)
    try:
        yield
    finally:
        handle.remove()


HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(model: LatentReasoner) -> Iterator[None]:
    """Compute in float32 for a while, where the model computes in half precision; every value is kept exactly."""
    halves = {p: p.data for part in model.parts for p in part.parameters() if p.dtype in HALF}
    try:
        for parameter, value in halves.items():
            parameter.data = value.float()
        with as_it_is(model) if halves else nullcontext():
            yield
    finally:
        for parameter, value in halves.items():
            parameter.data = value
