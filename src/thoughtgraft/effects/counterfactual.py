"""Counterfactual adoption: does the host answer what it would if one of its steps had the donor's value?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.effects.frame import PLACE, Cells, Frame, arm_table, as_frame
from thoughtgraft.effects.gates import NOTHING_KNOWN, Known, Rule
from thoughtgraft.effects.positions import Adoption, adoption, adoption_bounds, by_construction
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.stats.intervals import TOO_SMALL, Bounds
from thoughtgraft.stats.resampling import holm
from thoughtgraft.stats.verdicts import Verdict, verdict
from thoughtgraft.tasks.problem import Problem, Value

COLUMNS = (
    *PLACE, "step", "rate", "null", "excess", "ci_low", "ci_high", "sim_low", "sim_high",
    "verdict", "p", "p_holm", "n_eligible", "n_no_step", "n_undefined", "n_outside_vocabulary", "n_same_answer",
    "n_hosts", "n_donors", "n_gen", "note",
)  # fmt: skip
ELIGIBLE, NO_STEP, UNDEFINED, OUTSIDE, SAME = range(5)


def _answers(
    frame: Frame, by_id: dict[str, Problem], step: int, largest: int | None, hosts: np.ndarray, donors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Counterfactual answers of every host x donor at one step.

    Returns:
        Codes [host, donor] (-1: not eligible), and why (`ELIGIBLE`..`OUTSIDE`), same shape. Answers that no
        generation gave get a code of their own that nothing equals.
    """
    code = {answer: i for i, answer in enumerate(frame.answers)}
    never = len(code)
    codes = np.full((len(frame.hosts), len(frame.donors)), -1, dtype=np.int64)
    why = np.full(codes.shape, NO_STEP)
    # Donors by their step's value: there are far fewer values than donors.
    lending: dict[Value, list[int]] = {}
    for d in donors:
        problem = by_id.get(frame.donors[d])
        if problem is not None and step < len(problem.steps):
            lending.setdefault(problem.steps[step].value, []).append(int(d))
    for h in hosts:
        problem = by_id.get(frame.hosts[h])
        if problem is None or step >= len(problem.steps):
            continue
        for value, lenders in lending.items():
            found = problem.answer_with(step, value, largest)
            if found.value is None:
                codes[h, lenders], why[h, lenders] = -1, OUTSIDE if found.outside else UNDEFINED
            else:
                codes[h, lenders], why[h, lenders] = code.get(found.value, never), ELIGIBLE
    return codes, why


def _exclude_own(cells: Cells, codes: np.ndarray, why: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take away counterfactuals that equal the host's clean or gold answer: giving them would show nothing."""
    codes, why = codes.copy(), why.copy()
    for own in (cells.base_pred, cells.gold):
        mine = np.full(len(codes), -2, dtype=np.int64)
        mine[cells.host] = own
        same = (codes == mine[:, None]) & (codes >= 0)
        codes[same], why[same] = -1, SAME
    return codes, why


def counterfactual_table(
    records: pd.DataFrame | Frame,
    problems: Iterable[Problem],
    *,
    largest: int | None = None,
    known: Known = NOTHING_KNOWN,
) -> pd.DataFrame:
    """Adoption of step values, for every edited slot (and all slots) x every step.

    For step j, the counterfactual is the host's answer with its step j set to the value of the donor's step j. Which
    slot holds which step is a result here, so every combination is estimated, and the single slots' are one family;
    those of all slots are another. For a host's last step the counterfactual is the donor's step value itself, so that
    it may coincide with adopting the donor's answer.

    Args:
        records: Records or their frame.
        problems: The problems of the run, with steps.
        largest: The largest number that the model can say, if it has one; larger counterfactuals are not eligible.
        known: The rule, and the slots whose effect is 0 by construction.

    Returns:
        Shares (0..1) with the columns of `COLUMNS`; `step` is 0-based. The null exchanges donors between hosts, as
        in `adoption`; `ci_*` are unadjusted, `sim_*` hold together over the family, and `verdict` is theirs beside the
        margin. The n_ columns count the arm's cells by why they are not eligible.
    """
    frame = as_frame(records)
    by_id = {problem.id: problem for problem in problems}
    steps = max((len(problem.steps) for problem in by_id.values()), default=0)
    found = [frame.get(frame.primary, slots) for slots in dict.fromkeys([*((k,) for k in frame.every), frame.every])]
    wanted = [cells for cells in found if cells is not None]
    if not wanted or not steps:
        return arm_table([], COLUMNS)
    hosts, donors = (np.unique(np.concatenate([getattr(c, name) for c in wanted])) for name in ("host", "donor"))
    tried = []
    for step in range(steps):
        codes, why = _answers(frame, by_id, step, largest, hosts, donors)
        for cells in wanted:
            offered, reasons = _exclude_own(cells, codes, why)
            counts = np.bincount(reasons[cells.host, cells.donor], minlength=5)
            tried.append(_Tried(cells, step, adoption(cells, offered), counts.tolist()))
    null = {one.key: by_construction(one.cells.arm, known) for one in tried}
    rows = {one.key: _row(frame, one, None, known.rule) | {"note": null[one.key]} for one in tried if null[one.key]}
    live = [one for one in tried if not null[one.key]]
    for single in (True, False):
        rows |= _family(frame, [one for one in live if (len(one.cells.arm.slots) == 1) == single], known.rule)
    return arm_table([rows[one.key] for one in tried], COLUMNS)


@dataclass(frozen=True)
class _Tried:
    """An arm at one step: the adoption found, and its cells counted by why they are not eligible."""

    cells: Cells
    step: int
    found: Adoption
    counts: list[int]

    @property
    def key(self) -> tuple[int, ArmKey]:
        return self.step, self.cells.arm


def _family(frame: Frame, members: Sequence[_Tried], rule: Rule) -> dict[tuple[int, ArmKey], dict[str, Any]]:
    """Rows whose intervals hold together."""
    bounds = adoption_bounds([one.found for one in members], rule.alpha)
    made = [_row(frame, one, own, rule) for one, own in zip(members, bounds, strict=True)]
    adjusted = holm(np.array([row["p"] for row in made], dtype=float))
    return {one.key: row | {"p_holm": p} for one, row, p in zip(members, made, adjusted, strict=True)}


def _row(frame: Frame, one: _Tried, bounds: Bounds | None, rule: Rule) -> dict[str, Any]:
    """One slot set and step; without bounds its effect is 0 by construction."""
    cells, found = one.cells, one.found
    names = ("n_eligible", "n_no_step", "n_undefined", "n_outside_vocabulary", "n_same_answer")
    row: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan) | dict(zip(names, one.counts, strict=True))
    row |= frame.columns(cells.arm) | {"step": one.step}
    row |= {"n_hosts": cells.n_hosts, "n_donors": cells.n_donors, "n_gen": len(cells)}
    if bounds is None:
        return row | {"verdict": Verdict.BY_CONSTRUCTION}
    row |= {"rate": found.rate, "null": found.null, "excess": bounds.estimate.value, "p": bounds.estimate.p}
    row |= {"ci_low": bounds.low, "ci_high": bounds.high, "sim_low": bounds.sim_low, "sim_high": bounds.sim_high}
    small = bounds.too_small and np.isfinite(bounds.sim_low)
    notes = [bounds.note] if bounds.note else []
    said = verdict(bounds.sim_low, bounds.sim_high, rule.margin, too_small=bounds.too_small)
    return row | {"verdict": said, "note": "; ".join([*notes, TOO_SMALL] if small else notes)}
