"""What to run: arms (conditions), cells (one generation each, with a stable key) and plans (which cells)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from thoughtgraft.errors import PlanError
from thoughtgraft.interventions.donors import draw_donors
from thoughtgraft.problems import ProblemSet

METHODS = ("baseline", "noop", "self", "swap", "mean", "zero", "noise", "skip", "shuffle")
DOWNSTREAM = ("recompute", "freeze_input", "freeze_kv")

_UNEDITED = frozenset({"baseline", "noop"})
_FROM_DONOR = frozenset({"swap", "shuffle"})
_REPEATED = frozenset({"swap", "shuffle", "noise"})


@dataclass(frozen=True)
class Arm:
    """One condition: an edit at some slots and a rule for what follows.

    Attributes:
        method: A method of this module, or any name of your own with `op`.
        slots: 0-based slots that are edited; empty for baseline and noop.
        downstream: What the unedited slots after the first edited one receive.
        op: Your own edit, `op(live [n, d], context) -> [n, d]` (see interventions.ops); it replaces
            the vector that each slot would be fed.
        repeats: True: one cell for each donor of the host (noise: for each draw). None: as the method needs.
    """

    method: str
    slots: tuple[int, ...] = ()
    downstream: str = "recompute"
    op: Callable[..., Any] | None = field(default=None, compare=False)
    repeats: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", tuple(self.slots))
        if self.method not in METHODS and self.op is None:
            raise PlanError(
                "unknown method", got=repr(self.method), expected=", ".join(METHODS), fix="or give the arm an op"
            )
        if self.downstream not in DOWNSTREAM:
            raise PlanError("unknown downstream rule", got=repr(self.downstream), expected=", ".join(DOWNSTREAM))
        if (self.method in _UNEDITED) == bool(self.slots):
            raise PlanError(
                f"arm {self.method!r} has the wrong slots",
                got=list(self.slots),
                expected="none" if self.method in _UNEDITED else "at least one",
            )
        if list(self.slots) != sorted(set(self.slots)) or (self.slots and self.slots[0] < 0):
            raise PlanError("slots must be ascending, distinct and 0 or more", got=list(self.slots))
        if self.method == "skip" and (len(self.slots) != 1 or self.downstream != "recompute"):
            raise PlanError(
                "skip leaves out one slot and recomputes what follows",
                got=f"slots={list(self.slots)}, downstream={self.downstream}",
                fix="use one slot and downstream='recompute'",
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
    def label(self) -> str:
        """A short name for people and logs, for example `swap CT3`."""
        return " ".join([self.method, slots_label(self.slots), *([self.downstream] * (self.downstream != "recompute"))])


def slots_label(slots: Sequence[int]) -> str:
    """`CT3`, `CT0-CT5`, `CT0,CT2`, or `-` where there is none."""
    if not slots:
        return "-"
    if len(slots) > 1 and list(slots) == list(range(slots[0], slots[-1] + 1)):
        return f"CT{slots[0]}-CT{slots[-1]}"
    return ",".join(f"CT{k}" for k in slots)


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


@dataclass(frozen=True)
class Plan:
    """Arms over hosts, each host with the same donors in every arm; or explicit (host, donor, slot) triples.

    Attributes:
        arms: The conditions.
        n_donors: Donors of each host, D.
        seed: Seeds donors and random edits.
        stratum: How donors are chosen: random, operation, steps or answer.
        hosts: Only the first so many problems are hosts; all problems can be donors.
        triples: Explicit swaps (host, donor, slot); then n_donors is not used.
    """

    arms: tuple[Arm, ...]
    n_donors: int = 1
    seed: int = 0
    stratum: str = "random"
    hosts: int | None = None
    triples: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", tuple(self.arms))
        if not self.arms and not self.triples:
            raise PlanError("the plan has nothing to run", expected="at least one arm or triple")

    @classmethod
    def from_triples(cls, triples: Sequence[tuple[int, int, int]], *, seed: int = 0) -> Plan:
        """A plan of explicit swaps: donor's `fed[slot]` into host; host and donor may be the same."""
        return cls((), seed=seed, triples=tuple((int(h), int(d), int(k)) for h, d, k in triples))

    def cells(self, problems: ProblemSet, identity: Mapping[str, Any], pads: Sequence[int] | None = None) -> list[Cell]:
        """Every cell, host by host, with keys that depend on nothing but what defines the cell.

        Args:
            problems: Hosts and donors.
            identity: The model's identity (weights, protocol, dtype, num_latents).
            pads: Visible pads of each problem, under `official-padded`.

        Raises:
            PlanError: A slot, host or donor that does not exist, or more donors than problems allow.
        """
        num_latents = int(identity["num_latents"])
        maker = _CellMaker(problems, dict(identity), self.seed, pads)
        if self.triples:
            return [self._triple(maker, triple, num_latents) for triple in self.triples]
        for arm in self.arms:
            check_slots(arm.slots, num_latents)
        n_hosts = len(problems) if self.hosts is None else min(self.hosts, len(problems))
        needs_donors = any(arm.needs_donor for arm in self.arms)
        donors = draw_donors(problems, self.n_donors, self.seed, self.stratum) if needs_donors else {}
        cells: list[Cell] = []
        for host in range(n_hosts):
            for arm in self.arms:
                if arm.needs_donor:
                    cells += [maker.cell(arm, host, donor=d) for d in donors[host]]
                elif arm.repeated:
                    cells += [maker.cell(arm, host, draw=i) for i in range(self.n_donors)]
                else:
                    cells.append(maker.cell(arm, host))
        return cells

    def _triple(self, maker: _CellMaker, triple: tuple[int, int, int], num_latents: int) -> Cell:
        host, donor, slot = triple
        check_slots((slot,), num_latents)
        for index in (host, donor):
            if not 0 <= index < len(maker.problems):
                raise PlanError(
                    "a triple names a problem that is not there", got=index, expected=f"0..{len(maker.problems) - 1}"
                )
        return maker.cell(Arm("swap", (slot,)), host, donor=donor)

    def describe(self) -> dict[str, Any]:
        """The plan as JSON-able data, for run.json and for its hash."""
        return {
            "arms": [{"method": a.method, "slots": list(a.slots), "downstream": a.downstream} for a in self.arms],
            "n_donors": self.n_donors,
            "seed": self.seed,
            "stratum": self.stratum,
            "hosts": self.hosts,
            "triples": [list(t) for t in self.triples],
        }

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

    @cached_property
    def source(self) -> str:
        """Hash of the set of problems that a mean is taken over, in any order, with their visible pads."""
        pads = [0] * len(self.problems) if self.pads is None else self.pads
        return _digest(sorted([p.content_hash, pad] for p, pad in zip(self.problems, pads, strict=True)))

    def cell(self, arm: Arm, host: int, donor: int | None = None, draw: int | None = None) -> Cell:
        content = dict(
            self.identity,
            host=self.problems[host].content_hash,
            donor=None if donor is None else self.problems[donor].content_hash,
            method=arm.method,
            slots=list(arm.slots),
            downstream=arm.downstream,
        )
        if arm.method == "noise" or arm.op is not None:
            content.update(seed=self.seed, draw=draw)
        if arm.method == "mean" or arm.op is not None:
            content.update(source=self.source)
        if self.pads is not None:
            content.update(pad=self.pads[host], donor_pad=None if donor is None else self.pads[donor])
        return Cell(arm, host, _digest(content), donor, draw)


def check_slots(slots: Sequence[int], num_latents: int) -> None:
    """Raise a PlanError if a slot does not exist."""
    for slot in slots:
        if not 0 <= slot < num_latents:
            hint = (
                "; the vector after the last thought is never fed, so it cannot matter" if slot == num_latents else ""
            )
            raise PlanError(
                f"slot {slot} does not exist",
                got=f"slot {slot}",
                expected=(f"0..{num_latents - 1} (CT0..CT{num_latents - 1})" if num_latents else "no slot") + hint,
                fix="choose an existing slot, or load the model with another num_latents",
            )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
