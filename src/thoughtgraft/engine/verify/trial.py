"""A small run that is as real as the one to come: its arms, on problems that show what ordinary ones would hide.

The first host's question holds double spaces, and its gold answer is the model's own but for a hair. The second has a
donor's answer as its gold, and a donor that asks the same as itself. One edit acts on more than 64 rows at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from math import ceil

from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.donors import STRATA, draw_donors
from thoughtgraft.edits.edit import named
from thoughtgraft.edits.known import Baseline, Noop, Swap
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.schedule import AFTER
from thoughtgraft.edits.site import Resid
from thoughtgraft.engine.collect import think_clean_runs
from thoughtgraft.engine.verify.oracle import ask
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.tasks.problem import Problem, ProblemSet

CROWD = 65
"""Rows of one edit at one step that a run asks for at least: what holds for few need not hold for many."""
_HOSTS, _DONORS = 3, 3
_MOST = 1200  # records
_SEEDS = 20
_HAIR = Fraction(1, 10**18)  # relative; no float can tell it
_ROOM = 40  # tokens for an answer, and for the numbers that are put in its place
_TRIPLES = 12


@dataclass(frozen=True)
class Trial:
    """Problems, a plan on them, the longest answer, and what could not be tried."""

    problems: ProblemSet
    plan: Plan
    limit: int
    notes: tuple[str, ...] = ()


def standard_plan(model: LatentReasoner, *, full: bool = True) -> Plan:
    """Every change that its name alone makes, with every rule for what follows, at every slot (or three) and several.

    Edits of one's own, with donors and without, act on what slots are fed and on the residual streams after the first
    and the last block.
    """
    k = model.num_latents
    arms = [Arm(Baseline())]
    if k == 0:
        return Plan(tuple(arms))
    middle, every = k // 2, tuple(range(k))
    single = every if full else tuple(sorted({0, middle, k - 1}))
    several = dict.fromkeys([every[: middle + 1], every, (0, k - 1)] if k > 1 else [])
    arms.append(Arm(Noop()))
    known = [change for change in named() if k >= change.least_slots]
    for change in known:
        if change.takes == "some":
            arms += [Arm(change, (slot,), rule) for slot in single for rule in AFTER]
            arms += [Arm(change, slots) for slots in several]
    arms += [Arm(change, (slot,)) for change in known if change.takes == "one" for slot in single]
    arms += [Arm("own", (middle,), rule, op=_blend) for rule in AFTER]
    arms += [Arm("own with donors", slots, op=_blend, repeats=True) for slots in ((middle,), *several)]
    # Where positions are not slots', there are no clean streams to read.
    there = [change for change in known if "resid" in change.kinds and (model.loop.aligned or not change.reads)]
    for layer in sorted({0, len(model.layers) - 1}):
        some = dict.fromkeys(((middle,), every))
        arms += [Arm(change, slots, site=Resid(layer)) for change in there for slots in some]
        arms += [Arm("own with donors", (slot,), op=_blend, repeats=True, site=Resid(layer)) for slot in (0, k - 1)[:k]]
    if full:
        arms += [Arm(Swap(), (middle,), donors=name) for name in STRATA if name != "random"]
    return Plan(tuple(arms))


def _blend(live: Tensor, at: EditContext) -> Tensor:
    """An edit that looks at all that it may look at."""
    own = 0.5 * live.roll(1, -1) - 0.2 * at.mean(kind="fed") + 0.1 * at.host(slot=0, kind="fed")
    return own + 0.3 * at.donor(kind="fed") if at.donor else own


def make_trial(model: LatentReasoner, problems: ProblemSet, plan: Plan, tokens: int) -> Trial:
    """A trial of a plan.

    Args:
        model: The model.
        problems: At least 2; the plan's own.
        plan: What is to run.
        tokens: The longest answer.
    """
    notes: list[str] = []
    limit = min(tokens, model.max_new_tokens)
    roomy = _with_room(model, problems)
    if plan.triples:
        return Trial(*_of_triples(problems, plan), limit)
    hosts, donors = _size(plan.arms, len(roomy))
    chosen = _choose(roomy, plan.arms, hosts, max(donors + 2, hosts))
    crowd = _crowd(plan.arms) * hosts * donors
    if 0 < crowd < CROWD:
        notes.append(f"too few problems for {CROWD} rows of one edit at once: {crowd} were tried")
    arms = _some(plan.arms, hosts, donors)
    if len(arms) < len(plan.arms):
        notes.append(f"{len(arms)} of the plan's {len(plan.arms)} arms were tried, spread evenly over it")
    small = replace(plan, arms=arms, n_donors=donors, hosts=hosts, only_correct=False)
    probing, seed = _probing(model, _distinct(chosen), small, hosts, limit, notes)
    return Trial(probing, replace(small, seed=seed), limit, tuple(notes))


def _with_room(model: LatentReasoner, problems: ProblemSet) -> list[Problem]:
    """The problems that leave room for more than an answer; all of them if fewer than 2 do."""
    limit = model.max_positions
    if limit is None:
        return list(problems)
    lengths = [len(asked.ids) for asked in ask(model, [p.question for p in problems[: min(64, len(problems))]])]
    short = [p for p, n in zip(problems, lengths, strict=False) if n + model.num_latents + _ROOM <= limit]
    return short if len(short) > 1 else list(problems)


def _crowd(arms: Sequence[Arm]) -> int:
    """How many of the arms that take something from donors act at one slot by one edit, at most."""
    taken = Counter((arm.change.together, arm.layer, slot) for arm in arms if arm.needs_donor for slot in arm.slots)
    return max(taken.values(), default=0)


def _size(arms: Sequence[Arm], available: int) -> tuple[int, int]:
    """Hosts and donors: few, but as many as make a crowd if there are so many problems."""
    hosts, crowd = min(_HOSTS, available), _crowd(arms)
    donors = min(available - 1, max(_DONORS, ceil(CROWD / (hosts * crowd)) if crowd else 1))
    if crowd and hosts * donors * crowd < CROWD:
        hosts = min(available, ceil(CROWD / (donors * crowd)))
    return hosts, donors


def _some(arms: Sequence[Arm], hosts: int, donors: int) -> tuple[Arm, ...]:
    """The arms; of very many, every so-many-th."""
    rows = hosts * sum(donors if arm.change.repeated else 1 for arm in arms)
    return tuple(arms[:: ceil(rows / _MOST)])


def _choose(problems: Sequence[Problem], arms: Sequence[Arm], hosts: int, wanted: int) -> list[Problem]:
    """The first problems, and for each host one of each stratum that an arm draws from."""
    chosen = list(problems[:wanted])
    for stratum in dict.fromkeys(arm.donors for arm in arms if arm.donors != "random"):
        alike = STRATA[stratum]
        for host in chosen[:hosts]:
            if all(other is host or alike(other) != alike(host) for other in chosen):
                chosen += [other for other in problems if other not in chosen and alike(other) == alike(host)][:1]
    return chosen


def _distinct(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, with another gold answer where one is the same as an earlier one: it would be the same cell."""
    found: list[Problem] = []
    for i, problem in enumerate(problems):
        twice = problem.content_hash in {other.content_hash for other in found}
        found.append(replace(problem, gold=str(-1 - i)) if twice else problem)
    return found


