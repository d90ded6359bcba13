"""From a run's tables to its claims and its pilot's verdict, by the rule that the run began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.edits.site import slots_label
from thoughtgraft.effects.comparisons import agreement_table
from thoughtgraft.effects.counterfactual import COLUMNS as STEP_COLUMNS
from thoughtgraft.effects.frame import Cells, Frame, as_frame
from thoughtgraft.effects.gates import (
    FAIL,
    NOT_RUN,
    NOTHING_KNOWN,
    RULE,
    ClaimRule,
    GateResult,
    Known,
    Rule,
    check_gates,
    primary_family,
)
from thoughtgraft.effects.positions import OF_EXCESS, OF_GIVEN, OF_IMPACT, position_table
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.stats.intervals import TOO_SMALL
from thoughtgraft.stats.power import needed_hosts, unchanged_hosts, variance_components
from thoughtgraft.stats.verdicts import INVALID, Agreement, Verdict

COLUMNS = (
    "claim", "subject", "slots", "question", "estimand", "estimate", "ci_low", "ci_high", "sim_low", "sim_high", "unit",
    "margin", "verdict", "says", "p_holm", "n_hosts", "n_donors", "n_gen", "family", "note",
)  # fmt: skip
_COPIED = ("slots", "n_hosts", "n_donors", "n_gen")
_ENDS = ("ci_low", "ci_high", "sim_low", "sim_high")
_NOTES = {"": OF_IMPACT, "impact_given_correct_": OF_GIVEN, "adoption_excess_": OF_EXCESS}
Row = dict[str, Any]


def claim_table(
    frame: Frame,
    positions: pd.DataFrame,
    agreement: pd.DataFrame,
    counterfactual: pd.DataFrame,
    rule: Rule = RULE,
) -> pd.DataFrame:
    """One row per question and subject; a question whose arms were not run is absent.

    Args:
        frame: The run.
        positions: Its position table.
        agreement: Its agreement table.
        counterfactual: Its table of step values; empty where problems do not know their steps.
        rule: The rule of the run.

    Returns:
        The columns of `COLUMNS`; estimates, intervals and margin in the row's `unit`. `ci_*` is the interval alone,
        `sim_*` the one that holds over the row's `family` and gives its verdict.
    """
    family = primary_family(frame, rule)
    rows = [row for row in _records(positions) if ArmKey.of_row(row).family == family and row["n_gen"] > 0]
    single = [row for row in rows if len(row["slots"]) == 1]
    # With one slot, that slot is all of them.
    whole = [row for row in rows if row["slots"] == frame.every]
    steps = [row for row in _records(counterfactual) if len(row["slots"]) == 1]
    given, excess = "impact_given_correct_", "adoption_excess_"
    lines = [_line(rule, "H0", row, row["label"], "", row["impact_pp"], _adopted(row)) for row in whole]
    lines += [_line(rule, "H1", row, row["label"], given, row[f"{given}pp"], _right(row)) for row in single]
    lines += [_compared(rule, row) for row in _records(agreement)]
    lines += [
        _line(rule, "H4", row, row["label"], excess, 100 * row["adoption_excess"], _eligible(row), 100)
        | {"p_holm": row["adoption_p_holm"]}
        for row in single + [row for row in whole if row not in single]
    ]
    lines += [
        _line(rule, "H5", row, f"{row['label']}, step {row['step']}", "", 100 * row["excess"], _eligible(row), 100)
        for row in steps
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _records(table: pd.DataFrame) -> list[Row]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _line(
    rule: Rule, name: str, row: Mapping[str, Any], subject: str, column: str, value: float, note: str = "",
    scale: float = 1.0,
) -> Row:  # fmt: skip
    """A row of the claim table from the columns `{column}ci_low` ... of another, scaled to the claim's unit."""
    claim = next(claim for claim in rule.claims if claim.name == name)
    said = Verdict(row[f"{column}verdict"])
    found = {end: scale * row[f"{column}{end}"] for end in _ENDS}
    own = _own_notes(row["note"], _NOTES[column])
    # The words of UNRESOLVED are about an interval's place; here the interval is none to go by.
    says = TOO_SMALL if said is Verdict.UNRESOLVED and TOO_SMALL in own else said.says(rule.margin_words(claim))
    found |= {"estimate": value, "verdict": said, "says": says}
    notes = "; ".join(x for x in (note, *own) if x)
    return (
        _words(rule, claim, subject) | {n: row[n] for n in _COPIED} | found | {"p_holm": row["p_holm"], "note": notes}
    )


def _own_notes(notes: str, own: str) -> list[str]:
    """Those of a row's notes that are on this estimate, or on all of them."""
    parts = [part for part in notes.split("; ") if part.startswith(own) or not part.startswith(tuple(_NOTES.values()))]
    return [part.removeprefix(own) for part in parts]


def _words(rule: Rule, claim: ClaimRule, subject: str) -> Row:
    texts = {"claim": claim.name, "subject": subject, "question": rule.question(claim), "estimand": claim.estimand}
    return texts | {"unit": claim.unit, "margin": rule.margin_of(claim), "family": claim.family}


