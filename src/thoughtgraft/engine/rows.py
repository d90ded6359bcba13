"""Rows of a batch: how they lie, what edits them, and which have failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext, Taken
from thoughtgraft.edits.edit import Edit
from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.edits.site import Kind, after_layer, slots_label
from thoughtgraft.engine.memory import is_out_of_memory
from thoughtgraft.errors import PlanError
from thoughtgraft.models.reasoner import LatentReasoner


@dataclass(frozen=True)
class Row:
    """One generation that the engine is asked for.

    Attributes:
        problem: 0-based index into the batch's prompts.
        actions: What each slot is fed.
        edit: The edit of EDIT slots.
        layer: The 0-based block after which it edits the residual stream at EDIT slots, which are then fed their live
            vector; None: it edits what the slots are fed.
        host: Index of the host into the source thoughts.
        donor: Index of the donor into the source thoughts, if any.
        key: The cell's key, which seeds random edits.
        donor_tail: The donor's number and the end of sequence as tokens, to be scored; empty for none.
    """

    problem: int
    actions: tuple[Action, ...]
    edit: Edit | None = None
    host: int = 0
    donor: int | None = None
    key: str = ""
    donor_tail: tuple[int, ...] = ()
    layer: int | None = None

    @property
    def first_run(self) -> int:
        """The first slot at which the row computes anything; K if none."""
        return next((t for t, a in enumerate(self.actions) if a.runs), len(self.actions))


class Grid:
    """Places rows at `variant * P + problem`; places without a row repeat the clean run and are ignored.

    With `with_clean`, the last variant of every problem is such a clean run.

    Attributes:
        order: For each place, the index of its row, or -1.
        rows: For each place, its row.
        filled: Whether each place answers for a row [V*P].
        runs: Whether each place computes anything at a slot [V*P, K], on the CPU.
        own: Whether the place's own keys and values stand at a slot [V*P, K]; else the clean run's may.
        seen: Whether the clean run's keys and values are seen at a slot [V*P, K].
        thoughts: How many thoughts each place is fed [V*P].
        ahead: Whether the thought that a place makes at a step is the next slot's, one having been left out [V*P, K],
            on the CPU.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        n_problems: int,
        num_latents: int,
        device: torch.device,
        *,
        with_clean: bool = False,
    ) -> None:
        by_problem: list[list[int]] = [[] for _ in range(n_problems)]
        for index in sorted(range(len(rows)), key=lambda i: rows[i].first_run):
            by_problem[rows[index].problem].append(index)
        self.n_problems, self.n_variants = n_problems, max(1, *map(len, by_problem)) + with_clean
        idle = Row(0, (Action(Feed.CLEAN),) * num_latents)
        self.order = [group[v] if v < len(group) else -1 for v in range(self.n_variants) for group in by_problem]
        self.rows = [rows[i] if i >= 0 else idle for i in self.order]

        self.filled = torch.tensor([i >= 0 for i in self.order], device=device)

        def table(test: set[Feed]) -> Tensor:
            flags = [[action.feed in test for action in row.actions] for row in self.rows]
            return torch.tensor(flags, dtype=torch.bool).view(len(self.rows), num_latents)

        ahead = [[a.feed is Feed.LIVE and a.due(k) > k for k, a in enumerate(row.actions)] for row in self.rows]
        self.ahead = torch.tensor(ahead, dtype=torch.bool).view(len(self.rows), num_latents)
        self.runs = table({Feed.LIVE, Feed.EDIT, Feed.REPLAY})
        self.own = self.runs.to(device)
        self.seen = table({Feed.CLEAN}).to(device)
        self.thoughts = num_latents - table({Feed.ABSENT}).sum(1).to(device)

    def clean_place(self) -> Tensor:
        """For each place, one of its problem that is not edited: the last variant, if made `with_clean` [V*P]."""
        last = (self.n_variants - 1) * self.n_problems
        return (last + torch.arange(self.n_problems, device=self.own.device)).repeat(self.n_variants)

    def places(self, n_rows: int) -> Tensor:
        """The place of each row [n_rows], on the CPU."""
        places = torch.empty(n_rows, dtype=torch.long)
        for place, index in enumerate(self.order):
            if index >= 0:
                places[index] = place
        return places

    def problem_of(self, device: torch.device) -> Tensor:
        """Each place's problem [V*P]."""
        return torch.arange(self.n_problems, device=device).repeat(self.n_variants)

    def active(self, slot: int) -> Tensor | None:
        """Places of all variants in which some place runs at `slot`; None if there is none."""
        variants = self.runs[:, slot].view(self.n_variants, self.n_problems).any(1).nonzero().flatten()
        if len(variants) == 0:
            return None
        return (variants[:, None] * self.n_problems + torch.arange(self.n_problems)).flatten()


