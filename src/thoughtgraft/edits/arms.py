"""Arms: an edit at some slots and a rule for what follows; what each slot is then fed, and who gives."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from thoughtgraft.arguments import answers_for_calls, choice, items, need, shown, whole
from thoughtgraft.edits.edit import op_identity
from thoughtgraft.errors import PlanError
from thoughtgraft.tasks.problem import Problem, ProblemSet

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
        op: Your own edit, `op(live [n, d], context) -> [n, d]` (see edits.edit); it replaces the vector that
            each slot would be fed, or the state at its site. A stored run knows it by its name, code and values
            (`edits.edit`), or by an attribute `identity`, text that two others never share. A row on which
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


class Feed(Enum):
    """Where the vector at a slot comes from.

    CLEAN: nothing runs; the clean run's keys and values stand there.
    LIVE: what the row itself computes, `project` of its latest hidden state.
    EDIT: the arm's edit of the live vector.
    REPLAY: the host's clean `fed` of some slot, run again on this row.
    ABSENT: nothing is fed and nothing stands there.
    """

    CLEAN = "clean"
    LIVE = "live"
    EDIT = "edit"
    REPLAY = "replay"
    ABSENT = "absent"


@dataclass(frozen=True)
class Action:
    """The feed at one step; `slot` is the clean slot that a REPLAY repeats, or whose thought is due after a skip."""

    feed: Feed
    slot: int | None = None

    def due(self, step: int) -> int:
        """The slot whose thought a LIVE step makes: its own, or a later one where a slot was left out."""
        return step if self.slot is None else self.slot

    @property
    def runs(self) -> bool:
        """Whether the row computes anything at this slot."""
        return self.feed in (Feed.LIVE, Feed.EDIT, Feed.REPLAY)


_CLEAN, _LIVE, _EDIT, _ABSENT = (Action(f) for f in (Feed.CLEAN, Feed.LIVE, Feed.EDIT, Feed.ABSENT))


def schedule(arm: Arm, num_latents: int, step_of: Callable[[int], int] = lambda slot: slot) -> tuple[Action, ...]:
    """One action for each of the K slots.

    Before the first edited slot everything is clean. Unedited slots after it are LIVE (`recompute`),
    REPLAY of their own clean vector (`freeze_input`), or CLEAN keys and values (`freeze_kv`).
    `noop` runs every slot live. `skip` of slot k replays clean `fed[k + 1]` one position earlier, then goes
    on live, and is one thought short. `truncate` at slot k ends the thoughts before it: k are fed.

    Args:
        arm: The condition.
        num_latents: Steps of the latent loop, K.
        step_of: The step at which an edit of slot k acts, as the loop has it; past the last step nothing is edited.
    """
    edited = [step for step in map(step_of, arm.slots) if step < num_latents]
    if arm.method == "noop":
        return (_LIVE,) * num_latents
    if not edited:
        return (_CLEAN,) * num_latents
    first = edited[0]
    if arm.method == "skip":
        middle = [Action(Feed.REPLAY, first + 1)] if first + 1 < num_latents else []
        live = [Action(Feed.LIVE, k + 1) for k in range(first + len(middle), num_latents - 1)]
        return (*[_CLEAN] * first, *middle, *live, _ABSENT)
    if arm.method == "truncate":
        return tuple(_CLEAN if k < first else _ABSENT for k in range(num_latents))
    after = {
        "recompute": lambda k: _LIVE,
        "freeze_input": lambda k: Action(Feed.REPLAY, k),
        "freeze_kv": lambda k: _CLEAN,
    }
    rule = after[arm.downstream]
    return tuple(_CLEAN if k < first else _EDIT if k in edited else rule(k) for k in range(num_latents))


STRATA: dict[str, Callable[[Problem], object]] = {
    "random": lambda problem: None,
    "operation": lambda problem: problem.operation,
    "steps": lambda problem: len(problem.steps),
    "answer": lambda problem: problem.gold,
}


def check_donors(n_donors: int, n_problems: int) -> None:
    """Raise a PlanError if so many problems cannot give every host so many donors, itself not among them."""
    if not 1 <= n_donors <= n_problems - 1:
        raise PlanError(
            f"{n_donors} donors for each of {n_problems} problems",
            expected=f"1..{n_problems - 1}" if n_problems > 1 else "at least 2 problems",
            fix="ask for fewer donors, or load more problems",
        )


def draw_donors(problems: ProblemSet, n_donors: int, seed: int, stratum: str = "random") -> dict[int, list[int]]:
    """Donor indices of each host.

    Args:
        problems: Hosts and donors, the same block.
        n_donors: Distinct donors of each host, D.
        seed: The run's seed.
        stratum: random, or the same operation, steps or answer as the host. In a stratum smaller than D
            a host gets what exists; it is never filled up.

    Raises:
        PlanError: An unknown stratum, D < 1, or D > n - 1.
    """
    if stratum not in STRATA:
        raise PlanError("unknown donor stratum", got=repr(stratum), expected=", ".join(STRATA))
    check_donors(n_donors, len(problems))
    key = STRATA[stratum]
    donors: dict[int, list[int]] = {}
    for host, problem in enumerate(problems):
        pool = [i for i, other in enumerate(problems) if i != host and key(other) == key(problem)]
        rng = random.Random(f"donors-{seed}-{stratum}-{problem.content_hash}")
        donors[host] = rng.sample(pool, min(n_donors, len(pool)))
    return donors
