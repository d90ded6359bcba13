"""Selections of the analysis' tables that several parts of the report share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.document import records_of

# Arms that edit nothing by intent: they are checks, not effects.
CHECKS = ("baseline", "noop", "self")
_SINGLE = re.compile(r"CT(\d+)")


def is_single(label: str) -> bool:
    """Whether a label names exactly one slot."""
    return _SINGLE.fullmatch(label) is not None


def slot_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels with single slots first, by number, then the others by name, `all` last."""
    return tuple(sorted(set(labels), key=_rank))


def _rank(label: str) -> tuple[int, int, str]:
    single = _SINGLE.fullmatch(label)
    return (0, int(single.group(1)), "") if single else (2 if label == "all" else 1, 0, label)


def edited(analysis: Analysis, *, stratum: str | None = None) -> pd.DataFrame:
    """The main effects: single slots and all, recompute, the primary donors; swap first, then by method and slot."""
    table = analysis.positions
    primary = analysis.frame.primary_stratum() if stratum is None else stratum
    kept = table[
        (table.downstream == "recompute")
        & table.donor_stratum.isin(["", primary])
        & ~table.method.isin(CHECKS)
        & table.slots.map(lambda label: is_single(str(label)) or label == "all")
        & (table.n_gen > 0)
    ]
    rank = pd.DataFrame(
        {
            "swap": kept.method != "swap",
            "method": kept.method,
            "slot": [_rank(str(label)) for label in kept.slots],
        },
        index=kept.index,
    )
    return kept.loc[rank.sort_values(["swap", "method", "slot"]).index]


def swaps(analysis: Analysis) -> pd.DataFrame:
    """The swap rows of `edited`."""
    table = edited(analysis)
    return table[table.method == "swap"]


def doses(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of the dose table that make a curve: effects, recomputed, the primary donors, a dose between one and all."""
    primary, last = analysis.frame.primary_stratum(), analysis.frame.n_slots
    rows = [
        row
        for row in records_of(analysis.dose)
        if row["downstream"] == "recompute" and row["donor_stratum"] in ("", primary) and row["method"] not in CHECKS
    ]
    between = {(row["series"], row["method"]) for row in rows if 1 < row["n_slots"] < last}
    return [row for row in rows if (row["series"], row["method"]) in between]


def mediated(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of the mediation table for single slots and all, the primary donors; by method, freeze and slot."""
    primary = analysis.frame.primary_stratum()
    rows = [
        row
        for row in records_of(analysis.mediation)
        if row["donor_stratum"] in ("", primary) and (is_single(row["slots"]) or row["slots"] == "all")
    ]
    return sorted(rows, key=lambda row: (row["method"] != "swap", row["method"], row["freeze"], _rank(row["slots"])))


def methods_run(analysis: Analysis) -> list[str]:
    """Methods with at least one edited arm, swap first, checks left out."""
    found = {key.method for key, cells in analysis.frame.arms.items() if key.slots and len(cells)} - set(CHECKS)
    return sorted(found, key=lambda method: (method != "swap", method))
