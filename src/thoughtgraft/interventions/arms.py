"""Arms: conditions of an experiment, each an edit at some slots and a rule for what follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from thoughtgraft.arguments import answers_for_calls, choice, items, need, shown, whole
from thoughtgraft.errors import PlanError
from thoughtgraft.interventions.donors import STRATA
from thoughtgraft.interventions.identity import op_identity
from thoughtgraft.interventions.site import Resid

METHODS = ("baseline", "noop", "self", "swap", "mean", "zero", "noise", "skip", "truncate", "shuffle")
DOWNSTREAM = ("recompute", "freeze_input", "freeze_kv")
_UNEDITED = frozenset({"baseline", "noop"})
_SHORTER = {
    "skip": "leaves out one slot and recomputes what follows",
    "truncate": "names the one slot before which the thoughts end",
}
_FROM_DONOR = frozenset({"swap", "shuffle"})
_REPEATED = frozenset({"swap", "shuffle", "noise"})


@answers_for_calls(PlanError)
@dataclass(frozen=True)
class Arm:
    """One condition: an edit at some slots and a rule for what follows.

    Attributes:
        method: A method of this module, or any name of your own with `op`.
        slots: 0-based slots that are edited; empty for baseline and noop.
        downstream: What the unedited slots after the first edited one receive.
        op: Your own edit, `op(live [n, d], context) -> [n, d]` (see interventions.ops); it replaces the vector that
            each slot would be fed, or the state at its site. A stored run knows it by its name, code and values
            (`interventions.identity`), or by an attribute `identity`, text that two others never share. A row on which
            it raises, or gives NaN or infinity, is a failed cell; one that raises everywhere is refused before a run.
        repeats: True: one cell for each donor of the host (noise: for each draw). None: as the method needs.
        stratum: How the donors are drawn: random, or the same operation, steps or answer as the host. A label:
            a generation is the same whichever way its donor was found.
        site: Where the edit acts: None is the vector that a slot is fed.
    """

    method: str
    slots: tuple[int, ...] = ()
    downstream: str = "recompute"
    op: Callable[..., Any] | None = field(default=None, compare=False)
    repeats: bool | None = None
    stratum: str = "random"
    site: Resid | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", _slots(self.slots))
        if self.op is not None and not callable(self.op):
            raise PlanError("an arm's op is a function", got=shown(self.op), expected="op(live, context) -> vectors")
        if self.op is None:
            own = "an edit of your own is an op: Arm('name', [2], op=f)"
            choice(self.method, "method", METHODS, PlanError, fix=own)
        elif not _can_be_a_name(self.method):
            expected = "text that can be printed, without '|'"
            raise PlanError("an edit of your own needs a name", got=shown(self.method), expected=expected)
        elif self.method in METHODS and self.site is None:
            raise PlanError(
                f"{self.method!r} is a method of its own, so an op cannot take that name",
                got=f"Arm({self.method!r}, ..., op=...)",
                fix="give your edit another name",
            )
        choice(self.downstream, "downstream rule", DOWNSTREAM, PlanError)
        choice(self.stratum, "donor stratum", STRATA, PlanError)
        if self.repeats is not None:
            need(self.repeats, bool, "an arm's repeats", PlanError, expected="True, False or None")
        if self.site is not None:
            where = "Resid(layer), or None for the vector that a slot is fed"
            need(self.site, Resid, "an arm's site", PlanError, expected=where, fix="site=Resid(3), for example")
        if (self.method in _UNEDITED) == bool(self.slots):
            raise PlanError(
                f"arm {self.method!r} has the wrong slots",
                got=list(self.slots),
                expected="none" if self.method in _UNEDITED else "at least one",
            )
        if self.site is not None:
            self.site.check(self.method, self.slots, self.downstream, self.op is not None)
        if list(self.slots) != sorted(set(self.slots)) or (self.slots and self.slots[0] < 0):
            raise PlanError("slots must be ascending, distinct and 0 or more", got=list(self.slots))
        if self.method in _SHORTER and (len(self.slots) != 1 or self.downstream != "recompute"):
            raise PlanError(
                f"{self.method} {_SHORTER[self.method]}",
                got=f"slots={list(self.slots)}, downstream={self.downstream}",
                fix="use one slot and downstream='recompute'",
            )
        if self.stratum != "random" and not self.needs_donor:
            raise PlanError(
                f"arm {self.method!r} takes nothing from a donor, so it has no donor stratum",
                got=repr(self.stratum),
                fix="leave stratum out",
            )

    @property
    def needs_donor(self) -> bool:
        """Whether each cell takes something from another problem."""
        return self.method in _FROM_DONOR or (self.op is not None and self.repeated)

    @property
    def repeated(self) -> bool:
        """Whether a host has one cell for each of its donors (or draws)."""
        return self.repeats if self.repeats is not None else self.method in _REPEATED

    @property
    def op_name(self) -> str | None:
        """What tells two own edits apart."""
        return None if self.op is None else op_identity(self.op)

    @property
    def name(self) -> str:
        """The method, and where it acts if not on what slots are fed: `swap`, `zero after L2`."""
        return self.method if self.site is None else f"{self.method} {self.site}"

    @property
    def label(self) -> str:
        """A short name for people and logs, for example `swap CT3` or `swap CT3 (same operation)`."""
        parts = [self.name, slots_label(self.slots)]
        parts += [self.downstream] if self.downstream != "recompute" else []
        return " ".join([*parts, *([f"(same {self.stratum})"] if self.stratum != "random" else [])])


def _slots(given: Any) -> tuple[int, ...]:
    """Slots as a tuple of ints; one number stands for itself."""
    fix = "slots are numbers from 0, in order: Arm('swap', [2]) edits CT2"
    expected = "a number, or a list of them"
    single = isinstance(given, int | float) or getattr(given, "ndim", None) == 0
    several = [given] if single else items(given, "an arm's slots", PlanError, expected=expected, fix=fix)
    return tuple(whole(slot, "an arm's slot", PlanError, fix=fix) for slot in several)


def _can_be_a_name(method: Any) -> bool:
    """Whether records and pages can call an arm so; `|` stands between the parts of an arm's key."""
    return isinstance(method, str) and bool(method.strip()) and method.isprintable() and "|" not in method


def slots_label(slots: Sequence[int]) -> str:
    """`CT3`, `CT0-CT5`, `CT0,CT2`, or `-` where there is none."""
    if not slots:
        return "-"
    if len(slots) > 1 and list(slots) == list(range(slots[0], slots[-1] + 1)):
        return f"CT{slots[0]}-CT{slots[-1]}"
    return ",".join(f"CT{k}" for k in slots)
