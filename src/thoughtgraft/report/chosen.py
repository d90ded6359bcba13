"""Which problems and host-donor pairs a report shows as illustrations: by a fixed rule, never by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.document import records_of
from thoughtgraft.report.run import RunData
from thoughtgraft.report.tables import is_single, swaps

PROBLEMS = 4


@dataclass(frozen=True)
class Pair:
    """One swap to look at: why it was chosen, and its record."""

    why: str
    slot: int
    record: dict[str, Any]


def chosen_problems(analysis: Analysis) -> list[str]:
    """The three most sensitive problems and the least, in that order."""
    ids = [str(name) for name in analysis.per_problem.table.problem_id]
    return ids if len(ids) <= PROBLEMS else [*ids[: PROBLEMS - 1], ids[-1]]


def chosen_pairs(run: RunData, analysis: Analysis) -> list[Pair]:
    """Up to three swaps at the single slot of largest impact: an adopted answer, a changed one, an unchanged one.

    Each is the first of its kind by host and donor id among hosts right at baseline.
    """
    table = swaps(analysis)
    table = table[[is_single(str(label)) for label in table.slots]]
    records = run.records
    if not len(table) or not {"adopted", "changed", "donor_id"} <= set(records.columns):
        return []
    slot = int(str(table.slots.iloc[int(table.impact_pp.to_numpy(dtype=float).argmax())])[2:])
    chosen = records[
        (records.method == "swap")
        & (records.downstream == "recompute")
        & (records.slots.map(lambda value: tuple(value) == (slot,)))
        & records.base_correct.fillna(False).astype(bool)
        & records.changed.notna()  # a failed cell shows nothing
        & (records.donor_stratum == analysis.frame.primary_stratum())
    ].sort_values(["problem_id", "donor_id"])
    adopted, changed = (chosen[name].fillna(False).astype(bool) for name in ("adopted", "changed"))
    kinds = {
        "the host gives the donor's answer": adopted & changed,
        "the host's answer changes, but not to the donor's": changed & ~adopted,
        "the host's answer stays": ~changed,
    }
    return [Pair(why, slot, _first(chosen[which])) for why, which in kinds.items() if which.any()]


def _first(rows: pd.DataFrame) -> dict[str, Any]:
    return records_of(rows.head(1))[0]
