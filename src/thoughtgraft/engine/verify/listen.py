"""Listening and speaking at the model's input: what the network is really fed, below engine and adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.models.prefix import ColumnCache
from thoughtgraft.models.reasoner import LatentReasoner


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
