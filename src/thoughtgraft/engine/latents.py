"""Thoughts on the fast path: clean ones once a question, then forks that differ from a slot on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.edits.schedule import Feed
from thoughtgraft.engine.rows import Edited, EditLog, Grid, Row, Source, edited_streams
from thoughtgraft.models.attention import ColumnCache, Prefix, last_token_alone
from thoughtgraft.models.reasoner import LatentReasoner, Prompt

# Tokens of questions that are encoded at a time: more are not faster, take more memory and differ more in length.
CPU_TOKENS, GPU_TOKENS = 512, 1 << 15


@dataclass
class CleanState:
    """The state after the clean thoughts: P rows of keys and values, and what may be seen of them."""

    cache: ColumnCache
    question_bias: Tensor  # [P, L]
    next_position: Tensor  # [P], of slot 0
    steps: Tensor  # [P, K, d], what each step of the loop is fed; `fed` where the loop is aligned
    fed: Tensor
    hidden: Tensor


def think_clean(model: LatentReasoner, prompts: Sequence[Prompt]) -> CleanState:
    """Encode P questions and think their clean thoughts, under the attention `ATTENTION`.

    The layers run over the questions, some at a time, whose last column is begin-of-thought, then over all of them once
    for each slot.
    """
    device, k, loop = model.device, model.num_latents, model.loop
    length = max(map(len, prompts))
    next_position = torch.tensor([len(p) for p in prompts], device=device)
    empty = length - next_position  # columns before each prompt
    cache = ColumnCache(len(prompts), length + k)
    hidden = [_encode(model, prompts, next_position, cache)]
    # Visible pads count from here on.
    question_bias = additive(torch.arange(length, device=device) >= empty[:, None], model.dtype)
    step_mask = torch.cat([question_bias, question_bias.new_zeros(len(prompts), k)], 1)[:, None, None]
    steps: list[Tensor] = []
    for step in range(k):
        steps.append(loop.feed(model, hidden[-1], step))
        out = model.forward(
            steps[-1][:, None],
            next_position[:, None] + step,
            step_mask[..., : length + step + 1],
            cache.at(length + step),
        )
        hidden.append(out[:, 0])
    fed, hidden = loop.thoughts(model, steps, hidden)
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


Alike = tuple[object, bool]
"""What rows share that are edited in one call: the edit, and whether they have no donor."""


@dataclass(frozen=True, eq=False)
class Step:
    """What the n rows that run at a slot ask for; all tensors are on the model's device.

    Attributes:
        slot: The step of the latent loop.
        places: Their grid places [n].
        where: The same for the rows' cache.
        problems: Their problems [n].
        variants: The variants that they are [n / P].
        ran: Whether each ran at the slot before [n, 1]; None at the first.
        ahead: Whether the thought that each makes is the next slot's [n, 1]; None where no row's is.
        replays: Rows that are fed a clean vector again, and its problem and slot [m] each; None where there are none.
        edits: Rows whose fed vector is edited, and which of them for the first time [f].
        streams: By 0-based block, rows whose residual stream is edited after it.
    """

    slot: int
    places: Tensor
    where: slice | Tensor
    problems: Tensor
    variants: Tensor
    ran: Tensor | None
    ahead: Tensor | None
    replays: tuple[Tensor, Tensor, Tensor] | None
    edits: Sequence[tuple[Edited, Tensor]]
    streams: Mapping[int, Sequence[Edited]]


def plan_steps(grid: Grid, num_latents: int, device: torch.device) -> list[Step]:
    """The slots at which some row runs, in order."""
    planned = (_plan_step(grid, slot, device) for slot in range(num_latents))
    return [step for step in planned if step is not None]


def _plan_step(grid: Grid, slot: int, device: torch.device) -> Step | None:
    active = grid.active(slot)
    if active is None:
        return None
    places, problems = active.tolist(), grid.n_problems
    rows = [grid.rows[place] for place in places]
    replayed: list[tuple[int, int, int]] = []
    fed: dict[Alike, list[int]] = {}
    streams: dict[int, dict[Alike, list[int]]] = {}
    for i, row in enumerate(rows):
        action = row.actions[slot]
        if action.feed is Feed.REPLAY:
            assert action.slot is not None
            replayed.append((i, places[i] % problems, action.slot))
        elif action.feed is Feed.EDIT:
            groups = fed if row.layer is None else streams.setdefault(row.layer, {})
            assert row.edit is not None
            groups.setdefault((row.edit.together, row.donor is None), []).append(i)

    def put(numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    def edited(members: list[int]) -> tuple[Edited, Tensor]:
        first = [n for n, i in enumerate(members) if _first_edit(rows[i]) == slot]
        return Edited.of(members, rows, places, device), put(first)

    on_device = active.to(device)
    ahead = grid.ahead[active, slot]
    return Step(
        slot=slot,
        places=on_device,
        where=slice(0, len(places)) if len(places) == places[-1] + 1 else on_device,
        problems=on_device % problems,
        variants=on_device[::problems] // problems,
        ran=grid.runs[active, slot - 1, None].to(device) if slot else None,
        ahead=ahead[:, None].to(device) if ahead.any() else None,
        replays=tuple(map(put, zip(*replayed, strict=True))) if replayed else None,  # type: ignore[arg-type]
        edits=[edited(members) for members in fed.values()],
        streams={
            layer: [Edited.of(members, rows, places, device) for members in groups.values()]
            for layer, groups in streams.items()
        },
    )


def _first_edit(row: Row) -> int:
    return next(slot for slot, action in enumerate(row.actions) if action.feed is Feed.EDIT)


def think_forked(
    model: LatentReasoner,
    clean: CleanState,
    steps: Sequence[Step],
    cache: ColumnCache,
    prefix: Prefix,
    own_bias: Tensor,
    source: Source | None,
    log: EditLog,
) -> None:
    """Run the steps; rows' keys and values go to `cache`, what their edits did to `log`.

    Args:
        model: The model, under the attention `ATTENTION`.
        clean: The clean run of the same problems.
        steps: From `plan_steps`.
        cache: R rows.
        prefix: What they share.
        own_bias: Additive mask over the rows' own slots [R, K].
        source: Clean thoughts, for edits.
        log: Of the R rows.
    """
    last = clean.steps.new_zeros(cache.rows, model.d_model)
    for step in steps:
        slot, arm_slot = step.slot, model.loop.slot_of(step.slot)
        live = clean.steps[step.problems, slot]
        if step.ran is not None:
            made = model.loop.feed(model, last[step.places], slot)
            if step.ahead is not None:
                made = torch.where(step.ahead, model.loop.feed(model, last[step.places], slot + 1), made)
            live = torch.where(step.ran, made, live)
        fed = _feed(step, arm_slot, live, clean, source, log)
        some = Prefix(prefix.cache, prefix.bias[:, :, step.variants])
        # Clean thoughts that `freeze_kv` keeps stand in later columns: this slot must not see them yet.
        some.bias[..., clean.question_bias.shape[1] + slot :] = torch.finfo(some.bias.dtype).min
        with edited_streams(model, step.streams, arm_slot, source, log.failures):
            out = model.forward(
                fed[:, None],
                (clean.next_position[step.problems] + slot)[:, None],
                own_bias[step.places, None, None, : slot + 1],
                cache.at(slot, step.where),
                some,
            )
        last[step.places] = out[:, 0]


def _feed(step: Step, slot: int, live: Tensor, clean: CleanState, source: Source | None, log: EditLog) -> Tensor:
    """What each row is fed [n, d]: its live vector, a replayed one, or the edit of its arm's `slot`."""
    fed = live.clone()
    if step.replays is not None:
        members, problems, slots = step.replays
        fed[members] = clean.steps[problems, slots]
    for group, first in step.edits:
        edited = group.apply(live[group.members], slot, source, log.failures)
        fed[group.members] = edited
        assert source is not None
        log.compare(group.places[first], edited[first], source.fed[group.hosts[first], slot])
    return fed
