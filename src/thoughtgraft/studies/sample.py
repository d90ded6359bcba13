"""Which problems a study asks, and what a run of that size can detect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.edits.site import slots_label
from thoughtgraft.effects.frame import Frame, as_frame
from thoughtgraft.effects.gates import RULE, Rule, primary_family
from thoughtgraft.errors import PlanError, RunError
from thoughtgraft.records.spec import PilotFacts, refuse_another_model, without_home
from thoughtgraft.stats.intervals import MIN_HOSTS
from thoughtgraft.stats.power import (
    detectable_effect,
    minimum_effect,
    needed_hosts,
    unchanged_hosts,
    variance_components,
)
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.run import Run
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.problem import ProblemSet


@dataclass(frozen=True)
class Sample:
    """The block, and how many problems of the split are left for a later run."""

    problems: ProblemSet
    left: int


def draw_sample(
    spec: str | ProblemSet, *, first: int, n: int, seed: int, used: Collection[str] = (), at_most: bool = False
) -> Sample:
    """The first `n` problems from position `first` of the permutation that are not among `used`.

    Args:
        spec: The split, or the problems, as for `load_problems`.
        first: 0-based position in the permutation.
        n: How many, before any other filter.
        seed: Seeds the permutation.
        used: Ids of problems that must not be taken, such as a pilot's.
        at_most: Take all that are left where they are fewer than `n`.

    Raises:
        PlanError: The split does not hold so many.
        ProblemError: The split is unknown or cannot be read.
    """
    order = load_problems(spec, seed=seed)
    free = [problem for problem in order[first:] if problem.id not in used]
    if at_most and free:
        n = min(n, len(free))
    if len(free) < n:
        raise PlanError(
            f"{order.name} does not hold so many problems",
            got=f"{n} wanted from position {first}, {len(used)} of {len(order)} used before",
            expected=f"at most {len(free)}",
            fix="use a smaller --hosts, or a larger problem set",
        )
    return Sample(ProblemSet(tuple(free[:n]), order.name), len(order) - n - len({p.id for p in order} & set(used)))


ASSUMED_SD = 0.30


@dataclass(frozen=True)
class Sizing:
    """The minimum detectable effect of a single slot, by its interval alone, and where it comes from.

    Attributes:
        mde_pp: Percentage points, at the rule's power; NaN where nothing varied, so that no effect can be named.
        basis: In words.
        needed: Hosts at which the rule's margin is detectable; None where nothing varied.
        worst_slot: The slot that needs the most, where a pilot says so.
        rule: The rule that the run will be judged by.
    """

    mde_pp: float
    basis: str
    needed: int | None = None
    worst_slot: str = ""
    rule: Rule = RULE

    def line(self, n_hosts: int, n_donors: int) -> str:
        """The sample size in words: the smallest effect it finds, and what more would need."""
        size = f"{n_hosts} hosts x {n_donors} donors"
        if self.mde_pp != self.mde_pp:
            return f"smallest impact found with 80% power: undefined ({self.basis})"
        if self.mde_pp > 100:
            return f"with {size} not even an impact of 100 pp would be found with 80% power ({self.basis})"
        line = f"smallest impact of one slot found with 80% power: {self.mde_pp:.1f} pp, with {size} ({self.basis})"
        return line if self.needed is None else f"{line}; {self.needed} hosts would find {self.rule.margin_pp:g} pp"


def planned(n_hosts: int, rule: Rule = RULE) -> Sizing:
    """Before any data: hosts' mean effects are taken to spread by 30 pp."""
    if n_hosts < 2:
        return Sizing(np.nan, "one host allows no interval", rule=rule)
    mde = minimum_effect(n_hosts, ASSUMED_SD, alpha=rule.alpha, power=rule.pilot_power)
    return Sizing(100 * mde, f"if hosts' effects spread by {100 * ASSUMED_SD:g} pp", rule=rule)


