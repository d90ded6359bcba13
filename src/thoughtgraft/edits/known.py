"""The edits that there are: one small class each. A new one is a class in this file, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thoughtgraft.arguments import answers_for_calls, shown, whole
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.edit import Change, Edit, Look, check_name
from thoughtgraft.edits.schedule import CLEAN, LIVE, Actions, After, cut_before, without
from thoughtgraft.errors import PlanError

if TYPE_CHECKING:
    from torch import Tensor

# ---- changes that edit no state --------------------------------------------------------------------------------------


class Baseline(Change):
    """Nothing is edited, and nothing is run twice: the clean run."""

    name, words = "baseline", "the host is answered without any edit"
    takes = "none"
    checks = True

    def actions(self, steps: Sequence[int], num_latents: int, after: After) -> Actions:
        """Everything is clean."""
        return (CLEAN,) * num_latents


class Noop(Change):
    """The path that edits take, with nothing to edit."""

    name, words = "noop", "a check: the edit path with nothing to edit"
    takes = "none"
    checks = True

    def actions(self, steps: Sequence[int], num_latents: int, after: After) -> Actions:
        """Everything runs live."""
        return (LIVE,) * num_latents


# ---- edits -----------------------------------------------------------------------------------------------------------


class Self(Edit):
    """The host's own clean state, read back from what was saved."""

    name, words = "self", "a check: the slot receives the host's own thought through the edit path"
    checks = True

    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """Its own."""
        return at.host()


class Swap(Edit):
    """The donor's clean state of this slot."""

    name, words = "swap", "the slot receives the donor's clean thought"
    look = Look("#0072B2", "o")
    of_others = True
    needs = frozenset({"donor"})

    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """The donor's."""
        return at.donor()


class Mean(Edit):
    """The mean of the other problems' clean states of this slot."""

    name, words = "mean", "the slot receives the mean thought of the other problems"
    look = Look("#E69F00", "s")
    of_others = True
    needs = frozenset({"mean"})

    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """The mean."""
        return at.mean()


class Zero(Edit):
    """Zeros."""

    name, words = "zero", "the slot receives zeros"
    look = Look("#D55E00", "^")
    reads = False

    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """Zeros."""
        return live.new_zeros(live.shape)


class Noise(Edit):
    """A random direction at the norm of the host's clean state; Gaussian, drawn in float32, seeded by cell and slot.

    The seed is the first 7 bytes of the SHA-256 of `KEY-SLOT`, so that any other code can draw the same.
    """

    name, words = "noise", "the slot receives a random direction of equal norm"
    look = Look("#009E73", "D")
    needs = frozenset({"draw"})

    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """The noise of each cell."""
        import torch  # Imported here: plans are checked, and pages written, where there is no torch.

        rows = []
        for key in at.keys:
            seed = int.from_bytes(hashlib.sha256(f"{key}-{at.slot}".encode()).digest()[:7], "big")
            generator = torch.Generator().manual_seed(seed)
            rows.append(torch.randn(live.shape[-1], generator=generator, dtype=torch.float32))
        drawn = torch.stack(rows).to(torch.promote_types(live.dtype, torch.float32))
        direction = torch.nn.functional.normalize(drawn, dim=-1).to(live)
        return direction * at.host().norm(dim=-1, keepdim=True)


class Skip(Change):
    """The slot is left out."""

    name, words = "skip", "the slot is left out, and later thoughts move up"
    look = Look("#CC79A7", "v")
    takes = "one"
    kinds = frozenset({"fed"})
    shortens = "leaves out one slot and recomputes what follows"

    def actions(self, steps: Sequence[int], num_latents: int, after: After) -> Actions:
        """The next clean thought one position earlier, then live ones, one short."""
        return without(steps[0], num_latents)


class Truncate(Change):
    """The thoughts end."""

    name, words = "truncate", "the thoughts end before the slot"
    takes = "one"
    kinds = frozenset({"fed"})
    shortens = "names the one slot before which the thoughts end"

    def actions(self, steps: Sequence[int], num_latents: int, after: After) -> Actions:
        """Clean ones, then none."""
        return cut_before(steps[0], num_latents)


