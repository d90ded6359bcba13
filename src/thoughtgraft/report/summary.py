"""The position table in a few short columns, for a terminal or a notebook."""

from __future__ import annotations

import pandas as pd

from thoughtgraft.analysis.rule import RULE
from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import estimate, judged, percent

COLUMNS = ("slot", "method", "accuracy", "impact_pp", "simultaneous", "verdict", "adoption", "excess_pp")


def positions_summary(positions: pd.DataFrame, margin_pp: float = RULE.margin_pp) -> pd.DataFrame:
    """Short printable columns of a position table, one row per row, as text.

    Args:
        positions: The analysis' position table, or a selection of its rows.
        margin_pp: The margin of the verdicts, for the digits of their intervals.

    Returns:
        Columns slot, method, accuracy (%), impact_pp (percentage points, with its interval alone), simultaneous (the
        interval that holds for the whole family), verdict (of that interval), adoption (%) and excess_pp (over chance,
        with its interval alone). A dash: not defined for a method without donors.
    """
    rows = []
    for row in records_of(positions):
        excess = [100 * row[n] for n in ("adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high")]
        shown = (percent(row["adoption_rate"]), estimate(*excess)) if row["donor_stratum"] else ("–", "–")
        impact = estimate(row["impact_pp"], row["ci_low"], row["ci_high"])
        together = (judged(row["sim_low"], row["sim_high"], margin_pp), str(row["verdict"]))
        rows.append((row["slots"], row["method"], percent(row["acc"]), impact, *together, *shown))
    return pd.DataFrame(rows, columns=list(COLUMNS))
