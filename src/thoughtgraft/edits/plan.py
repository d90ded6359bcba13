"""What to run: cells (one generation each, with a stable key) and plans (which cells)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from thoughtgraft.arguments import answers_for_calls, items, need, seed_of, shown, whole
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.donors import draw_donors
from thoughtgraft.edits.known import Swap
from thoughtgraft.edits.site import Site
from thoughtgraft.errors import PlanError
from thoughtgraft.tasks.problem import ProblemSet

Triple = tuple[str | int, str | int, int]
"""An explicit swap: host, donor and slot; a problem is named by its id, or by its 0-based place."""


@dataclass(frozen=True)
class Cell:
    """One generation: an arm on a host, with a donor or a draw where the arm needs one.

    `host` and `donor` are 0-based indices into the problem set; `draw` numbers repeated random edits.
    """

    arm: Arm
    host: int
    key: str
    donor: int | None = None
    draw: int | None = None

    @property
    def stratum(self) -> str | None:
        """How the donor was found; `self` where it is the host, None without one."""
        if self.donor is None:
            return None
        return "self" if self.donor == self.host else self.arm.donors

    @property
    def record(self) -> tuple[str, str | None]:
        """What its record is known by: one generation that serves two strata makes two records."""
        return self.key, self.stratum


@answers_for_calls(PlanError)
@dataclass(frozen=True)
class Plan:
    """Arms over hosts, each host with the same donors in every arm of a stratum; or explicit triples.

    Attributes:
        arms: The conditions.
        n_donors: Donors of each host, D; fewer where a host's stratum holds fewer.
        seed: Seeds donors and random edits.
        hosts: Only the first so many problems are hosts; all problems can be donors.
        only_correct: Only problems that the unedited model answers right are hosts (`hosts` counts those).
        triples: Explicit swaps (host, donor, slot), problems by their ids, or by their 0-based places in the set;
            then n_donors is not used.
    """

    arms: Sequence[Arm]
    n_donors: int = 1
    seed: int = 0
    hosts: int | None = None
    only_correct: bool = False
    triples: tuple[Triple, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", _arms(self.arms))
        object.__setattr__(self, "triples", _triples(self.triples))
        object.__setattr__(self, "n_donors", whole(self.n_donors, "n_donors", PlanError, least=1))
        object.__setattr__(self, "seed", seed_of(self.seed, PlanError))
        if self.hosts is not None:
            object.__setattr__(self, "hosts", whole(self.hosts, "hosts", PlanError, least=1))
        need(self.only_correct, bool, "only_correct", PlanError, expected="True or False")
        if bool(self.arms) == bool(self.triples):
            what = "the plan has both arms and triples" if self.arms else "the plan has nothing to run"
            raise PlanError(what, expected="at least one arm, or at least one triple")
        seen: set[tuple[Any, ...]] = set()
        for arm in self.arms:
            # What records know an arm by.
            key = (arm.change.name, arm.site, arm.after if arm.slots else "", arm.donors)
            if key in seen:
                raise PlanError(
                    "two arms of the plan have one name, so that records could not tell them apart",
                    got=arm.label,
                    fix="give each edit of your own another name, and every other arm once",
                )
            seen.add(key)

    @classmethod
    def from_triples(cls, triples: Sequence[Triple], *, seed: int = 0) -> Plan:
        """A plan of explicit swaps: donor's `fed[slot]` into host; host and donor may be the same."""
        return cls((), seed=seed, triples=triples)  # type: ignore[arg-type]

    def cells(
        self,
        problems: ProblemSet,
        identity: Mapping[str, Any],
        pads: Sequence[int] | None = None,
        correct: Sequence[bool] | None = None,
    ) -> list[Cell]:
        """Every cell, host by host, with keys that depend on nothing but what defines the cell.

        Args:
            problems: Hosts and donors.
            identity: All that answers rest on beside problem and arm (the model's identity, how long an answer may be,
                how it is read), and `num_latents` in it; cells keep a hash of it.
            pads: Visible pads of each problem, under `official-padded`.
            correct: Whether each problem is answered right unedited; needed with `only_correct`.

        Raises:
            PlanError: A slot, host or donor that does not exist, more donors than problems allow, or no host is left.
        """
        num_latents = int(identity["num_latents"])
        # Each edit is looked at once, so that all cells of an arm agree on what it is.
        known = {id(arm): arm.change.stored_as() for arm in self.arms}
        maker = _CellMaker(problems, dict(identity), self.seed, pads, known)
        if self.triples:
            return [self._triple(maker, triple, num_latents) for triple in self.placed(problems)]
        for arm in self.arms:
            check_slots(arm.slots, num_latents)
        strata = dict.fromkeys(arm.donors for arm in self.arms if arm.needs_donor)
        donors = {name: draw_donors(problems, self.n_donors, self.seed, name) for name in strata}
        cells: list[Cell] = []
        for host in self._hosts(problems, correct):
            for arm in self.arms:
                if arm.needs_donor:
                    cells += [maker.cell(arm, host, donor=d) for d in donors[arm.donors][host]]
                elif arm.change.repeated:
                    cells += [maker.cell(arm, host, draw=i) for i in range(self.n_donors)]
                else:
                    cells.append(maker.cell(arm, host))
        return cells

    def _hosts(self, problems: ProblemSet, correct: Sequence[bool] | None) -> list[int]:
        hosts = list(range(len(problems)))
        if self.only_correct:
            if correct is None:
                raise PlanError("hosts right at baseline need the clean answers", fix="give correct")
            hosts = [host for host in hosts if correct[host]]
            if not hosts:
                raise PlanError(
                    "no problem is answered right without an edit, so none is left to be a host",
                    got=f"0 of {len(problems)} right",
                    expected="at least one",
                    fix="leave --only-correct out, or use a model that solves some of these problems",
                )
        return hosts[: self.hosts]

    def _triple(self, maker: _CellMaker, triple: tuple[int, int, int], num_latents: int) -> Cell:
        host, donor, slot = triple
        check_slots((slot,), num_latents)
        return maker.cell(Arm(Swap(), Site("fed", (slot,))), host, donor=donor)

    def placed(self, problems: ProblemSet) -> list[tuple[int, int, int]]:
        """The triples with problems by their 0-based places.

        Raises:
            PlanError: A triple names a problem that is not there.
        """
        place = {problem.id: i for i, problem in enumerate(problems)} if self.triples else {}

        def of(named: str | int) -> int:
            found = place.get(named, -1) if isinstance(named, str) else named
            if not 0 <= found < len(problems):
                expected = f"an id of {problems.name}, or a place 0..{len(problems) - 1}"
                raise PlanError("a triple names a problem that is not there", got=repr(named), expected=expected)
            return found

        return [(of(host), of(donor), slot) for host, donor, slot in self.triples]

    def describe(self) -> dict[str, Any]:
        """The plan as JSON-able data, for run.json and for its hash."""
        return {
            "arms": [
                {"method": a.change.name, "slots": list(a.slots), "downstream": a.after}
                | ({"stratum": a.donors} if a.needs_donor else {})
                | ({"op": a.change.stored_as(), "repeats": a.change.repeated} if a.change.own else {})
                | ({"resid": a.layer} if a.layer is not None else {})
                for a in self.arms
            ],
            "n_donors": self.n_donors,
            "seed": self.seed,
            "hosts": self.hosts,
            "only_correct": self.only_correct,
            "triples": [list(t) for t in self.triples],
        }

    def require_identities(self) -> None:
        """Raise a PlanError for the first edit of one's own that stored cells could not be told apart by."""
        for arm in self.arms:
            if arm.change.own and arm.change.stored_as() is None:
                name, slots = arm.change.name, list(arm.slots)
                raise PlanError(
                    f"the edit of {arm.label} has no identity, so that its stored cells could be taken for another's",
                    got="a run in a folder",
                    expected="a text that you change whenever the edit does something else than before",
                    fix=f"Arm({name!r}, {slots}, op=..., identity='{name}, v1'), or run in memory, without out",
                )

    @property
    def plan_hash(self) -> str:
        """Hash of `describe()`."""
        return _digest(self.describe())


