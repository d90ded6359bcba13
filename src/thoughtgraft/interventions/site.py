"""Where an edit acts: on what a slot is fed (the default, no site), or on the residual stream at its position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thoughtgraft.arguments import answers_for_calls, whole
from thoughtgraft.errors import PlanError

AT_RESID = ("zero",)
"""Methods that mean something at a residual stream. The others put `fed` vectors in, which live in another place."""


@answers_for_calls(PlanError)
@dataclass(frozen=True)
class Resid:
    """The residual stream after one block, at the position that consumes an edited slot's vector.

    An arm that edits slot k there edits `resid[k + 1, layer]`. Keys and values of that position up to this block are
    the clean ones, those of later blocks and everything after it follow from the edit.

    Attributes:
        layer: The block, 0-based.
    """

    layer: int

    def __post_init__(self) -> None:
        fix = "Resid(3) is the stream after block 3, counted from 0"
        object.__setattr__(self, "layer", whole(self.layer, "the layer of a Resid", PlanError, least=0, fix=fix))

    def __str__(self) -> str:
        return f"after L{self.layer}"

    def check(self, method: str, slots: Sequence[int], downstream: str, own: bool) -> None:
        """Refuse what an arm cannot do here.

        Raises:
            PlanError: Another method than `AT_RESID` without an own edit, frozen slots, or begin-of-thought.
        """
        if -1 in slots:
            raise PlanError(
                "begin-of-thought cannot be edited",
                got="position 0 (slot -1)",
                expected="slots from 0: slot k stands at position k + 1",
                fix="its states belong to the question, which all of a problem's cells share: leave it out",
            )
        if not own and method not in AT_RESID:
            raise PlanError(
                f"{method!r} has no meaning at a residual stream",
                got=f"{method} {self}",
                expected=", ".join(AT_RESID),
                fix="give the arm an op, or leave site out",
            )
        if downstream != "recompute":
            raise PlanError(
                "what follows an edit of a residual stream is always recomputed",
                got=f"{method} {self}, downstream={downstream}",
                fix="use downstream='recompute'",
            )