def from_pilot(records: pd.DataFrame | Frame, n_hosts: int, n_donors: int, rule: Rule = RULE) -> Sizing:
    """From a pilot's variances at its most demanding single-slot swap; signs and means are not looked at.

    Args:
        records: The pilot's, or their frame.
        n_hosts: Hosts of the planned run.
        n_donors: Its donors per host.
        rule: The rule that it will be judged by.

    Raises:
        AnalysisError: The records cannot be used.
    """
    frame = as_frame(records)
    worst, spread = "", 0.0
    for slot, cells in frame.singles(primary_family(frame, rule)).items():
        se = variance_components(cells.difference, cells.host, cells.donor).se(1, n_donors)
        if np.isfinite(se) and se > spread:
            worst, spread = slots_label((slot,)), se
    if not worst:
        return Sizing(np.nan, "no slot varied in the pilot", rule=rule)
    needed = needed_hosts(spread, rule.margin, alpha=rule.alpha, power=rule.pilot_power)
    if n_hosts < 2:
        return Sizing(np.nan, "one host allows no interval", needed, worst, rule)
    mde = detectable_effect(spread / np.sqrt(n_hosts), n_hosts - 1, alpha=rule.alpha, power=rule.pilot_power)
    return Sizing(100 * mde, f"by the pilot's variances, at {worst}", needed, worst, rule)


@dataclass(frozen=True)
class Pilot:
    """A finished pilot beside the run it prepares: its problems are left out, its variances size the run.

    `rule` is the one that the run will be judged by.
    """

    run: Run
    rule: Rule = RULE

    @classmethod
    def open(cls, path: str | Path, problems: str, rule: Rule = RULE) -> Pilot:
        """Open it, and refuse one that cannot speak for a run on these problems.

        Raises:
            RunError: It is not a run, drew from other problems, or failed its gates.
        """
        run = load_run(path)
        if run.spec.study != "resampling":
            fix = "give the folder of a `run resampling --preset pilot`"
            raise RunError(f"{path} is no pilot", got=f"an {run.spec.study} run", expected="a resampling run", fix=fix)
        if run.spec.problems != without_home(problems):
            fix = "give the pilot of these problems, or leave --pilot out"
            raise RunError("the pilot drew from other problems", got=run.spec.problems, expected=problems, fix=fix)
        verdict = run.pilot()
        if verdict.verdict == "INVALID":
            fix = "repair the cause and run the pilot again, or leave --pilot out"
            raise RunError(f"the pilot {path} is INVALID", got=verdict.reason, expected="GO or NO-GO", fix=fix)
        return cls(run, rule)

    @cached_property
    def used(self) -> frozenset[str]:
        """Ids of its problems."""
        return frozenset(str(name) for name in self.run.problems()["id"])

    def check_model(self, identity: Mapping[str, Any]) -> None:
        """Refuse a pilot of another model or protocol: its variances say nothing about this one.

        Args:
            identity: The model's.

        Raises:
            RunError: It is of another, or does not say of which.
        """
        fix = "run a pilot of this model, or leave --pilot out"
        refuse_another_model(self.run.spec, identity, "the pilot is of another model", fix)

    def asks_for(self, n_donors: int) -> int | None:
        """Hosts that a run with so many donors needs for the rule's margin; None where no swap can have an effect.

        Where no answer's grade changed in the pilot, so many unchanged hosts as would bound the effect.
        """
        if self.run.pilot().needed is None:
            return None
        return self.sizing(2, n_donors).needed or unchanged_hosts(self.rule.margin, alpha=self.rule.alpha)

    def hosts(self, n_donors: int) -> int:
        """What `--hosts auto` takes: what the pilot asks for, and no fewer than a verdict takes.

        Raises:
            PlanError: The pilot asks for no number.
        """
        needed = self.asks_for(n_donors)
        if needed is None:
            raise PlanError(
                "the pilot asks for no number of hosts", got=self.run.pilot().reason, fix="give --hosts a number"
            )
        return max(needed, MIN_HOSTS, n_donors + 1)

    def sizing(self, n_hosts: int, n_donors: int) -> Sizing:
        """What a run of this size can detect, by the pilot's variances."""
        return from_pilot(self.run.frame, n_hosts, n_donors, self.rule)

    def facts(self, n_hosts: int, n_donors: int) -> PilotFacts:
        """What the new run's run.json says of it."""
        sizing = self.sizing(n_hosts, n_donors)
        return PilotFacts(
            run_id=self.run.spec.run_id,
            verdict=self.run.pilot().verdict,
            needed_hosts=self.asks_for(n_donors),
            worst_slot=sizing.worst_slot,
            mde_pp=None if np.isnan(sizing.mde_pp) else round(float(sizing.mde_pp), 3),
        )
