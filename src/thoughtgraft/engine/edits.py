"""Edits on rows: the call of an arm's op, and the residual streams of some rows edited while the layers run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thoughtgraft.engine.grid import Row
from thoughtgraft.errors import ModelError, PlanError
from thoughtgraft.interventions.ops import EditContext, Op
from thoughtgraft.interventions.plan import Arm
from thoughtgraft.interventions.schedule import Feed
from thoughtgraft.models.reasoner import LatentReasoner

if TYPE_CHECKING:
    from thoughtgraft.engine.rollout import Source


def check_sites(model: LatentReasoner, arms: Sequence[Arm]) -> None:
    """Raise a PlanError for the first arm that edits after a block which the model does not have."""
    depth = len(model.layers)
    for arm in arms:
        if arm.site is not None and arm.site.layer >= depth:
            raise PlanError(
                f"{model.name} has no layer {arm.site.layer}", got=arm.label, expected=f"layers 0..{depth - 1}"
            )


def apply_op(op: Op | None, live: Tensor, rows: Sequence[Row], slot: int, source: Source | None) -> Tensor:
    """What the op makes of its rows' vectors [n, d] at a slot of its arm.

    Raises:
        ModelError: It changed their shape.
    """
    assert op is not None and source is not None, "an edit needs an op and source thoughts"
    hosts = torch.tensor([row.host for row in rows], device=live.device)
    donors = torch.tensor([row.host if row.donor is None else row.donor for row in rows], device=live.device)
    keys = tuple(row.key for row in rows)
    edited = op(live, EditContext(slot, source.fed[hosts], source.fed[donors], source.mean[hosts], keys))
    if edited.shape != live.shape:
        raise ModelError("an op changed the shape", got=tuple(edited.shape), expected=tuple(live.shape))
    return edited


@contextmanager
def edited_streams(
    model: LatentReasoner, rows: Sequence[Row], slot: int, delay: int, source: Source | None
) -> Iterator[None]:
    """While it lasts, the layers edit the streams of those rows whose arm asks for it at this step.

    Args:
        model: The model, which must run these rows in this order, one token each.
        rows: The rows.
        slot: The step of the latent loop.
        delay: By how many steps the protocol has an arm's slot come earlier.
        source: Clean thoughts, for the ops.
    """
    by_layer: dict[int, dict[Op | None, list[int]]] = {}
    for i, row in enumerate(rows):
        if row.layer is not None and row.actions[slot].feed is Feed.EDIT:
            by_layer.setdefault(row.layer, {}).setdefault(row.op, []).append(i)

    def hook(by_op: dict[Op | None, list[int]]) -> Callable[[Any, Any, Tensor], Tensor]:
        def edit(module: Any, args: Any, output: Tensor) -> Tensor:
            output = output.clone()
            for op, members in by_op.items():
                live = output[members, 0]
                output[members, 0] = apply_op(op, live, [rows[i] for i in members], slot - delay, source).to(live)
            return output

        return edit

    handles = [model.layers[layer].register_forward_hook(hook(by_op)) for layer, by_op in by_layer.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