def _compared(rule: Rule, row: Mapping[str, Any]) -> Row:
    claim = next(claim for claim in rule.claims if claim.name == "H3")
    said = Agreement(row["verdict"])
    small = said is Agreement.UNRESOLVED and TOO_SMALL in row["note"].split("; ")
    says = TOO_SMALL if small else said.says(rule.margin_words(claim))
    found = {"estimate": row["r_disattenuated"], "verdict": said, "says": says}
    for low, high in (("ci_low", "ci_high"), ("sim_low", "sim_high")):
        found |= {low: row["r_dis_low"], high: row["r_dis_high"]}
    counts = {"slots": row["slots"], "n_hosts": row["n_hosts"], "n_donors": row["n_donors"], "n_gen": np.nan}
    subject = f"{row['method_a']} and {row['method_b']}"
    return _words(rule, claim, subject) | counts | found | {"p_holm": np.nan, "note": row["note"]}


def _adopted(row: Mapping[str, Any]) -> str:
    excess = [100 * row[f"adoption_excess{end}"] for end in ("", "_ci_low", "_ci_high")]
    return "adoption excess {:.1f} pp [{:.1f}, {:.1f}]".format(*excess) if np.isfinite(excess[0]) else ""


def _right(row: Mapping[str, Any]) -> str:
    n = row["n_hosts_right"]
    return "" if np.isnan(n) else f"{int(n)} hosts are right unedited"


def _eligible(row: Mapping[str, Any]) -> str:
    n = row["n_eligible"]
    return "" if np.isnan(n) else f"{int(n)} eligible cells"


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


def pilot_verdict(frame: Frame, gates: tuple[GateResult, ...], known: Known) -> PilotVerdict:
    """Judge a pilot by its gates and the hosts that its own variances call for.

    Where the number of problems left for the full run is not known, only INVALID and NO-GO can be said.
    """
    rule, available = known.rule, known.available_hosts
    method = rule.primary[0]
    run = frame.singles(primary_family(frame, rule))
    arms = {slot: cells for slot, cells in run.items() if slot not in known.null_slots}
    wanted = {
        slot: hosts_after_pilot(cells, rule.margin, n_draws=rule.full_draws, alpha=rule.alpha, power=rule.pilot_power)
        for slot, cells in arms.items()
    }
    found = {slot: n for slot, n in wanted.items() if n is not None}
    worst = max(found, key=lambda slot: found[slot]) if found else None
    needed = found[worst] if worst is not None else None
    label = "" if worst is None else slots_label((worst,))
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


@dataclass(frozen=True)
class Tables:
    """The tables that a run is judged by, already made; None is made anew, but for `counterfactual`.

    Attributes:
        positions: The position table.
        agreement: The agreement table.
        counterfactual: The table of step values; None where problems do not know their steps.
    """

    positions: pd.DataFrame | None = None
    agreement: pd.DataFrame | None = None
    counterfactual: pd.DataFrame | None = None


def decide(
    records: pd.DataFrame | Frame,
    *,
    known: Known = NOTHING_KNOWN,
    tables: Tables | None = None,
    seed: int = 0,
) -> Decision:
    """Apply a rule to a run.

    Args:
        records: Records or their frame.
        known: What it is judged by; the hash of its rule belongs in run.json before the run starts.
        tables: What is already made of it.
        seed: Seed of whatever table has to be made here.
    """
    frame, tables = as_frame(records), tables or Tables()
    rule, gates = known.rule, check_gates(frame, known)
    failed = [gate.name for gate in gates if gate.outcome == FAIL]
    positions, agreement, steps = tables.positions, tables.agreement, tables.counterfactual
    if positions is None:
        positions = position_table(frame, seed=seed, known=known)
    if agreement is None:
        agreement = agreement_table(frame, seed=seed, known=known)
    steps = pd.DataFrame(columns=list(STEP_COLUMNS)) if steps is None else steps
    claims = claim_table(frame, positions, agreement, steps, rule)
    if failed:
        # A run that fails a gate states no effect, so its figures do not appear beside its claims either.
        claims[["estimate", "ci_low", "ci_high", "sim_low", "sim_high", "p_holm"]] = np.nan
        claims["verdict"], claims["says"] = INVALID, "not said: a gate failed"
        claims["note"] = f"failed gates: {', '.join(failed)}"
    not_run = tuple(gate.name for gate in gates if gate.outcome == NOT_RUN)
    pilot = pilot_verdict(frame, gates, known)
    return Decision(rule, rule.hash, gates, not failed, not_run, pilot, claims)


def hosts_after_pilot(
    cells: Cells, effect: float = 0.05, *, n_draws: int = 10, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Hosts that a full run needs for a minimum detectable effect of `effect`, from a pilot arm's own variances.

    Args:
        cells: One arm of the pilot; its paired accuracy differences are used, never their sign or mean.
        effect: Wanted minimum detectable effect, as a fraction (.05 = 5 pp).
        n_draws: Donors per host in the full run.
        alpha: Level of the full run's test.
        power: Wanted power.

    Returns:
        The number, or None where the pilot shows no variance at all or has too few cells.
    """
    parts = variance_components(cells.difference, cells.host, cells.donor)
    sd = parts.se(1, n_draws)
    return needed_hosts(sd, effect, alpha=alpha, power=power) if np.isfinite(sd) and sd > 0 else None