@dataclass
class _CellMaker:
    problems: ProblemSet
    identity: dict[str, Any]
    seed: int
    pads: Sequence[int] | None
    known: Mapping[int, str | None]

    @cached_property
    def made_by(self) -> str:
        """Hash of the identity, once for all cells."""
        return _digest(self.identity)

    @cached_property
    def source(self) -> str:
        """Hash of the set of problems that a mean is taken over, in any order, with their visible pads."""
        pads = [0] * len(self.problems) if self.pads is None else self.pads
        return _digest(sorted([p.content_hash, pad] for p, pad in zip(self.problems, pads, strict=True)))

    def cell(self, arm: Arm, host: int, donor: int | None = None, draw: int | None = None) -> Cell:
        content: dict[str, Any] = {
            "made_by": self.made_by,
            "host": self.problems[host].content_hash,
            "donor": None if donor is None else self.problems[donor].content_hash,
            "method": arm.change.name,
            "slots": list(arm.slots),
            "downstream": arm.after,
        }
        needs, own = arm.change.needs, arm.change.own
        if own:
            content.update(op=self.known[id(arm)])
        if arm.layer is not None:
            content.update(resid=arm.layer)
        # An edit of one's own may draw, and look at all problems.
        if own or "draw" in needs:
            content.update(seed=self.seed, draw=draw)
        if own or "mean" in needs:
            content.update(source=self.source)
        if self.pads is not None:
            content.update(pad=self.pads[host], donor_pad=None if donor is None else self.pads[donor])
        return Cell(arm, host, _digest(content), donor, draw)


