"""What a plan asks for, by its definitions: which cells, under which keys, with which donors, fed with what.

An arm's own facts are read from it: its change, its site, what the change needs and is stored as. What follows from
them is made anew here.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.known import Noop, Skip, Swap, Truncate
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.verify.reading import written
from thoughtgraft.models.loop import Loop
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.tasks.problem import Problem, ProblemSet

_ALIKE: dict[str, Callable[[Problem], object]] = {
    "random": lambda problem: None,
    "operation": lambda problem: problem.operation,
    "steps": lambda problem: len(problem.steps),
    "answer": lambda problem: problem.gold,
}
_KEY, _CONTENT = 20, 16  # characters of a hash


@dataclass(frozen=True)
class Wanted:
    """One generation: an arm on a host, with a donor or a draw; 0-based."""

    arm: Arm
    host: int
    donor: int | None = None
    draw: int | None = None
    key: str = ""


class Planned:
    """A plan on problems, as far as its records can be told beforehand.

    Args:
        model: The model.
        problems: The problems.
        plan: The plan.
        pads: Visible pads of each problem.
        limit: The longest answer.
    """

    def __init__(
        self, model: LatentReasoner, problems: ProblemSet, plan: Plan, pads: Sequence[int], limit: int
    ) -> None:
        self.model, self.problems, self.plan, self.pads = model, problems, plan, pads
        self.known = {id(arm): arm.change.stored_as() for arm in plan.arms}  # once: sources are read for it
        self.made_by = _hash({**model.identity, "max_new_tokens": limit, "task": "number"}, _KEY)

    def cells(self) -> list[Wanted]:
        """Every generation, in order."""
        place: dict[str | int, int] = dict(enumerate(range(len(self.problems))))
        place |= {problem.id: i for i, problem in enumerate(self.problems)}
        found = [Wanted(Arm(Swap(), (slot,)), place[host], place[donor]) for host, donor, slot in self.plan.triples]
        for host in range(len(self.problems))[: self.plan.hosts]:
            for arm in self.plan.arms:
                draws: Sequence[int | None] = range(self.plan.n_donors) if arm.change.repeated else [None]
                if arm.needs_donor:
                    found += [Wanted(arm, host, donor) for donor in self._donors(host, arm.donors)]
                else:
                    found += [Wanted(arm, host, draw=draw) for draw in draws]
        return [replace(one, key=self._key(one)) for one in found]

    def _donors(self, host: int, stratum: str) -> list[int]:
        """Others of the host's kind, each once: Python's `sample` of them, seeded by run, stratum and host."""
        kind, mine = _ALIKE[stratum], self.problems[host]
        others = [i for i, problem in enumerate(self.problems) if i != host and kind(problem) == kind(mine)]
        seed = f"donors-{self.plan.seed}-{stratum}-{_content(mine)}"
        return random.Random(seed).sample(others, min(self.plan.n_donors, len(others)))

    def _key(self, one: Wanted) -> str:
        """A hash of what made the answers and of all that defines the generation, and of nothing else."""
        arm, host, donor = one.arm, one.host, one.donor
        content: dict[str, Any] = {
            "made_by": self.made_by,
            "host": _content(self.problems[host]),
            "donor": None if donor is None else _content(self.problems[donor]),
            "method": arm.change.name,
            "slots": list(arm.slots),
            "downstream": arm.after,
        }
        if arm.change.own:
            content["op"] = self.known[id(arm)]
        if arm.layer is not None:
            content["resid"] = arm.layer
        if arm.change.own or "draw" in arm.change.needs:
            content |= {"seed": self.plan.seed, "draw": one.draw}
        if arm.change.own or "mean" in arm.change.needs:
            everyone = zip(self.problems, self.pads, strict=True)
            content["source"] = _hash(sorted([_content(problem), pad] for problem, pad in everyone), _KEY)
        if self.model.protocol.pads_visible:
            content |= {"pad": self.pads[host], "donor_pad": None if donor is None else self.pads[donor]}
        return _hash(content, _KEY)

    def columns(self, one: Wanted) -> dict[str, Any]:
        """The columns of a record that say whose it is."""
        arm, host, edit = one.arm, self.problems[one.host], self.model.edit
        columns = {
            "cell": one.key,
            "arm": arm.label,
            "method": arm.change.name,
            "slots": tuple(arm.slots),
            "site_kind": None if arm.site is None else arm.site.kind,
            "site_layer": arm.layer,
            "downstream": arm.after if arm.slots else None,
            "protocol": self.model.protocol.name,
            "num_latents": self.model.num_latents,
            "model_edit": None if edit is None else edit.name,
            "problem_id": host.id,
            "split": host.split,
            "n_steps": len(host.steps) or None,
            "operation": host.operation,
            "pad": self.pads[one.host],
            "seed": self.plan.seed if arm.change.own or one.draw is not None else None,
        }
        if one.donor is not None:
            columns["donor_id"] = self.problems[one.donor].id
            columns["donor_stratum"] = "self" if one.donor == one.host else arm.donors
        return columns


def program(arm: Arm, loop: Loop, num_latents: int) -> list[tuple[str, int]]:
    """What stands at each position after the prompt, in order: how it comes there, and the slot that it is.

    `clean`: the host's clean vector is fed again. `kept`: its clean keys and values stand there. `live`: the row's own
    thought. `edit`: the edit of it. Before the first edit live and clean are the same.
    """
    clean = [("clean", k) for k in range(num_latents)]
    edited = [loop.step_of(slot) for slot in arm.slots if loop.step_of(slot) < num_latents]
    if isinstance(arm.change, Noop):
        return [("live", k) for k in range(num_latents)]
    if not edited:
        return clean
    first = edited[0]
    if isinstance(arm.change, Truncate):
        return clean[:first]
    if isinstance(arm.change, Skip):
        # fed[k + 1] is fed again; the thoughts after it are computed.
        return [*clean[:first], *clean[first + 1 : first + 2], *(("live", k) for k in range(first + 2, num_latents))]
    later = {"recompute": "live", "freeze_input": "clean", "freeze_kv": "kept"}[arm.after]
    return [("edit" if k in edited else "clean" if k < first else later, k) for k in range(num_latents)]


def _content(problem: Problem) -> str:
    """Hash of what the model sees and is graded on."""
    return _hash([problem.question, None if problem.gold is None else written(Fraction(problem.gold))], _CONTENT)


def _hash(content: Any, length: int) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:length]
