"""Findings about thoughts beside the model whose slots carry nothing of the problem: which of them it shows too.

A finding is an effect in percentage points that stands for "something is in the thoughts": accuracy lost when all are
replaced, donors' answers adopted, values decoded, labels read. Each is estimated in a model that thinks and in the
pause control, on the same problems, and so is their difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.analysis.adoption import adoption, adoption_bounds, donor_answers
from thoughtgraft.analysis.cells import ArmKey
from thoughtgraft.analysis.clustered import Estimate, t_interval
from thoughtgraft.analysis.compare import compare_runs
from thoughtgraft.analysis.frame import Frame
from thoughtgraft.analysis.intervals import MIN_HOSTS
from thoughtgraft.analysis.lens_hits import ANY, FINAL, INTERMEDIATE, lens_difference, lens_excess
from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.probing.intervals import Interval, corrected_t
from thoughtgraft.analysis.probing.states import StateReadings
from thoughtgraft.analysis.rule import RULE
from thoughtgraft.analysis.verdicts import verdict
from thoughtgraft.analysis.zoo.measured import PAUSE, Measured

COLUMNS = (
    "finding", "model", "control", "own", "own_low", "own_high", "own_sim_low", "own_sim_high", "own_verdict",
    "in_control", "control_low", "control_high", "control_sim_low", "control_sim_high", "control_verdict",
    "difference", "ci_low", "ci_high", "sim_low", "sim_high", "verdict", "p", "p_holm", "note",
)  # fmt: skip
BY_CONSTRUCTION = "a pause vector is the same for every problem, so this edit changes nothing in the control"
_Triple = tuple[float, float, float]
WORDS = {"operation": "the operation", "n_steps": "the number of steps"}
"""Labels in sentences."""


@dataclass(frozen=True)
class Evidence:
    """What findings rest on: frames of the resampling study and lens scores by model, readings by target."""

    frames: Mapping[str, Frame]
    lens: Mapping[str, pd.DataFrame]
    readings: Sequence[StateReadings]


@dataclass(frozen=True)
class _Row:
    """A finding: in the model, in the control, and the difference, each (value, low, high) at one level."""

    own: _Triple
    control: _Triple
    difference: _Triple
    p: float
    note: str = ""
    control_null: bool = False
    too_small: bool = False


_Measure = Callable[[str, str, float], _Row]
"""Of a model and its control, with intervals at the level 1 - alpha."""


def finding_table(zoo: Sequence[Measured], evidence: Evidence) -> pd.DataFrame:
    """Every finding of every model that thinks, beside the first pause model.

    Returns:
        Columns `COLUMNS`, in percentage points. `*_low`, `*_high` are 95% intervals alone; `*sim_low`, `*sim_high` hold
        together over all estimates of the table (Bonferroni, since they are of many kinds), and each verdict is where
        its own lies beside 0 and the margin. `p` (two-sided) is of the difference, `p_holm` over all rows.
        Empty where there is no pause model.
    """
    control = next((model for model in zoo if model.method == PAUSE and model.num_latents), None)
    thinkers = [model for model in zoo if model.thinks and model.num_latents]
    if control is None or not thinkers:
        return pd.DataFrame(columns=list(COLUMNS))
    measures = _findings(evidence)
    share = RULE.alpha / (3 * len(measures) * len(thinkers))
    rows = [
        {"finding": name, "model": model.name, "control": control.name}
        | _judged(*(measure(model.name, control.name, alpha) for alpha in (RULE.alpha, share)))
        for name, measure in measures.items()
        for model in thinkers
    ]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    return table.assign(p_holm=holm(table.p.to_numpy(float)))


def _judged(alone: _Row, together: _Row) -> dict[str, Any]:
    row: dict[str, Any] = {"p": alone.p, "note": alone.note}
    for name, sim, column in (("own", "own_", "own_"), ("control", "control_", "control_"), ("difference", "", "ci_")):
        value, low, high = getattr(alone, name)
        _, sim_low, sim_high = getattr(together, name)
        null = name == "control" and alone.control_null
        said = verdict(sim_low, sim_high, RULE.margin_pp, by_construction=null, too_small=alone.too_small)
        row |= {"in_control" if name == "control" else name: value, f"{column}low": low, f"{column}high": high}
        row |= {f"{sim}sim_low": sim_low, f"{sim}sim_high": sim_high, f"{sim}verdict": said}
    return row


def _findings(evidence: Evidence) -> dict[str, _Measure]:
    found: dict[str, _Measure] = {
        "accuracy lost when all thoughts are another problem's": partial(_impact, evidence.frames, "swap"),
        "accuracy lost when all thoughts are the mean": partial(_impact, evidence.frames, "mean"),
        "accuracy lost when all thoughts are zero": partial(_impact, evidence.frames, "zero"),
        "donor's answer adopted beyond chance, all thoughts swapped": partial(_adopted, evidence.frames),
        "an intermediate value decoded beyond chance, at any slot": partial(_decoded, evidence.lens, INTERMEDIATE),
        "the final answer decoded beyond chance, at any slot": partial(_decoded, evidence.lens, FINAL),
    }
    for reading in evidence.readings:
        label = WORDS.get(reading.rows.target, reading.rows.target)
        name = f"{label} read from the states after begin-of-thought beyond the question's words"
        found[name] = partial(_read, reading)
    return found


def _impact(frames: Mapping[str, Frame], method: str, model: str, control: str, alpha: float) -> _Row:
    compared = compare_runs(frames[control], frames[model], alpha=alpha)
    # All slots stand last among a method's arms, also where there is one slot only.
    row = compared[compared.method == method].iloc[-1]
    own = (row.b_pp, row.b_ci_low, row.b_ci_high)
    other = (row.a_pp, row.a_ci_low, row.a_ci_high)
    null = method in ("swap", "mean")
    notes = "; ".join(note for note in (BY_CONSTRUCTION if null else "", row.note) if note)
    # Beside a control that cannot lose anything, the difference is the model's own effect.
    gap = own if null and row.a_pp == 0 else (row.difference_pp, row.ci_low, row.ci_high)
    small = min(row.n_hosts_a, row.n_hosts_b) < MIN_HOSTS
    return _Row(own, other, gap, row.p, notes, null, small)


def _adopted(frames: Mapping[str, Frame], model: str, control: str, alpha: float) -> _Row:
    frame = frames[model]
    arm = frame.arms[ArmKey("swap", tuple(range(frame.n_slots)), "recompute", frame.primary_stratum())]
    found = adoption_bounds([adoption(arm, donor_answers(arm, len(frame.hosts), len(frame.donors)))], alpha)[0]
    own = (100 * found.estimate.value, 100 * found.low, 100 * found.high)
    # In the control the answer stays the host's, which never counts as adopted: 0 without error.
    notes = "; ".join(note for note in (BY_CONSTRUCTION, found.note) if note)
    return _Row(own, (0.0, np.nan, np.nan), own, found.estimate.p, notes, True, found.too_small)


def _decoded(scores: Mapping[str, pd.DataFrame], target: str, model: str, control: str, alpha: float) -> _Row:
    slots = ANY if ANY in set(scores[model].slots) else "CT0"
    found = [lens_excess(scores[name], target, slots) for name in (model, control)]
    gap = lens_difference(scores[model], scores[control], target, slots)

    def points(est: Estimate) -> _Triple:
        low, high = t_interval(est.value, est.se, est.df, 1 - alpha)
        return 100 * est.value, 100 * low, 100 * high

    small = 0 < gap.n_hosts < MIN_HOSTS
    return _Row(points(found[0]), points(found[1]), points(gap), gap.p, gap.note, too_small=small)


def _read(reading: StateReadings, model: str, control: str, alpha: float) -> _Row:
    def points(found: Interval) -> _Triple:
        return 100 * found.value, 100 * found.lower(alpha / 2), 100 * found.upper(alpha / 2)

    mine, theirs = reading.thinking(model), reading.thinking(control)
    gap = corrected_t(mine - theirs, reading.folds)
    p = 2 * min(gap.p, 1 - gap.p) if np.isfinite(gap.p) else np.nan
    return _Row(points(reading.gain(mine)), points(reading.gain(theirs)), points(gap), p, gap.note)
