"""Edits on rows: the call of an arm's op, and the residual streams of some rows edited while the layers run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.engine.grid import Row
from thoughtgraft.errors import PlanError
from thoughtgraft.interventions.arms import Arm
from thoughtgraft.interventions.ops import EditContext, Op
from thoughtgraft.models.reasoner import LatentReasoner


@dataclass(frozen=True)
class Source:
    """Clean thoughts that edits draw on, on the model's device: `fed` and `mean` (of the others) [N, K, d]."""

    fed: Tensor
    mean: Tensor

    @classmethod
    def from_fed(cls, fed: Tensor) -> Source:
        """Means leave the host out; with one problem they are undefined (NaN)."""
        others = fed.shape[0] - 1
        return cls(fed, (fed.sum(0, keepdim=True) - fed) / others if others else torch.full_like(fed, torch.nan))


def check_sites(model: LatentReasoner, arms: Sequence[Arm]) -> None:
    """Raise a PlanError for the first arm that edits after a block which the model does not have."""
    depth = len(model.layers)
    for arm in arms:
        if arm.site is not None and arm.site.layer >= depth:
            raise PlanError(
                f"{model.name} has no layer {arm.site.layer}", got=arm.label, expected=f"layers 0..{depth - 1}"
            )


@dataclass(frozen=True, eq=False)
class Edited:
    """Rows of one step of the latent loop that one op edits, with their indices on the model's device.

    Attributes:
        op: The edit.
        members: Which of the step's rows [m].
        hosts: Their hosts among the source thoughts [m].
        donors: Their donors [m]; the host itself where a row has no donor.
        keys: Their cells' keys.
    """

    op: Op | None
    members: Tensor
    hosts: Tensor
    donors: Tensor
    keys: tuple[str, ...]

    @classmethod
    def of(cls, op: Op | None, members: Sequence[int], rows: Sequence[Row], device: torch.device) -> Edited:
        """The rows `members` of a step's `rows`."""
        some = [rows[i] for i in members]
        hosts = [row.host for row in some]
        donors = [row.host if row.donor is None else row.donor for row in some]
        places, of_hosts, of_donors = (torch.tensor(x, device=device) for x in (list(members), hosts, donors))
        return cls(op, places, of_hosts, of_donors, tuple(row.key for row in some))

    def apply(self, live: Tensor, slot: int, source: Source | None) -> Tensor:
        """What the op makes of its rows' vectors [m, d] at a slot of its arm.

        Raises:
            PlanError: It gave something else than vectors of their shape.
        """
        assert self.op is not None and source is not None, "an edit needs an op and source thoughts"
        context = EditContext(slot, source.fed[self.hosts], source.fed[self.donors], source.mean[self.hosts], self.keys)
        edited = self.op(live, context)
        if not isinstance(edited, Tensor):
            raise PlanError("an op gave no vectors", got=repr(edited), expected=f"a tensor {list(live.shape)}")
        if edited.shape != live.shape:
            raise PlanError("an op changed the shape", got=list(edited.shape), expected=list(live.shape))
        return edited


@contextmanager
def edited_streams(
    model: LatentReasoner, by_layer: Mapping[int, Sequence[Edited]], slot: int, source: Source | None
) -> Iterator[None]:
    """While it lasts, the layers edit the residual streams of some rows, which are fed one token each.

    Args:
        model: The model, which must run these rows in this order.
        by_layer: Which rows, after which 0-based block.
        slot: The arms' slot.
        source: Clean thoughts, for the ops.
    """

    def hook(groups: Sequence[Edited]) -> Callable[[Any, Any, Tensor], Tensor]:
        def edit(module: Any, args: Any, output: Tensor) -> Tensor:
            output = output.clone()
            for group in groups:
                live = output[group.members, 0]
                output[group.members, 0] = group.apply(live, slot, source).to(live)
            return output

        return edit

    handles = [model.layers[layer].register_forward_hook(hook(groups)) for layer, groups in by_layer.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
