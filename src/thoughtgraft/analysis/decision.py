"""What a run may say: the pilot's GO / NO-GO / INVALID, and the verdicts of a full run's questions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from thoughtgraft.analysis.agreement import agreement_table
from thoughtgraft.analysis.claims import claim_table
from thoughtgraft.analysis.counterfactual import COLUMNS as STEP_COLUMNS
from thoughtgraft.analysis.estimate import position_table
from thoughtgraft.analysis.frame import Frame, as_frame
from thoughtgraft.analysis.gates import FAIL, NOT_RUN, GateResult, check_gates
from thoughtgraft.analysis.power import hosts_after_pilot, unchanged_hosts
from thoughtgraft.analysis.rule import RULE, Rule
from thoughtgraft.analysis.verdicts import INVALID


@dataclass(frozen=True)
class PilotVerdict:
    """Whether the full run is worth starting.

    `needed` is the number of hosts at which the worst single slot's minimum detectable effect is the rule's margin
    (None: swaps of single slots were not run or cannot have an effect), `worst_slot` that slot (empty where none
    varied), `available` how many problems there are. The verdict depends on variances and counts only, never on the
    sign or size of an effect.
    """

    verdict: str
    needed: int | None
    worst_slot: str
    available: int | None
    reason: str


@dataclass(frozen=True)
class Decision:
    """Gates, pilot verdict and claims under one hashed rule.

    `valid` is False if any gate failed: then no effect is stated and every claim is INVALID. `not_run` names the gates
    without evidence; they are not passed, and every statement is conditional on them.
    """

    rule: Rule
    rule_hash: str
    gates: tuple[GateResult, ...]
    valid: bool
    not_run: tuple[str, ...]
    pilot: PilotVerdict
    claims: pd.DataFrame

    @property
    def gate_table(self) -> pd.DataFrame:
        """The gates as a table: name, statement, outcome, figure, limit, detail."""
        names = ["name", "statement", "outcome", "figure", "limit", "detail"]
        return pd.DataFrame([[getattr(gate, name) for name in names] for gate in self.gates], columns=names)


def pilot_verdict(
    frame: Frame,
    gates: tuple[GateResult, ...],
    available: int | None,
    rule: Rule = RULE,
    null_slots: Collection[int] = (),
) -> PilotVerdict:
    """Judge a pilot by its gates and the hosts that its own variances call for.

    Args:
        frame: The pilot's run.
        gates: Its gates.
        available: Problems left for the full run; None if not known, and then only INVALID can be said.
        rule: The rule of the run.
        null_slots: 0-based slots at which a swap has no effect by construction: dead, or fed alike to all problems.
    """
    method, downstream = rule.primary
    run = frame.singles(method, downstream, frame.primary_stratum())
    arms = {slot: cells for slot, cells in run.items() if slot not in null_slots}
    wanted = {
        slot: hosts_after_pilot(cells, rule.margin, n_draws=rule.full_draws, alpha=rule.alpha, power=rule.pilot_power)
        for slot, cells in arms.items()
    }
    known = {slot: n for slot, n in wanted.items() if n is not None}
    worst = max(known, key=lambda slot: known[slot]) if known else None
    needed = known[worst] if worst is not None else None
    label = "" if worst is None else frame.label((worst,))
    failed = [gate.name for gate in gates if gate.outcome == FAIL]
    missing = [gate.name for gate in gates if gate.outcome == NOT_RUN]
    if failed:
        return PilotVerdict(INVALID, needed, label, available, f"failed gates: {', '.join(failed)}")
    if not arms:
        null = (
            f"no {method} of a single slot can have an effect here, whatever the number of hosts: see the certificate"
        )
        reason = null if run else f"no single-slot {method} cells to take variances from"
        return PilotVerdict("NO-GO", None, "", available, reason)
    if needed is None and min(min(cells.n_hosts, cells.n_donors) for cells in arms.values()) < 2:
        reason = "one host or one donor shows no variance, so that nothing can be said of the hosts needed"
        return PilotVerdict("NO-GO", None, "", available, reason)
    if needed is None:
        # Not zero variance, only none seen: what an exact test of so many unchanged hosts can exclude.
        needed = unchanged_hosts(rule.margin, alpha=rule.alpha)
        reason = f"no answer's grade changed at any slot; {needed} unchanged hosts would bound an effect below "
        reason += f"{100 * rule.margin:g} pp"
    else:
        reason = f"{needed} hosts x {rule.full_draws} draws needed for {100 * rule.margin:g} pp "
        reason += f"at {rule.pilot_power:.0%} power, at {label}"
    go = available is not None and needed <= available
    reason += "; the number available was not given" if available is None else f"; {available} available"
    if missing:
        reason += f"; conditional on gates not run: {', '.join(missing)}"
    return PilotVerdict("GO" if go else "NO-GO", needed, label, available, reason)


def decide(
    records: pd.DataFrame | Frame,
    *,
    positions: pd.DataFrame | None = None,
    agreement: pd.DataFrame | None = None,
    counterfactual: pd.DataFrame | None = None,
    certificate: Mapping[str, bool] | None = None,
    dead_slots: Collection[int] = (),
    shared_slots: Collection[int] = (),
    available_hosts: int | None = None,
    rule: Rule = RULE,
    seed: int = 0,
) -> Decision:
    """Apply a rule to a run.

    Args:
        records: Records or their frame.
        positions: The position table, if it is already made.
        agreement: The agreement table, likewise.
        counterfactual: The table of step values; None where problems do not know their steps.
        certificate: Outcomes of the gates that records cannot show; see `check_gates`.
        dead_slots: Structurally dead slots of the run's protocol.
        shared_slots: Slots at which every problem is fed the same vector.
        available_hosts: Problems left for a full run, for the pilot's verdict.
        rule: The rule; its hash belongs in run.json before the run starts.
        seed: Seed of whatever table has to be made here.
    """
    frame = as_frame(records)
    gates = check_gates(frame, certificate, dead_slots, rule, shared_slots)
    failed = [gate.name for gate in gates if gate.outcome == FAIL]
    positions = (
        position_table(frame, seed=seed, dead_slots=dead_slots, shared_slots=shared_slots, rule=rule)
        if positions is None
        else positions
    )
    null_slots = {*dead_slots, *shared_slots}
    if agreement is None:
        agreement = agreement_table(frame, seed=seed, null_slots=null_slots, rule=rule)
    steps = pd.DataFrame(columns=list(STEP_COLUMNS)) if counterfactual is None else counterfactual
    claims = claim_table(frame, positions, agreement, steps, rule)
    if failed:
        # A run that fails a gate states no effect, so its figures do not appear beside its claims either.
        claims[["estimate", "ci_low", "ci_high", "sim_low", "sim_high", "p_holm"]] = np.nan
        claims["verdict"], claims["says"] = INVALID, "not said: a gate failed"
        claims["note"] = f"failed gates: {', '.join(failed)}"
    not_run = tuple(gate.name for gate in gates if gate.outcome == NOT_RUN)
    pilot = pilot_verdict(frame, gates, available_hosts, rule, null_slots)
    return Decision(rule, rule.hash, gates, not failed, not_run, pilot, claims)