_LONGEST = 300
_NONE = torch.iinfo(torch.long).max


class Failures:
    """The first thing that went wrong with each row of a grid.

    A failed row runs on with its pack, and what it gives is not used. Whether it has failed is a number on the device:
    to ask for it while rows run, the host would have to wait.
    """

    def __init__(self, places: int, device: torch.device) -> None:
        self._texts: list[str] = []
        self._first = torch.full((places,), _NONE, dtype=torch.long, device=device)

    def note(self, places: Tensor, failed: Tensor, text: str) -> None:
        """Say of the rows at `places` [n] where `failed` [n] that `text` went wrong; what went wrong before stays."""
        known = self._first[places]
        self._first[places] = torch.where(failed, known.clamp_max(len(self._texts)), known)
        self._texts.append(text)

    def note_one(self, place: int, text: str) -> None:
        """The same of one row, known on the host."""
        self._first[place].clamp_(max=len(self._texts))
        self._texts.append(text)

    def none(self) -> Tensor:
        """Whether each row is sound so far [places], on the device."""
        return self._first == _NONE

    def texts(self) -> list[str | None]:
        """What went wrong with each row, None where nothing did; waits for the device."""
        return [None if i == _NONE else self._texts[i][:_LONGEST] for i in self._first.tolist()]


def ends_the_run(error: Exception) -> bool:
    """Whether an edit's error is no fault of the edit: memory, disk, network or the device failed under it."""
    broken: type[Exception] | None = getattr(torch, "AcceleratorError", None)
    if isinstance(error, OSError) or (broken is not None and isinstance(error, broken)):
        return True
    return is_out_of_memory(error) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def in_words(error: Exception) -> str:
    """An edit's error on one line that can be stored: its kind, and what it says first."""
    said = [line for line in str(error).splitlines() if line.strip()][:1]
    text = ": ".join([type(error).__name__, *(line.strip() for line in said)])
    return text.encode(errors="backslashreplace").decode()


