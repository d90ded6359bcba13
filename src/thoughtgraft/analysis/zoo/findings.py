"""Findings about thoughts beside the model whose slots carry nothing of the problem: which of them it shows too.

A finding is an effect in percentage points that stands for "something is in the thoughts": accuracy lost when all are
replaced, donors' answers adopted, values decoded, labels read. Each is estimated in a model that thinks and in the
pause control, on the same problems, and so is their difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.analysis.adoption import adoption, adoption_bounds, donor_answers
from thoughtgraft.analysis.cells import ArmKey
from thoughtgraft.analysis.compare import compare_runs
from thoughtgraft.analysis.frame import Frame
from thoughtgraft.analysis.lens_hits import ANY, FINAL, INTERMEDIATE, lens_difference
from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.probing.intervals import Interval, corrected_t
from thoughtgraft.analysis.probing.states import StateReadings
from thoughtgraft.analysis.zoo.measured import PAUSE, Measured

COLUMNS = (
    "finding", "model", "control", "own", "own_low", "own_high", "in_control", "control_low", "control_high",
    "difference", "ci_low", "ci_high", "p", "p_holm", "verdict", "note",
)  # fmt: skip
SURVIVES, SHARED, LARGER, ABSENT, OPEN = "SURVIVES", "SHARED", "LARGER IN THE CONTROL", "NOT FOUND", "INCONCLUSIVE"
ALPHA = 0.05
BY_CONSTRUCTION = "a pause vector is the same for every problem, so this edit changes nothing in the control"
_Triple = tuple[float, float, float]
WORDS = {"operation": "the operation", "n_steps": "the number of steps"}
"""Labels in sentences."""
_UNKNOWN: _Triple = (np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Evidence:
    """What findings rest on: frames of the resampling study and lens scores by model, hit rates, readings by target."""

    frames: Mapping[str, Frame]
    lens: Mapping[str, pd.DataFrame]
    lens_rows: pd.DataFrame
    readings: Sequence[StateReadings]


@dataclass(frozen=True)
class _Row:
    own: _Triple
    control: _Triple
    difference: _Triple
    p: float
    note: str = ""


def finding_table(zoo: Sequence[Measured], evidence: Evidence) -> pd.DataFrame:
    """Every finding of every model that thinks, beside the first pause model.

    Returns:
        Columns `COLUMNS`, in percentage points with 95% intervals (unadjusted); `p` (two-sided) is of the difference,
        `p_holm` over all rows of the table. `verdict`: NOT FOUND where the model's own interval does not lie above 0;
        SURVIVES where it does and the difference is above 0 (Holm); LARGER IN THE CONTROL where it is below 0;
        SHARED where the control's own interval lies above 0 and the two cannot be told apart; else INCONCLUSIVE.
        Empty where there is no pause model.
    """
    control = next((model for model in zoo if model.method == PAUSE and model.num_latents), None)
    thinkers = [model for model in zoo if model.thinks and model.num_latents]
    if control is None or not thinkers:
        return pd.DataFrame(columns=list(COLUMNS))
    frames = evidence.frames
    compared = {model.name: compare_runs(frames[control.name], frames[model.name]) for model in thinkers}
    rows = []
    for name, measure in _findings(evidence, compared).items():
        for model in thinkers:
            found = measure(model.name, control.name)
            figures = (*found.own, *found.control, *found.difference, found.p)
            rows.append((name, model.name, control.name, *figures, np.nan, "", found.note))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["p_holm"] = holm(table.p.to_numpy(float))
    return table.assign(verdict=[_verdict(row) for row in table.to_dict("records")])


def _findings(evidence: Evidence, compared: Mapping[str, pd.DataFrame]) -> dict[str, Callable[[str, str], _Row]]:
    found: dict[str, Callable[[str, str], _Row]] = {
        "accuracy lost when all thoughts are another problem's": lambda m, c: _impact(compared[m], "swap"),
        "accuracy lost when all thoughts are the mean": lambda m, c: _impact(compared[m], "mean"),
        "accuracy lost when all thoughts are zero": lambda m, c: _impact(compared[m], "zero"),
        "donor's answer adopted beyond chance, all thoughts swapped": lambda m, c: _adopted(evidence.frames[m]),
        "an intermediate value decoded beyond chance, at any slot": lambda m, c: _decoded(evidence, m, c, INTERMEDIATE),
        "the final answer decoded beyond chance, at any slot": lambda m, c: _decoded(evidence, m, c, FINAL),
    }
    for reading in evidence.readings:
        label = WORDS.get(reading.rows.target, reading.rows.target)
        name = f"{label} read from the states after begin-of-thought beyond the question's words"
        found[name] = lambda m, c, reading=reading: _read(reading, m, c)  # type: ignore[misc]
    return found


def _impact(compared: pd.DataFrame, method: str) -> _Row:
    # All slots stand last among a method's arms, also where there is one slot only.
    row = compared[compared.method == method].iloc[-1]
    own = (row.b_pp, row.b_ci_low, row.b_ci_high)
    other = (row.a_pp, row.a_ci_low, row.a_ci_high)
    notes = (BY_CONSTRUCTION if method in ("swap", "mean") else "", row.note)
    gap = (row.difference_pp, row.ci_low, row.ci_high)
    return _Row(own, other, gap, row.p, "; ".join(note for note in notes if note))


def _adopted(frame: Frame) -> _Row:
    arm = frame.arms[ArmKey("swap", tuple(range(frame.n_slots)), "recompute", frame.primary_stratum())]
    found = adoption_bounds([adoption(arm, donor_answers(arm, len(frame.hosts), len(frame.donors)))])[0]
    own = (100 * found.estimate.value, 100 * found.low, 100 * found.high)
    # In the control the answer stays the host's, which never counts as adopted: 0 without error.
    notes = "; ".join(note for note in (BY_CONSTRUCTION, found.note) if note)
    return _Row(own, (0.0, np.nan, np.nan), own, found.estimate.p, notes)


def _decoded(evidence: Evidence, model: str, control: str, target: str) -> _Row:
    def own(name: str) -> _Triple:
        rows = evidence.lens_rows
        mine = rows[(rows.model == name) & (rows.target == target)]
        if not len(mine):
            return _UNKNOWN
        row = mine[mine.slots == ANY].iloc[0] if ANY in set(mine.slots) else mine.iloc[0]
        return 100 * row.excess, 100 * row.ci_low, 100 * row.ci_high

    slots = ANY if ANY in set(evidence.lens[model].slots) else "CT0"
    found = lens_difference(evidence.lens[model], evidence.lens[control], target, slots)
    gap = (100 * found.value, 100 * found.low, 100 * found.high)
    return _Row(own(model), own(control), gap, found.p, found.note)


def _read(reading: StateReadings, model: str, control: str) -> _Row:
    def points(found: Interval) -> _Triple:
        return 100 * found.value, 100 * found.low, 100 * found.high

    mine, theirs = reading.thinking(model), reading.thinking(control)
    gap = corrected_t(mine - theirs, reading.folds)
    p = 2 * min(gap.p, 1 - gap.p) if np.isfinite(gap.p) else np.nan
    return _Row(points(reading.gain(mine)), points(reading.gain(theirs)), points(gap), p, gap.note)


def _verdict(row: Mapping[Any, Any]) -> str:
    if not row["own_low"] > 0:
        return ABSENT if np.isfinite(row["own_low"]) or row["own"] == 0 else OPEN
    if row["p_holm"] < ALPHA:
        return SURVIVES if row["difference"] > 0 else LARGER
    return SHARED if row["control_low"] > 0 else OPEN
