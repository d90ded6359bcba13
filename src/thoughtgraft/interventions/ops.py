"""The edits: pure functions from a slot's live vectors, such as what it would be fed, to what takes their place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from thoughtgraft.errors import PlanError


class NothingToTake(PlanError):
    """An edit asks for a donor or for other problems, and its cell has none."""


@dataclass(frozen=True)
class EditContext:
    """What an edit may use, for n cells at one slot. K slots, 0-based; width d.

    An edit treats each row by itself: which others stand beside it is chance.

    Attributes:
        slot: The slot k that is edited.
        host: The hosts' clean `fed` [n, K, d].
        donors: The donors' clean `fed` [n, K, d]; None where the cells have no donor. Edits ask for `donor`.
        means: The mean clean `fed` of the run's other problems, host left out [n, K, d]; None where there are no
            others. Edits ask for `mean`.
        keys: One string for each cell; what a random edit must be seeded with.
    """

    slot: int
    host: Tensor
    donors: Tensor | None
    means: Tensor | None
    keys: tuple[str, ...]

    @property
    def donor(self) -> Tensor:
        """The donors' clean `fed` [n, K, d].

        Raises:
            NothingToTake: The cells have no donor.
        """
        if self.donors is None:
            raise NothingToTake("the cell has no donor", fix="Arm(..., repeats=True) gives a host's cells its donors")
        return self.donors

    @property
    def mean(self) -> Tensor:
        """The mean clean `fed` of the run's other problems, host left out [n, K, d].

        Raises:
            NothingToTake: There is no other problem.
        """
        if self.means is None:
            raise NothingToTake("there is no other problem to take a mean of", fix="run two problems or more")
        return self.means


Op = Callable[[Tensor, EditContext], Tensor]


def swap(live: Tensor, context: EditContext) -> Tensor:
    """The donor's vector of this slot."""
    return context.donor[:, context.slot]


def self_swap(live: Tensor, context: EditContext) -> Tensor:
    """The host's own clean vector, read back from the saved thoughts."""
    return context.host[:, context.slot]


def zero(live: Tensor, context: EditContext) -> Tensor:
    """Zeros."""
    return torch.zeros_like(live)


def mean(live: Tensor, context: EditContext) -> Tensor:
    """The mean of the other problems' clean vectors of this slot."""
    return context.mean[:, context.slot]


def noise(live: Tensor, context: EditContext) -> Tensor:
    """A random direction at the norm of the host's clean vector; Gaussian, drawn in float32, seeded by cell and slot.

    The seed is the first 7 bytes of the SHA-256 of `KEY-SLOT`, so that any other code can draw the same.
    """
    rows = []
    for key in context.keys:
        seed = int.from_bytes(hashlib.sha256(f"{key}-{context.slot}".encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.randn(live.shape[-1], generator=generator, dtype=torch.float32))
    drawn = torch.stack(rows).to(torch.promote_types(live.dtype, torch.float32))
    direction = torch.nn.functional.normalize(drawn, dim=-1).to(live)
    return direction * context.host[:, context.slot].norm(dim=-1, keepdim=True)


def shuffle(live: Tensor, context: EditContext) -> Tensor:
    """The donor's vector of another slot: the one `1 + (hash of the cell) mod (K - 1)` places on."""
    slots = context.donor.shape[1]
    shifts = [1 + int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % max(slots - 1, 1) for key in context.keys]
    index = torch.tensor([(context.slot + shift) % slots for shift in shifts], device=live.device)
    return context.donor[torch.arange(len(shifts), device=live.device), index]


@dataclass(frozen=True)
class Projection:
    """The affine map x -> x - U V^T (x - mean), which takes a subspace out: U and V are [d, r], the mean is [d]."""

    u: Tensor
    v: Tensor
    mean: Tensor


@dataclass(frozen=True, eq=False)
class Project:
    """An own edit: the projection that belongs to the slot, computed in float32 at least.

    Attributes:
        by_slot: One for each slot that the arm edits.
    """

    by_slot: Mapping[int, Projection]

    def __call__(self, live: Tensor, context: EditContext) -> Tensor:
        """The live vectors [n, d] without the subspace."""
        chosen = self.by_slot[context.slot]
        x = live.to(torch.promote_types(live.dtype, torch.float32))
        u, v, mean = (part.to(x) for part in (chosen.u, chosen.v, chosen.mean))
        return (x - (x - mean) @ v @ u.mT).to(live)

    @cached_property
    def identity(self) -> str:
        """A hash of the numbers: with it, a stored cell says which projection it had."""
        digest = hashlib.sha256()
        for slot, chosen in sorted(self.by_slot.items()):
            for part in (chosen.u, chosen.v, chosen.mean):
                digest.update(f"{slot} {tuple(part.shape)}".encode())
                digest.update(part.detach().to("cpu", torch.float64).contiguous().numpy().tobytes())
        return f"project {digest.hexdigest()[:20]}"


OPS: dict[str, Op] = {"swap": swap, "self": self_swap, "zero": zero, "mean": mean, "noise": noise, "shuffle": shuffle}
"""The edit of each method; `baseline`, `noop`, `skip` and `truncate` need none."""
