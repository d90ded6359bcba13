"""Edits on rows: the call of an arm's op, and the residual streams of some rows edited while the layers run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.engine.failures import Failures, ends_the_run, in_words
from thoughtgraft.engine.grid import Row
from thoughtgraft.errors import PlanError
from thoughtgraft.interventions.arms import Arm
from thoughtgraft.interventions.ops import EditContext, Op
from thoughtgraft.interventions.site import Resid
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

    @property
    def has_others(self) -> bool:
        """Whether there are other problems to take a mean of."""
        return len(self.fed) > 1


def check_sites(model: LatentReasoner, arms: Sequence[Arm]) -> None:
    """Raise a PlanError for the first arm that edits after a block which the model does not have."""
    depth = len(model.layers)
    for arm in arms:
        if arm.site is not None and arm.site.layer >= depth:
            raise PlanError(
                f"{model.name} has no layer {arm.site.layer}", got=arm.label, expected=f"layers 0..{depth - 1}"
            )


class EditLog:
    """What is known of the edits of R rows, by their places in the grid.

    Attributes:
        norms: Norm of the first edited vector that a slot is fed [R]; NaN where none is.
        cosines: Cosine of that vector with the host's clean one [R]; NaN where it is undefined, as with zeros.
        failures: Which rows have failed.
    """

    def __init__(self, rows: int, model: LatentReasoner) -> None:
        self.norms = _wide(torch.full((rows,), torch.nan, device=model.device, dtype=model.dtype))
        self.cosines = self.norms.clone()
        self.failures = Failures(rows, model.device)

    def compare(self, places: Tensor, edited: Tensor, host: Tensor) -> None:
        """Keep norm and cosine of edited vectors [n, d], in float32 at least."""
        edited, host = _wide(edited), _wide(host)
        norm = edited.norm(dim=-1)
        self.norms[places] = norm
        self.cosines[places] = ((edited * host).sum(-1) / (norm * host.norm(dim=-1))).clamp(-1, 1)


@dataclass(frozen=True, eq=False)
class Edited:
    """Rows of one step of the latent loop that one op edits, with their indices on the model's device.

    Attributes:
        op: The edit.
        members: Which of the step's rows [m].
        places: Their places in the grid [m].
        hosts: Their hosts among the source thoughts [m].
        donors: Their donors [m]; None where they have none.
        keys: Their cells' keys.
        site: Where in the computation the op acts, in words: ` after L2`; empty for what a slot is fed.
        by_place: Their places on the host.
    """

    op: Op | None
    members: Tensor
    places: Tensor
    hosts: Tensor
    donors: Tensor | None
    keys: tuple[str, ...]
    site: str
    by_place: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[int], rows: Sequence[Row], places: Sequence[int], device: torch.device) -> Edited:
        """The rows `members` of a step's `rows`, whose places are `places`: of one op, all with a donor or none."""
        some, at = [rows[i] for i in members], [places[i] for i in members]
        first = some[0]
        donors = None if first.donor is None else [row.donor for row in some]
        indices = (list(members), at, [row.host for row in some], *([] if donors is None else [donors]))
        of_members, of_places, of_hosts, *of_donors = (torch.tensor(x, device=device) for x in indices)
        return cls(
            first.op,
            of_members,
            of_places,
            of_hosts,
            of_donors[0] if of_donors else None,
            tuple(row.key for row in some),
            "" if first.layer is None else f" {Resid(first.layer)}",
            tuple(at),
        )

    def apply(self, live: Tensor, slot: int, source: Source | None, failures: Failures) -> Tensor:
        """What the op makes of its rows' vectors [m, d] at a slot of its arm, as the model takes it.

        A row has failed if the op raises on it, gives no vector of its shape, or one that is not finite in the model's
        type; it keeps its live vector. An op that cannot edit all rows at once is asked for halves of them.
        """
        assert self.op is not None and source is not None, "an edit needs an op and source thoughts"
        where, edited = f"at CT{slot}{self.site}", live.clone()
        failures.note(self.places, ~live.isfinite().all(-1), f"the model's own state is not finite {where}")
        waiting = [slice(0, len(live))]
        while waiting:
            rows = waiting.pop()
            try:
                edited[rows] = self.vectors(live[rows].clone(), slot, source, rows).to(live)
            except Exception as error:
                if ends_the_run(error):
                    raise
                middle = (rows.start + rows.stop) // 2
                if middle > rows.start:
                    waiting += [slice(middle, rows.stop), slice(rows.start, middle)]
                else:
                    failures.note_one(self.by_place[rows.start], f"the edit failed {where}: {in_words(error)}")
        # A norm that overflows is the model's too: it would read the vector as zeros.
        norm = _wide(edited).norm(dim=-1)
        failures.note(self.places, norm.isnan(), f"the edit gave NaN {where}")
        failures.note(self.places, norm.isinf(), f"the edit gave an infinite vector {where}")
        return torch.where(norm.isfinite()[:, None], edited, live)

    def vectors(self, live: Tensor, slot: int, source: Source, rows: slice) -> Tensor:
        """The op's own vectors for some of its rows, of which `live` holds what they would be fed.

        Raises:
            PlanError: It gave something else than vectors of their shape.
        """
        assert self.op is not None
        hosts = self.hosts[rows]
        context = EditContext(
            slot,
            source.fed[hosts],
            None if self.donors is None else source.fed[self.donors[rows]],
            source.mean[hosts] if source.has_others else None,
            self.keys[rows],
        )
        edited = self.op(live, context)
        if not isinstance(edited, Tensor) or edited.is_complex():
            raise PlanError("an op gave no vectors", got=repr(edited), expected=f"a real tensor {list(live.shape)}")
        if edited.shape != live.shape:
            raise PlanError("an op changed the shape", got=list(edited.shape), expected=list(live.shape))
        return edited


def _wide(numbers: Tensor) -> Tensor:
    """In their own type, float32 at least."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


@contextmanager
def edited_streams(
    model: LatentReasoner,
    by_layer: Mapping[int, Sequence[Edited]],
    slot: int,
    source: Source | None,
    failures: Failures,
) -> Iterator[None]:
    """While it lasts, the layers edit the residual streams of some rows, which are fed one token each.

    Args:
        model: The model, which must run these rows in this order.
        by_layer: Which rows, after which 0-based block.
        slot: The arms' slot.
        source: Clean thoughts, for the ops.
        failures: Where rows are noted whose edit fails.
    """

    def hook(groups: Sequence[Edited]) -> Callable[[Any, Any, Tensor], Tensor]:
        def edit(module: Any, args: Any, output: Tensor) -> Tensor:
            output = output.clone()
            for group in groups:
                live = output[group.members, 0]
                output[group.members, 0] = group.apply(live, slot, source, failures)
            return output

        return edit

    handles = [model.layers[layer].register_forward_hook(hook(groups)) for layer, groups in by_layer.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