def _arms(given: Any) -> tuple[Arm, ...]:
    fix = "Plan([Arm('baseline'), Arm('swap', [2])], n_donors=5), for example"
    arms = items(given, "a plan's arms", PlanError, expected="a list of Arms", fix=fix)
    return tuple(need(arm, Arm, "one of the plan's arms", PlanError, expected="an Arm", fix=fix) for arm in arms)


def _triples(given: Any) -> tuple[Triple, ...]:
    expected = "a list of (host, donor, slot), such as ('test_3', 'test_7', 2)"
    found: list[Triple] = []
    for triple in items(given, "a plan's triples", PlanError, expected=expected):
        try:
            host, donor, slot = triple
        except (TypeError, ValueError):
            raise PlanError("one of the triples is not usable", got=shown(triple), expected=expected) from None
        host, donor = (
            named if isinstance(named, str) else whole(named, "a problem of a triple", PlanError)
            for named in (host, donor)
        )
        found.append((host, donor, whole(slot, "the slot of a triple", PlanError)))
    return tuple(found)


def check_slots(slots: Sequence[int], num_latents: int) -> None:
    """Raise a PlanError if a slot does not exist."""
    if slots and not num_latents:
        raise PlanError(
            "there is no slot to edit",
            got=f"slot {slots[0]}, and a model that is fed no thoughts",
            expected="a model that is fed at least one",
            fix="take a model that thinks, such as tiny-codi",
        )
    for slot in slots:
        if not 0 <= slot < num_latents:
            hint = (
                "; the vector after the last thought is never fed, so it cannot matter" if slot == num_latents else ""
            )
            raise PlanError(
                f"slot {slot} does not exist",
                got=f"slot {slot}",
                expected=f"0..{num_latents - 1} (CT0..CT{num_latents - 1}){hint}",
                fix="choose an existing slot, or load the model with another num_latents",
            )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
