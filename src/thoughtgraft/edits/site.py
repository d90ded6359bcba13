"""Sites: where in the computation an arm acts. The one place where slots become text; nothing reads it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from thoughtgraft.arguments import answers_for_calls, choice, items, shown, whole
from thoughtgraft.errors import PlanError

Kind = Literal["fed", "resid"]
"""What is edited: the vectors that slots are fed, or a residual stream."""
KINDS: dict[Kind, str] = {"fed": "what a slot is fed", "resid": "a residual stream"}


def slots_label(slots: Sequence[int], of: int | None = None) -> str:
    """Slots in words: `CT3`, `CT0-CT5`, `CT0,CT2`, or `-` where there is none.

    Args:
        slots: 0-based slots, ascending.
        of: How many slots there are, K: two or more that are all of them are called `all`.
    """
    if len(slots) == 0:  # a table from disk has arrays
        return "-"
    if len(slots) > 1 and list(slots) == list(range(slots[0], slots[-1] + 1)):
        return "all" if len(slots) == of else f"CT{slots[0]}-CT{slots[-1]}"
    return ",".join(f"CT{k}" for k in slots)


def slots_of(given: Any) -> tuple[int, ...]:
    """Slots as a tuple of ints; one number stands for itself.

    Raises:
        PlanError: It is neither a number nor a list of them.
    """
    fix = "slots are numbers from 0, in order: Arm('swap', [2]) edits CT2"
    expected = "a number, or a list of them"
    single = isinstance(given, int | float) or getattr(given, "ndim", None) == 0
    several = [given] if single else items(given, "an arm's slots", PlanError, expected=expected, fix=fix)
    return tuple(whole(slot, "an arm's slot", PlanError, fix=fix) for slot in several)


@answers_for_calls(PlanError)
@dataclass(frozen=True, order=True)
class Site:
    """Some slots, and what of them is edited.

    Attributes:
        kind: `fed`: the vectors that the slots are fed. `resid`: the residual stream after a block, at the positions
            that consume those vectors. Keys and values of such a position up to this block are the clean ones; those of
            later blocks, and everything after it, follow from the edit.
        slots: 0-based slots, ascending, at least one. `Site("fed", [3])` takes a list, too.
        layer: The block of a residual stream, 0-based; None for `fed`.
    """

    kind: Kind
    slots: tuple[int, ...]
    layer: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", slots_of(self.slots))
        choice(self.kind, "kind of site", KINDS, PlanError)
        if (self.kind == "resid") != (self.layer is not None):
            raise PlanError(
                "a residual stream has a layer, and the vectors that slots are fed have none",
                got=f"Site({self.kind!r}, {list(self.slots)}, {shown(self.layer)})",
                expected="Site('fed', [3]) or Site('resid', [3], 2)",
            )
        if self.layer is not None:
            object.__setattr__(self, "layer", Resid(self.layer).layer)
        if self.layer is not None and -1 in self.slots:
            raise PlanError(
                "begin-of-thought cannot be edited",
                got="position 0 (slot -1)",
                expected="slots from 0: slot k stands at position k + 1",
                fix="its states belong to the question, which all of a problem's cells share: leave it out",
            )
        if not self.slots or list(self.slots) != sorted(set(self.slots)) or self.slots[0] < 0:
            raise PlanError(
                "slots must be ascending, distinct and 0 or more", got=list(self.slots), expected="at least one slot"
            )

    def label(self, of: int | None = None) -> str:
        """The site in words: `CT3`, `CT0-CT5`, `CT3 after L2`; with `of` slots in all, `all` for all of them."""
        words = slots_label(self.slots, of)
        return words if self.layer is None else f"{words} {after_layer(self.layer)}"


def after_layer(layer: int) -> str:
    """A residual stream in words: `after L2`."""
    return f"after L{layer}"


@answers_for_calls(PlanError)
@dataclass(frozen=True)
class Resid:
    """The residual stream after one block: the short form `Arm("zero", [3], site=Resid(2))` of a Site.

    Attributes:
        layer: The block, 0-based.
    """

    layer: int

    def __post_init__(self) -> None:
        fix = "Resid(3) is the stream after block 3, counted from 0"
        object.__setattr__(self, "layer", whole(self.layer, "the layer of a Resid", PlanError, least=0, fix=fix))
