"""The claims H0-H4 of a full run, judged from the position and agreement tables by the frozen rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.analysis.adoption import adoption, donor_answers
from thoughtgraft.analysis.equivalence import exact_upper_bound
from thoughtgraft.analysis.estimate import IDENTITY, NULL
from thoughtgraft.analysis.frame import Frame
from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.rule import RULE, ClaimRule, Rule
from thoughtgraft.analysis.slots import is_single

COLUMNS = (
    "claim", "subject", "statement", "estimand", "estimate", "ci_low", "ci_high", "unit", "n_hosts", "n_donors",
    "n_gen", "p_holm", "verdict", "supported_if", "refuted_if", "note",
)  # fmt: skip


def _verdict(supported: bool, refuted: bool) -> str:
    return "SUPPORTED" if supported else "REFUTED" if refuted else "UNDERPOWERED"


def _line(claim: ClaimRule, row: dict[str, Any], subject: str, **found: Any) -> dict[str, Any]:
    counts = {name: row[name] for name in ("n_hosts", "n_donors", "n_gen")}
    text = {"statement": claim.statement, "supported_if": claim.supported, "refuted_if": claim.refuted}
    return {
        "claim": claim.name,
        "subject": subject,
        **text,
        **counts,
        "unit": "pp",
        "p_holm": np.nan,
        "note": "",
    } | found


def _given_correct_high(row: dict[str, Any]) -> float:
    """Upper bound (pp) of the impact given correct; the exact one where nothing was lost."""
    if row["impact_given_correct_pp"] == 0 and np.isnan(row["impact_given_correct_ci_high"]):
        units = min(row["n_hosts"] * row["base_acc"], row["n_donors"])
        return 100 * exact_upper_bound(max(1, round(units)))
    return float(row["impact_given_correct_ci_high"])


def _h0(claim: ClaimRule, rows: list[dict[str, Any]], rule: Rule) -> list[dict[str, Any]]:
    out = []
    for row in rows:
        refuted = row["tost_p"] < rule.alpha or row["ci_high"] < 0
        found = {"estimand": "impact of swapping all slots", "estimate": row["impact_pp"]}
        found |= {"ci_low": row["ci_low"], "ci_high": row["ci_high"], "verdict": _verdict(row["ci_low"] > 0, refuted)}
        excess = [row[name] for name in ("adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high")]
        shown = "adoption excess {:.1f} pp [{:.1f}, {:.1f}]".format(*(100 * x for x in excess))
        out.append(_line(claim, row, row["slots"], **found, note=shown))
    return out


def _h1(claim: ClaimRule, rows: list[dict[str, Any]], rule: Rule) -> list[dict[str, Any]]:
    out = []
    for row in rows:
        low, high = row["impact_given_correct_ci_low"], row["impact_given_correct_ci_high"]
        supported = row["p_holm"] < rule.alpha and row["impact_pp"] > 0 and low > 100 * rule.margin
        verdict = _verdict(supported, _given_correct_high(row) < 100 * rule.margin)
        found = {"estimand": "impact given correct", "estimate": row["impact_given_correct_pp"], "ci_low": low}
        found |= {"ci_high": high, "p_holm": row["p_holm"], "verdict": verdict, "note": row["note"]}
        out.append(_line(claim, row, row["slots"], **found))
    return out


def _h2(claim: ClaimRule, rows: list[dict[str, Any]], rule: Rule) -> list[dict[str, Any]]:
    adjusted = holm(np.array([row["tost_p"] for row in rows], dtype=float))
    out = []
    for row, p in zip(rows, adjusted, strict=True):
        refuted = row["ci_low"] > 100 * rule.margin or row["ci_high"] < -100 * rule.margin
        power = "" if np.isnan(row["tost_power"]) else f"power of the equivalence test {row['tost_power']:.0%}"
        found = {"estimand": "impact", "estimate": row["impact_pp"], "ci_low": row["ci_low"], "ci_high": row["ci_high"]}
        notes = "; ".join(x for x in (power, row["note"]) if x)
        found |= {"p_holm": p, "verdict": _verdict(bool(p < rule.alpha), bool(refuted)), "note": notes}
        out.append(_line(claim, row, row["slots"], **found))
    return out


def _h3(claim: ClaimRule, agreement: pd.DataFrame) -> list[dict[str, Any]]:
    out = []
    for row in agreement.to_dict("records"):
        verdict = {"CONVERGENT": "SUPPORTED", "DIVERGENT": "REFUTED"}.get(str(row["verdict"]), "UNDERPOWERED")
        found = {"estimand": "disattenuated r over slots", "estimate": row["r_disattenuated"], "unit": "correlation"}
        found |= {"ci_low": row["r_dis_low"], "ci_high": row["r_dis_high"], "verdict": verdict}
        note = f"{row['verdict']}; {row['note']}"
        counts = {"n_hosts": row["n_hosts"], "n_donors": np.nan, "n_gen": np.nan}
        out.append(_line(claim, counts, f"{row['method_a']} and {row['method_b']}", **found, note=note))
    return out


def _h4(claim: ClaimRule, frame: Frame, rows: list[dict[str, Any]], rule: Rule) -> list[dict[str, Any]]:
    method, downstream = rule.primary
    stratum = frame.primary_stratum()
    arms = {
        frame.label(key.slots): cells
        for key, cells in frame.arms.items()
        if key.family == (method, downstream, stratum) and len(cells)
    }
    tests = []
    for row in rows:
        cells = arms[row["slots"]]
        tests.append(adoption(cells, donor_answers(cells, len(frame.hosts), len(frame.donors))))
    p = np.array([found.excess.p for found in tests], dtype=float)
    single = np.array([is_single(row["slots"]) for row in rows], dtype=bool)
    adjusted = p.copy()
    adjusted[single] = holm(p[single])
    out = []
    for row, test, q in zip(rows, tests, adjusted, strict=True):
        excess = test.excess
        supported = excess.low > 0 and q < rule.alpha
        figures = {"estimate": 100 * excess.value, "ci_low": 100 * excess.low, "ci_high": 100 * excess.high}
        verdict = _verdict(supported, excess.high < rule.adoption_margin)
        note = "; ".join(x for x in (f"{test.n_eligible} eligible cells", excess.note) if x)
        found = {"estimand": "adoption excess", **figures, "p_holm": q, "verdict": verdict, "note": note}
        out.append(_line(claim, row, row["slots"], **found))
    return out


def claim_table(frame: Frame, positions: pd.DataFrame, agreement: pd.DataFrame, rule: Rule = RULE) -> pd.DataFrame:
    """One row per claim and subject; a claim whose arms were not run is absent.

    Args:
        frame: The run.
        positions: Its position table.
        agreement: Its agreement table.
        rule: The frozen rule.

    Returns:
        The columns of `COLUMNS`; estimates and intervals in the row's `unit`.
    """
    method, downstream = rule.primary
    primary = (positions.method == method) & (positions.downstream == downstream)
    chosen = positions[primary & (positions.donor_stratum == frame.primary_stratum())]
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in chosen.to_dict("records")]
    rows = [row for row in rows if row["n_gen"] > 0]
    single = [row for row in rows if is_single(row["slots"]) and row["verdict"] not in (NULL, IDENTITY)]
    whole = [row for row in rows if row["slots"] == "all"]
    h0, h1, h2, h3, h4 = rule.claims
    lines = _h0(h0, whole, rule) + _h1(h1, single, rule) + _h2(h2, single, rule) + _h3(h3, agreement)
    return pd.DataFrame(lines + _h4(h4, frame, single + whole, rule), columns=list(COLUMNS))