@dataclass(frozen=True)
class Source:
    """Clean thoughts that edits draw on, on the model's device.

    Attributes:
        fed: What N problems were fed [N, K, d].
        mean: The mean of the others' [N, K, d]; undefined (NaN) with one problem.
        ids: The problems' ids; their numbers where they have none.
        streams: By 0-based block, the residual stream after it at the positions that consume `fed`, and the mean of the
            others' [N, K, d] each; for the blocks after which an edit reads it.
    """

    fed: Tensor
    mean: Tensor
    ids: tuple[str, ...] = ()
    streams: Mapping[int | None, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def from_fed(
        cls, fed: Tensor, ids: Sequence[str] | None = None, streams: Mapping[int | None, Tensor] | None = None
    ) -> Source:
        """With the means, which leave the host out."""
        names = tuple(map(str, range(len(fed))) if ids is None else ids)
        return cls(fed, _of_others(fed), names, {k: (x, _of_others(x)) for k, x in (streams or {}).items()})

    def at(self, layer: int | None) -> tuple[dict[Kind, Tensor], dict[Kind, Tensor]]:
        """The clean states at a site by kind, and their means; no means where there are no others."""
        states: dict[Kind, Tensor] = {"fed": self.fed}
        means: dict[Kind, Tensor] = {"fed": self.mean}
        if layer in self.streams:
            states["resid"], means["resid"] = self.streams[layer]
        return states, means if self.has_others else {}

    @property
    def has_others(self) -> bool:
        """Whether there are other problems to take a mean of."""
        return len(self.fed) > 1


def _of_others(states: Tensor) -> Tensor:
    """The mean over all problems but each itself [N, K, d]."""
    others = states.shape[0] - 1
    return (states.sum(0, keepdim=True) - states) / others if others else torch.full_like(states, torch.nan)


def check_sites(model: LatentReasoner, arms: Sequence[Arm]) -> None:
    """Raise a PlanError for the first arm that edits where the model has nothing, or nothing that the edit needs."""
    depth = len(model.layers)
    for arm in arms:
        if arm.layer is not None and arm.layer >= depth:
            raise PlanError(f"{model.name} has no layer {arm.layer}", got=arm.label, expected=f"layers 0..{depth - 1}")
        if arm.layer is not None and arm.change.reads and not arm.change.own and not model.loop.aligned:
            raise PlanError(
                f"under protocol {model.protocol.name} a slot's position does not consume the vector of its name",
                got=arm.label,
                expected="an edit of what slots are fed",
                fix="leave site out, or load the model with protocol='official'",
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
    """Rows of one step of the latent loop that one call edits, with their indices on the model's device.

    Attributes:
        edit: The edit.
        members: Which of the step's rows [m].
        places: Their places in the grid [m].
        hosts: Their hosts among the source thoughts [m].
        donors: Their donors [m]; None where they have none.
        rows: The rows themselves [m].
        by_place: Their places, as plain numbers.
    """

    edit: Edit
    members: Tensor
    places: Tensor
    hosts: Tensor
    donors: Tensor | None
    rows: tuple[Row, ...]
    by_place: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[int], rows: Sequence[Row], places: Sequence[int], device: torch.device) -> Edited:
        """The rows `members` of a step's `rows`, whose places are `places`: edited alike, all with a donor or none."""
        some, at = [rows[i] for i in members], [places[i] for i in members]
        edit, donors = some[0].edit, None if some[0].donor is None else [row.donor for row in some]
        assert edit is not None, "rows without an edit are not edited"
        indices = (list(members), at, [row.host for row in some], *([] if donors is None else [donors]))
        of_members, of_places, of_hosts, *of_donors = (torch.tensor(x, device=device) for x in indices)
        return cls(
            edit,
            of_members,
            of_places,
            of_hosts,
            of_donors[0] if of_donors else None,
            tuple(some),
            tuple(at),
        )

    def apply(self, live: Tensor, slot: int, source: Source | None, failures: Failures) -> Tensor:
        """What the edit makes of its rows' vectors [m, d] at a slot of its arm, as the model takes it.

        A row has failed if the edit raises on it, gives no vector of its shape, or one that is not finite in the
        model's type; it keeps its live vector. An edit that cannot edit all rows at once is asked for halves of them.
        """
        assert source is not None, "an edit needs source thoughts"
        where, edited = f"at {slots_label((slot,))}{self.stream}", live.clone()
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

    @property
    def stream(self) -> str:
        """Where in the computation they are edited, in words: ` after L2`; empty for what a slot is fed."""
        layer = self.rows[0].layer
        return "" if layer is None else f" {after_layer(layer)}"

    def _context(self, slot: int, source: Source, part: slice) -> EditContext:
        rows = self.rows[part]
        kind: Kind = "fed" if rows[0].layer is None else "resid"
        hosts = [row.host for row in rows]
        donors = [row.donor for row in rows if row.donor is not None]

        def taken(name: str, states: Mapping[Kind, Tensor], index: Tensor | None, problems: Sequence[int]) -> Taken:
            some = {} if index is None else states
            return Taken(name, some, None if index is None else index[part], slot, kind, problems, source.ids)

        states, means = source.at(rows[0].layer)
        return EditContext(
            slot,
            tuple(row.key for row in rows),
            taken("host", states, self.hosts, hosts),
            taken("donor", states, self.donors, donors),
            taken("mean", means, self.hosts, hosts),
        )

    def vectors(self, live: Tensor, slot: int, source: Source, rows: slice) -> Tensor:
        """The edit's own vectors for some of its rows, of which `live` holds what they would be fed.

        Raises:
            PlanError: It gave something else than vectors of their shape.
        """
        edited = self.edit(live, self._context(slot, source, rows))
        if not isinstance(edited, Tensor) or edited.is_complex():
            raise PlanError("an edit gave no vectors", got=repr(edited), expected=f"a real tensor {list(live.shape)}")
        if edited.shape != live.shape:
            raise PlanError("an edit changed the shape", got=list(edited.shape), expected=list(live.shape))
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
