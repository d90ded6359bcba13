"""The edits: pure functions from the vectors a slot would be fed, and their context, to what it is fed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class EditContext:
    """What an edit may use, for n cells at one slot. K slots, 0-based; width d.

    Attributes:
        slot: The slot k that is edited.
        host: The hosts' clean `fed` [n, K, d].
        donor: The donors' clean `fed` [n, K, d]; the host's own where a cell has no donor.
        mean: The mean clean `fed` of the run's other problems, host left out [n, K, d].
        keys: One string for each cell; what a random edit must be seeded with.
    """

    slot: int
    host: Tensor
    donor: Tensor
    mean: Tensor
    keys: tuple[str, ...]


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
    """A random direction at the norm of the host's clean vector; Gaussian, float32, seeded by cell and slot."""
    rows = []
    for key in context.keys:
        seed = int.from_bytes(hashlib.sha256(f"{key}-{context.slot}".encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.randn(live.shape[-1], generator=generator, dtype=torch.float32))
    direction = torch.nn.functional.normalize(torch.stack(rows), dim=-1).to(live)
    return direction * context.host[:, context.slot].norm(dim=-1, keepdim=True)


def shuffle(live: Tensor, context: EditContext) -> Tensor:
    """The donor's vector of another slot: the one `1 + (hash of the cell) mod (K - 1)` places on."""
    slots = context.donor.shape[1]
    shifts = [1 + int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % max(slots - 1, 1) for key in context.keys]
    index = torch.tensor([(context.slot + shift) % slots for shift in shifts], device=live.device)
    return context.donor[torch.arange(len(shifts), device=live.device), index]


OPS: dict[str, Op] = {"swap": swap, "self": self_swap, "zero": zero, "mean": mean, "noise": noise, "shuffle": shuffle}
"""The edit of each method; `baseline`, `noop` and `skip` need none."""
