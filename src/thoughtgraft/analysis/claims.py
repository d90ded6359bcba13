"""The answers to a full run's questions, read off the position, agreement and step tables: one row per subject.

A verdict is never made here: it is the one that stands beside the same estimate in its own table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.analysis.estimate import OF_EXCESS, OF_GIVEN, OF_IMPACT, TOO_SMALL
from thoughtgraft.analysis.frame import Frame
from thoughtgraft.analysis.rule import RULE, ClaimRule, Rule
from thoughtgraft.analysis.slots import is_single
from thoughtgraft.analysis.verdicts import Agreement, Verdict

COLUMNS = (
    "claim", "subject", "question", "estimand", "estimate", "ci_low", "ci_high", "sim_low", "sim_high", "unit",
    "margin", "verdict", "says", "p_holm", "n_hosts", "n_donors", "n_gen", "family", "note",
)  # fmt: skip
_COUNTS = ("n_hosts", "n_donors", "n_gen")
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
    method, downstream = rule.primary
    primary = (positions.method == method) & (positions.downstream == downstream)
    rows = _records(positions[primary & (positions.donor_stratum == frame.primary_stratum())])
    rows = [row for row in rows if row["n_gen"] > 0]
    single, whole = ([row for row in rows if chosen(row["slots"])] for chosen in (is_single, _is_all(frame)))
    steps = [row for row in _records(counterfactual) if is_single(row["slots"])]
    given, excess = "impact_given_correct_", "adoption_excess_"
    lines = [_line(rule, "H0", row, row["slots"], "", row["impact_pp"], _adopted(row)) for row in whole]
    lines += [_line(rule, "H1", row, row["slots"], given, row[f"{given}pp"], _right(row)) for row in single]
    lines += [_compared(rule, row) for row in _records(agreement)]
    lines += [
        _line(rule, "H4", row, row["slots"], excess, 100 * row["adoption_excess"], _eligible(row), 100)
        | {"p_holm": row["adoption_p_holm"]}
        for row in single + [row for row in whole if row not in single]
    ]
    lines += [
        _line(rule, "H5", row, f"{row['slots']}, step {row['step']}", "", 100 * row["excess"], _eligible(row), 100)
        for row in steps
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _records(table: pd.DataFrame) -> list[Row]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _is_all(frame: Frame) -> Any:
    # With one slot, that slot is all of them.
    return lambda label: label == frame.label(tuple(range(frame.n_slots)))


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
        _words(rule, claim, subject) | {n: row[n] for n in _COUNTS} | found | {"p_holm": row["p_holm"], "note": notes}
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
    counts = {"n_hosts": row["n_hosts"], "n_donors": row["n_donors"], "n_gen": np.nan}
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
