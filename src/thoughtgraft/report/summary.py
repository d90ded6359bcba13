"""The position table in a few short columns, for a terminal or a notebook."""

from __future__ import annotations

import pandas as pd

from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import bounded, estimate, percent

COLUMNS = ("slot", "method", "accuracy", "impact_pp", "adoption", "excess_pp")


def positions_summary(positions: pd.DataFrame) -> pd.DataFrame:
    """Short printable columns of a position table, one row per row, as text.

    Args:
        positions: The analysis' position table, or a selection of its rows.

    Returns:
        Columns slot, method, accuracy (%), impact_pp (with its 95% interval in percentage points), adoption (%) and
        excess_pp (over chance, with its 95% interval). A dash: not defined for a method without donors.
    """
    rows = []
    for row in records_of(positions):
        excess = [100 * row[n] for n in ("adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high")]
        shown = (percent(row["adoption_rate"]), estimate(*excess)) if row["donor_stratum"] else ("–", "–")
        impact = bounded(row["impact_pp"], row["ci_low"], row["ci_high"], row["zero_bound_pp"])
        rows.append((row["slots"], row["method"], percent(row["acc"]), impact, *shown))
    return pd.DataFrame(rows, columns=list(COLUMNS))
