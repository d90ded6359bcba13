"""The forked thoughts: rows that differ from their clean run are fed, slot by slot, what their arms ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.engine.clean import CleanState
from thoughtgraft.engine.edits import Edited, EditLog, Source, edited_streams
from thoughtgraft.engine.grid import Grid, Row
from thoughtgraft.interventions.ops import Op
from thoughtgraft.interventions.schedule import Feed
from thoughtgraft.models.prefix import ColumnCache, Prefix
from thoughtgraft.models.reasoner import LatentReasoner

Alike = tuple[Op | None, bool]
"""What rows share that are edited in one call: the op, and whether they have no donor."""


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
            groups.setdefault((row.op, row.donor is None), []).append(i)

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
        slot, arm_slot = step.slot, step.slot - model.protocol.edit_delay
        live = clean.steps[step.problems, slot]
        if step.ran is not None:
            made = model.project(last[step.places], slot)
            if step.ahead is not None:
                made = torch.where(step.ahead, model.project(last[step.places], slot + 1), made)
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