class Shuffle(Edit):
    """The donor's clean state of another slot: the one `1 + (hash of the cell) mod (K - 1)` places on."""

    name, words = "shuffle", "the slot receives the donor's thought of another slot"
    look = Look("#56B4E9", "P")
    least_slots = 2
    needs = frozenset({"donor"})

    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """The donor's, of another slot."""
        import torch

        slots = at.donor.n_slots
        shifts = [1 + int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % max(slots - 1, 1) for key in at.keys]
        return at.donor(slot=torch.tensor([(at.slot + shift) % slots for shift in shifts], device=live.device))


@dataclass(frozen=True)
class Projection:
    """The affine map x -> x - U V^T (x - mean), which takes a subspace out: U and V are [d, r], the mean is [d]."""

    u: Tensor
    v: Tensor
    mean: Tensor

    @classmethod
    def along(cls, directions: Tensor) -> Projection:
        """The orthogonal projection that takes out what lies along r directions [r, d], about the origin."""
        import torch

        u, sizes, _ = torch.linalg.svd(directions.detach().double().mT, full_matrices=False)
        basis = u[:, sizes > sizes.amax() * len(u) * torch.finfo(u.dtype).eps]
        return cls(basis, basis, basis.new_zeros(len(basis)))


@answers_for_calls(PlanError)
@dataclass(frozen=True, eq=False, repr=False)
class Project(Edit):
    """Directions are taken out of the live vector, in float32 at least. Known by a hash of its numbers.

    Attributes:
        directions: What is taken out: r directions [r, d], or a Projection, or one of those for each edited slot.
        name: What the arm is called; several may be in one plan.
    """

    directions: Tensor | Projection | Mapping[int, Tensor | Projection]
    name: str = "project"
    words = "what lies along some directions is taken out of the slot's state"
    reads = False
    by_slot: Mapping[int | None, Projection] = field(init=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        made = {slot: _projection(x) for slot, x in self._given().items()}
        object.__setattr__(self, "by_slot", made)

    def _given(self) -> dict[int | None, Any]:
        """The directions by slot; None stands for every slot."""
        if not isinstance(self.directions, Mapping):
            return {None: self.directions}
        return {whole(slot, "a slot of the directions", PlanError): x for slot, x in self.directions.items()}

    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """The live vectors [n, d] without the subspace."""
        import torch

        chosen = self.by_slot.get(None if None in self.by_slot else at.slot)
        if chosen is None:
            raise PlanError(f"there are no directions for slot {at.slot}", expected=f"one of {list(self.by_slot)}")
        x = live.to(torch.promote_types(live.dtype, torch.float32))
        u, v, mean = (part.to(x) for part in (chosen.u, chosen.v, chosen.mean))
        return (x - (x - mean) @ v @ u.mT).to(live)

    def stored_as(self) -> str:
        """A hash of the numbers: with it, a stored cell says which projection it had."""
        import torch

        digest = hashlib.sha256()
        for slot, x in sorted(self._given().items(), key=lambda item: -1 if item[0] is None else item[0]):
            for part in (x.u, x.v, x.mean) if isinstance(x, Projection) else (x,):
                digest.update(f"{slot} {tuple(part.shape)}".encode())
                digest.update(part.detach().to("cpu", torch.float64).contiguous().numpy().tobytes())
        return f"project {digest.hexdigest()[:20]}"


def _projection(given: Any) -> Projection:
    import torch

    if isinstance(given, Projection):
        return given
    if not (isinstance(given, torch.Tensor) and given.ndim == 2 and given.is_floating_point() and given.numel()):
        expected = "r directions as a tensor [r, d], a Projection, or one of them for each slot"
        raise PlanError("what is projected out is not usable", got=shown(given), expected=expected)
    return Projection.along(given)
