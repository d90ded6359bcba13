"""What an edit may take: the clean vectors of its hosts, their donors and the other problems, at the edited site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thoughtgraft.edits.site import KINDS, Kind
from thoughtgraft.errors import PlanError

if TYPE_CHECKING:
    from torch import Tensor


class NothingToTake(PlanError):
    """An edit asks for a donor or for other problems, and its cell has none."""


@dataclass(frozen=True, eq=False)
class Taken:
    """Clean vectors that an edit may take, one for each of its n cells: `at.donor()` is [n, d], at the edited site.

    Attributes:
        name: What they are called: host, donor or mean.
        states: The clean states of N problems by kind, [N, K, d] each: what they were fed and, at a site that is a
            residual stream, that stream at the positions that consume it. None at all where the cells have none.
        rows: Whose vector each cell takes, as a row of `states` [n].
        slot: The slot that is edited.
        kind: What is edited there.
        problems: `rows` as plain numbers.
        names: The ids of the N problems.
    """

    name: str
    states: Mapping[Kind, Tensor]
    rows: Tensor | None
    slot: int
    kind: Kind = "fed"
    problems: Sequence[int] = ()
    names: Sequence[str] = ()

    def __call__(self, slot: int | Tensor | None = None, kind: Kind | None = None) -> Tensor:
        """The vectors [n, d].

        Args:
            slot: Another slot than the edited one, or one for each cell [n].
            kind: "fed" at an arm that edits a residual stream: what its slots were fed, vectors of another space.

        Raises:
            NothingToTake: The cells have none.
            PlanError: There is no such slot, or no clean states of that kind.
        """
        if not self.states:
            what, fix = _MISSING[self.name]
            raise NothingToTake(what, fix=fix)
        if (kind := kind or self.kind) not in self.states:
            raise PlanError(
                f"there are no clean states of {KINDS[kind]} here",
                got=f"at.{self.name}(), kind {kind!r}",
                expected=", ".join(self.states),
                fix=f"at.{self.name}(kind='fed') is what the slot was fed, a vector of another space",
            )
        slot = self.slot if slot is None else slot
        if isinstance(slot, int) and not 0 <= slot < self.n_slots:
            raise PlanError(f"slot {slot} does not exist", got=slot, expected=f"0..{self.n_slots - 1}")
        found: Tensor = self.states[kind][self.rows, slot]
        return found

    def __bool__(self) -> bool:
        return bool(self.states)

    @property
    def n_slots(self) -> int:
        """How many slots there are, K."""
        return max((states.shape[1] for states in self.states.values()), default=0)

    @property
    def ids(self) -> tuple[str, ...]:
        """Whose they are, by the problems' ids; empty where the cells have none."""
        return tuple(self.names[i] for i in self.problems) if self.states else ()

    def __getitem__(self, index: object) -> Any:
        raise self._moved(f"at.{self.name}[...]")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._moved(f"at.{self.name}.{name}")

    def _moved(self, got: str) -> PlanError:
        return PlanError(
            f"at.{self.name} is called now, and gives the vectors of one slot",
            got=got,
            expected=f"at.{self.name}(), which is [n, d]",
            fix=f"write at.{self.name}() for the edited slot, at.{self.name}(slot=0) for another",
        )


_MISSING = {
    "donor": (
        "the cell has no donor",
        "Arm(..., repeats=True), or needs = {'donor'} in an edit's class, gives a host's cells its donors",
    ),
    "mean": ("there is no other problem to take a mean of", "run two problems or more"),
}


@dataclass(frozen=True, eq=False)
class EditContext:
    """What an edit may use, for n cells at one slot. It treats each by itself: which others stand beside it is chance.

    Attributes:
        slot: The slot k that is edited, 0-based.
        keys: One string for each cell; what a random edit must be seeded with.
        host: The hosts' own clean vectors: `at.host()` is [n, d] at the edited site.
        donor: The donors'; false where the cells have none.
        mean: The mean of the run's other problems, the host left out; false where there are no others.
    """

    slot: int
    keys: tuple[str, ...]
    host: Taken
    donor: Taken
    mean: Taken

    @property
    def host_ids(self) -> tuple[str, ...]:
        """The hosts, by the problems' ids."""
        return self.host.ids

    @property
    def donor_ids(self) -> tuple[str, ...]:
        """The donors; empty where there are none."""
        return self.donor.ids

    @property
    def donors(self) -> Any:
        """Refused: the name of an earlier version."""
        raise PlanError("at.donors is gone", fix="write at.donor(); `if at.donor:` asks whether there is one")

    @property
    def means(self) -> Any:
        """Refused: the name of an earlier version."""
        raise PlanError("at.means is gone", fix="write at.mean(); `if at.mean:` asks whether there is one")

    @classmethod
    def of(
        cls,
        slot: int,
        keys: tuple[str, ...],
        host: Tensor,
        donor: Tensor | None = None,
        mean: Tensor | None = None,
        kind: Kind = "fed",
    ) -> EditContext:
        """From what each cell's problems were fed [n, K, d], to try an edit on; their ids are their numbers."""
        import torch

        numbers = range(len(host))
        rows, names = torch.arange(len(host), device=host.device), tuple(map(str, numbers))
        given: dict[str, Tensor | None] = {"host": host, "donor": donor, "mean": mean}
        states: dict[str, dict[Kind, Tensor]] = {k: {} if x is None else {"fed": x} for k, x in given.items()}
        return cls(slot, keys, *(Taken(name, x, rows, slot, kind, numbers, names) for name, x in states.items()))
