"""Arms: a change at a site, what the slots after it receive, and who gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from thoughtgraft.arguments import answers_for_calls, choice, closest, need
from thoughtgraft.edits.donors import STRATA
from thoughtgraft.edits.edit import EDITS, Change, Custom, Edit, by_name
from thoughtgraft.edits.schedule import AFTER, CLEAN, Actions, After
from thoughtgraft.edits.site import KINDS, Resid, Site, slots_of
from thoughtgraft.errors import PlanError


class Short(TypedDict, total=False):
    """The short forms of an arm's parts.

    Attributes:
        op: Your own edit, `op(live [n, d], at) -> [n, d]`; the arm is called by the name given first (`Custom`).
        repeats: Whether that has one cell for each donor of the host.
        identity: What a stored cell knows it by.
        downstream: The same as `after`.
        stratum: The same as `donors`.
    """

    op: Callable[..., Any]
    repeats: bool | None
    identity: str | None
    downstream: str
    stratum: str


@answers_for_calls(PlanError)
@dataclass(frozen=True, init=False)
class Arm:
    """One condition. `Arm("swap", [3])`, `Arm(Zero(), Site("resid", [2], 5))`, `Arm("double", [3], op=f)`.

    Attributes:
        change: What is done to the host's run.
        site: Where; None where nothing is edited.
        after: What the unedited slots after the first edited one receive: thoughts computed anew (`recompute`), their
            clean vectors again (`freeze_input`), or their clean keys and values (`freeze_kv`).
        donors: How the donors are drawn: random, or with the same operation, steps or answer as the host. A label: a
            generation is the same whichever way its donor was found.
    """

    change: Change
    site: Site | None
    after: After
    donors: str

    def __init__(
        self,
        change: Change | str,
        slots: Iterable[int] | int | Site = (),
        after: str = "recompute",
        donors: str = "random",
        *,
        site: Site | Resid | None = None,
        **short: Unpack[Short],
    ) -> None:
        """An arm from its parts, or from their short forms.

        Args:
            change: A change, the name of one that is known, or the name of your own with `op`.
            slots: 0-based slots; none for baseline and noop. A Site is taken as it is.
            after: What follows.
            donors: How donors are drawn.
            site: `Resid(layer)` puts the slots at a residual stream.
            short: See `Short`.

        Raises:
            PlanError: What was given makes no sense.
        """
        _check_words(short)
        parts: dict[str, Any] = {
            "change": _change(change, short),
            "site": _site(slots, site),
            "after": choice(_either(after, short.get("downstream"), "downstream"), "downstream rule", AFTER, PlanError),
            "donors": choice(_either(donors, short.get("stratum"), "stratum"), "donor stratum", STRATA, PlanError),
        }
        for name, part in parts.items():
            object.__setattr__(self, name, part)
        self._check()

    def _check(self) -> None:
        """Refuse a change where it has no meaning."""
        change, site, name = self.change, self.site, self.change.name
        if (change.takes == "none") == bool(self.slots):
            expected = "none" if change.takes == "none" else "at least one"
            raise PlanError(f"arm {name!r} has the wrong slots", got=list(self.slots), expected=expected)
        if change.shortens and (len(self.slots) != 1 or self.after != "recompute"):
            raise PlanError(
                f"{name} {change.shortens}",
                got=f"slots={list(self.slots)}, after={self.after}",
                fix="use one slot and after='recompute'",
            )
        if site is not None and site.kind not in change.kinds:
            raise PlanError(
                f"{name!r} has no meaning at {KINDS[site.kind]}",
                got=f"{name} {site.label()}",
                expected=", ".join(known for known, kind in EDITS.items() if site.kind in kind.kinds),
                fix="give the arm an op, or another site",
            )
        if self.layer is not None and self.after != "recompute":
            raise PlanError(
                "what follows an edit of a residual stream is always recomputed",
                got=f"{self.label}",
                fix="use after='recompute'",
            )
        if self.donors != "random" and not self.needs_donor:
            raise PlanError(
                f"arm {name!r} takes nothing from a donor, so it has no donor stratum",
                got=repr(self.donors),
                fix="leave donors out",
            )

    @property
    def slots(self) -> tuple[int, ...]:
        """The 0-based slots that are edited; none where nothing is."""
        return () if self.site is None else self.site.slots

    @property
    def layer(self) -> int | None:
        """The 0-based block after which the residual stream is edited; None: what the slots are fed is."""
        return None if self.site is None else self.site.layer

    @property
    def edit(self) -> Edit | None:
        """The change as an edit; None where it edits no state."""
        return self.change if isinstance(self.change, Edit) else None

    @property
    def needs_donor(self) -> bool:
        """Whether each cell takes something from another problem."""
        return "donor" in self.change.needs

    @property
    def label(self) -> str:
        """A short name for people and logs: `baseline`, `swap CT3`, `swap CT3 freeze_kv (same operation)`."""
        parts = [self.change.name, *([] if self.site is None else [self.site.label()])]
        parts += [self.after] if self.after != "recompute" else []
        return " ".join([*parts, *([f"(same {self.donors})"] if self.donors != "random" else [])])


def schedule(arm: Arm, num_latents: int, step_of: Callable[[int], int] = lambda slot: slot) -> Actions:
    """One action for each of the K steps of the latent loop.

    Args:
        arm: The condition.
        num_latents: K.
        step_of: The step at which an edit of slot k acts, as the loop has it; past the last step nothing is edited.
    """
    steps = [step for step in map(step_of, arm.slots) if step < num_latents]
    if arm.slots and not steps:
        return (CLEAN,) * num_latents
    return arm.change.actions(steps, num_latents, arm.after)


def _check_words(short: Short) -> None:
    """Refuse a word that is none of an arm's."""
    known = [*Short.__annotations__]
    for word in short:
        if word not in known:
            names = ["change", "slots", "after", "donors", "site", *known]
            close = closest(word, names)
            raise PlanError(
                "Arm was called with other arguments than it has",
                got=f"an unexpected keyword argument {word!r}",
                expected=f"Arm({', '.join(names)})",
                fix=close and f"did you mean {close!r}?",
            )