def _probing(
    model: LatentReasoner, problems: Sequence[Problem], plan: Plan, hosts: int, limit: int, notes: list[str]
) -> tuple[ProblemSet, int]:
    """The problems with some made into those that show what ordinary ones would hide, and the seed that pairs them."""
    name = "the certificate's"
    made = [replace(problems[0], question=problems[0].question.replace(" ", "  ")), *problems[1:]]
    found = think_clean_runs(model, ProblemSet(tuple(made), name), limit).pred
    numbers = [None if pred is None else Fraction(pred) for pred in found]
    if numbers[0]:
        made[0] = replace(made[0], gold=str(numbers[0] * (1 + _HAIR)))
    else:
        notes.append("no answer that is wrong by a hair was tried: the first answer holds no number to begin with")
    # The second host's gold is a donor's answer, and the last problem asks what the second does, if it is no host.
    twins = {len(made) - 1} if len(made) > hosts else set()
    others = {number: donor for donor, number in enumerate(numbers) if number not in (None, numbers[1])}
    for seed, (number, donor) in product(range(plan.seed, plan.seed + _SEEDS), others.items()):
        if donor in twins:
            continue
        asked = [made[0], replace(made[1], gold=str(number)), *made[2:]]
        for twin in twins:
            asked[twin] = replace(made[1], id=made[twin].id, gold=found[1])
        tried = ProblemSet(tuple(asked), name)
        if {donor, *twins} <= set(draw_donors(tried, plan.n_donors, seed)[1]):
            return tried, seed
    notes.append("no donor whose answer is the host's gold was tried: the answers are all alike, or hold no number")
    return ProblemSet(tuple(made), name), plan.seed


def _of_triples(problems: ProblemSet, plan: Plan) -> tuple[ProblemSet, Plan]:
    """The first of explicit swaps, and the problems that they name."""
    some = plan.placed(problems)[:_TRIPLES]
    named = sorted({i for host, donor, _ in some for i in (host, donor)})
    at = {i: place for place, i in enumerate(named)}
    chosen = ProblemSet(tuple(problems[i] for i in named), "the certificate's")
    return chosen, Plan.from_triples([(at[host], at[donor], slot) for host, donor, slot in some], seed=plan.seed)
