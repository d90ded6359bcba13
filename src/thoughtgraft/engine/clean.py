"""The clean run: each question is encoded once and its thoughts are thought once, for all variants of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.models.prefix import ColumnCache
from thoughtgraft.models.reasoner import LatentReasoner, Prompt
from thoughtgraft.models.unread import last_token_alone

# Tokens of questions that are encoded at a time: more are not faster, take more memory and differ more in length.
CPU_TOKENS, GPU_TOKENS = 512, 1 << 15


@dataclass
class CleanState:
    """The state after the clean thoughts: P rows of keys and values, and what may be seen of them."""

    cache: ColumnCache
    question_bias: Tensor  # [P, L]
    next_position: Tensor  # [P], of slot 0
    steps: Tensor  # [P, K, d], what each step of the loop is fed: `fed`, or begin-of-thought and all but the last
    fed: Tensor
    hidden: Tensor


def think_clean(model: LatentReasoner, prompts: Sequence[Prompt]) -> CleanState:
    """Encode P questions and think their clean thoughts, under the attention `ATTENTION`.

    The layers run over the questions, some at a time, whose last column is begin-of-thought, then over all of them once
    for each slot.
    """
    device, k = model.device, model.num_latents
    length = max(map(len, prompts))
    next_position = torch.tensor([len(p) for p in prompts], device=device)
    empty = length - next_position  # columns before each prompt
    bot = torch.tensor([p.first for p in prompts], device=device) if model.protocol.starts_with_bot else None
    cache = ColumnCache(len(prompts), length + k)
    hidden = [_encode(model, prompts, next_position, cache)]
    # Visible pads count from here on.
    question_bias = additive(torch.arange(length, device=device) >= empty[:, None], model.dtype)
    step_mask = torch.cat([question_bias, question_bias.new_zeros(len(prompts), k)], 1)[:, None, None]
    # What the loop's first step is fed where the protocol says so; else it is the first thought.
    first = None if bot is None else model.embed(bot)
    steps: list[Tensor] = []
    for slot in range(k):
        steps.append(model.project(hidden[-1], slot) if slot or first is None else first)
        out = model.forward(
            steps[-1][:, None],
            next_position[:, None] + slot,
            step_mask[..., : length + slot + 1],
            cache.at(length + slot),
        )
        hidden.append(out[:, 0])
    fed = steps
    if first is not None:
        # The state at the question's last word makes no thought; that of the last step makes one that nothing is fed.
        hidden = hidden[1:]
        fed = [*steps[1:], *(model.project(state, k - 1) for state in hidden[-1:])]
    none = next_position.new_zeros(len(prompts), 0, model.d_model, dtype=model.dtype)
    vectors = [torch.stack(x, 1) if x else none for x in (steps, fed, hidden)]
    return CleanState(cache, question_bias, next_position, *vectors)


def _encode(model: LatentReasoner, prompts: Sequence[Prompt], lengths: Tensor, cache: ColumnCache) -> Tensor:
    """Encode questions of `lengths` [P] so that all end at the same column; the states at their last tokens [P, d]."""
    device, longest = model.device, max(map(len, prompts))
    ids = torch.tensor([(model.pad_id,) * (longest - len(p)) + p.ids for p in prompts], device=device)
    pads = torch.tensor([p.pad for p in prompts], device=device)
    embeds, states = model.embed(ids), []
    for part in _parts([len(p) for p in prompts], CPU_TOKENS if device.type == "cpu" else GPU_TOKENS):
        width = max(map(len, prompts[part]))
        empty = width - lengths[part]
        with last_token_alone(model.layers[-1]):
            out = model.forward(
                embeds[part, longest - width :],
                (torch.arange(width, device=device) - empty[:, None]).clamp_min(0),
                _question_mask(width, empty, pads[part], model.dtype),
                cache.at(longest - width, part, first=longest - width),
            )
        states.append(out[:, -1])
    return torch.cat(states)


def _parts(lengths: Sequence[int], most: int) -> Iterator[slice]:
    """Neighbours that together have at most so many tokens, filled up to the longest; one alone where it has more."""
    start = longest = 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if i > start and (i + 1 - start) * longest > most:
            yield slice(start, i)
            start, longest = i, length
    yield slice(start, len(lengths))


def _question_mask(length: int, empty: Tensor, pads: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask [P, 1, L, L]: causal over each prompt's real tokens.

    A visible pad's row is masked everywhere in its prompt by one finite number, so its attention is uniform,
    as in the official code on a CPU. Rows before a prompt see only themselves and are never looked at.
    """
    columns = torch.arange(length, device=empty.device)
    row, column = columns[:, None], columns[None]
    start, real = empty[:, None, None], (empty + pads)[:, None, None]
    sees = (column <= row) & (column >= real) | (column == row) & (row < start)
    mask = torch.zeros(sees.shape, dtype=dtype, device=empty.device).masked_fill_(~sees, -torch.inf)
    mask.masked_fill_((row >= start) & (row < real) & (column >= start), torch.finfo(dtype).min)
    return mask[:, None]


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where visible, else a number so low that its weight is exactly 0 beside anything visible."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)