def _change(given: Any, short: Short) -> Change:
    """The change itself, or the one that a name and an op stand for."""
    if (op := short.get("op")) is not None:
        repeats = short.get("repeats")
        return Custom(given, op, False if repeats is None else repeats, short.get("identity"))
    for word in ("repeats", "identity"):
        if short.get(word) is not None:
            fix = "Arm('double', [3], op=f, repeats=True, identity='doubled, v1')"
            raise PlanError(f"an arm's {word} belongs to an op", got=f"{word}, and no op", fix=fix)
    if isinstance(given, Change):
        return given
    if isinstance(given, type) and issubclass(given, Change):
        expected = f"{given.__name__}(), an edit, not its class"
        raise PlanError("an arm's change is not usable", got=given.__name__, expected=expected)
    return by_name(given)


def _either(given: str, short: str | None, word: str) -> str:
    """A part as it was given, or by its short form; not both."""
    if short is not None and given not in ("recompute", "random"):
        raise PlanError(f"an arm's {word} is given twice", got=f"{given!r} and {short!r}", expected="one of them")
    return given if short is None else short


def _site(slots: Any, site: Any) -> Site | None:
    """The site that slots and a layer make."""
    if isinstance(slots, Site):
        slots, site = (), need(slots if site is None else None, Site, "an arm's site", PlanError, expected="one Site")
    given = slots_of(slots)
    if isinstance(site, Site):
        if given:
            raise PlanError("an arm's slots are given twice", got=f"{list(given)} and {site}", expected="one of them")
        return site
    if site is not None:
        where = "Resid(layer), a Site, or None for the vector that a slot is fed"
        site = need(site, Resid, "an arm's site", PlanError, expected=where, fix="site=Resid(3), for example")
    if not given:
        return None
    return Site("fed", given) if site is None else Site("resid", given, site.layer)
