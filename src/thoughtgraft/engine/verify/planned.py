"""The records that a plan must give: which cells, in which order, under which keys, with which donors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from thoughtgraft.engine.verify.expected import Wanted
from thoughtgraft.engine.verify.reading import written
from thoughtgraft.interventions.arms import Arm
from thoughtgraft.interventions.plan import Plan
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.problems import Problem, ProblemSet

_ALIKE: dict[str, Callable[[Problem], object]] = {
    "random": lambda problem: None,
    "operation": lambda problem: problem.operation,
    "steps": lambda problem: len(problem.steps),
    "answer": lambda problem: problem.answer,
}
_KEY, _CONTENT = 20, 16  # characters of a hash


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
        self.made_by = _hash({**model.identity, "max_new_tokens": limit, "task": "number"}, _KEY)

    def cells(self, donor_ids: Sequence[str | None]) -> list[Wanted]:
        """Every generation in order. Who the donors are is drawn by the run: it names them, and they are judged."""
        places = {problem.id: i for i, problem in enumerate(self.problems)}
        named = iter(donor_ids)
        found = []
        for one in self._asked():
            donor = places.get(str(next(named, None)))
            one = replace(one, donor=donor) if one.arm.needs_donor else one
            found.append(replace(one, key=self._key(one)))
        return found

    def _asked(self) -> Iterator[Wanted]:
        for host, donor, slot in self.plan.triples:
            yield Wanted(Arm("swap", (slot,)), host, donor)
        for host in range(len(self.problems))[: self.plan.hosts]:
            for arm in self.plan.arms:
                if arm.needs_donor:
                    alike = _ALIKE[arm.stratum]
                    pool = sum(alike(p) == alike(self.problems[host]) for p in self.problems) - 1
                    yield from [Wanted(arm, host)] * min(self.plan.n_donors, pool)
                else:
                    draws = range(self.plan.n_donors) if arm.repeated else [None]
                    yield from (Wanted(arm, host, draw=draw) for draw in draws)

    def _key(self, one: Wanted) -> str:
        """A hash of what made the answers and of all that defines the generation, and of nothing else."""
        arm, host, donor = one.arm, one.host, one.donor
        content: dict[str, Any] = {
            "made_by": self.made_by,
            "host": _content(self.problems[host]),
            "donor": None if donor is None else _content(self.problems[donor]),
            "method": arm.method,
            "slots": list(arm.slots),
            "downstream": arm.downstream,
        }
        if arm.op is not None:
            content["op"] = arm.op_name
        if arm.site is not None:
            content["resid"] = arm.site.layer
        if arm.op is not None or arm.method == "noise":
            content |= {"seed": self.plan.seed, "draw": one.draw}
        if arm.op is not None or arm.method == "mean":
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
            "method": arm.name,
            "slots": tuple(arm.slots),
            "downstream": arm.downstream if arm.slots else None,
            "protocol": self.model.protocol.name,
            "num_latents": self.model.num_latents,
            "model_edit": None if edit is None else edit.name,
            "problem_id": host.id,
            "split": host.split,
            "n_steps": len(host.steps) or None,
            "operation": host.operation,
            "pad": self.pads[one.host],
            "seed": self.plan.seed if arm.op is not None or one.draw is not None else None,
        }
        if arm.needs_donor:
            columns["donor_id"] = None if one.donor is None else self.problems[one.donor].id
            columns["donor_stratum"] = "self" if one.donor == one.host else arm.stratum
        return columns

    def wrong_donors(self, cells: Sequence[Wanted]) -> list[str]:
        """Donors against their definition: others, each once, of the host's stratum, the same in every arm."""
        if self.plan.triples:
            pairs = zip(self.plan.triples, cells, strict=False)
            return [f"the swap {triple} has another donor" for triple, one in pairs if one.donor != triple[1]]
        drawn: dict[tuple[int, str], dict[int, list[int | None]]] = {}
        for one in cells:
            if one.arm.needs_donor:
                drawn.setdefault((one.host, one.arm.stratum), {}).setdefault(id(one.arm), []).append(one.donor)
        wrong = []
        for (host, stratum), by_arm in drawn.items():
            kind, first = _ALIKE[stratum], next(iter(by_arm.values()))
            others = [i for i in first if i is not None and kind(self.problems[i]) != kind(self.problems[host])]
            said = {
                "the host is its own donor": host in first,
                "a donor is there twice": len(set(first)) < len(first),
                "an arm has other donors": any(donors != first for donors in by_arm.values()),
                "a donor is not of its kind": bool(others),
            }
            who = f"problem {self.problems[host].id}, donors drawn by {stratum}"
            wrong += [f"{who}: {what}" for what, is_so in said.items() if is_so]
        return wrong


def _content(problem: Problem) -> str:
    """Hash of what the model sees and is graded on."""
    return _hash([problem.question, None if problem.gold is None else written(problem.gold)], _CONTENT)


def _hash(content: Any, length: int) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:length]
