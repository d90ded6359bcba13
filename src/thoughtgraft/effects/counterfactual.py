"""Counterfactual adoption: does the host answer what it would if one of its steps had the donor's value?"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.effects.frame import Cells, Frame, as_frame
from thoughtgraft.effects.gates import RULE, Rule
from thoughtgraft.effects.positions import Adoption, adoption, adoption_bounds, by_construction
from thoughtgraft.stats.intervals import TOO_SMALL, Bounds
from thoughtgraft.stats.resampling import holm
from thoughtgraft.stats.verdicts import Verdict, verdict
from thoughtgraft.tasks.problem import Problem, Value

COLUMNS = (
    "slots", "step", "method", "donor_stratum", "rate", "null", "excess", "ci_low", "ci_high", "sim_low", "sim_high",
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
    dead_slots: Collection[int] = (),
    shared_slots: Collection[int] = (),
    rule: Rule = RULE,
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
        dead_slots: 0-based slots that cannot reach the output, as the certificate says.
        shared_slots: 0-based slots at which every problem is fed the same vector.
        rule: Gives the intervals their level and the verdicts their margin.

    Returns:
        Shares (0..1) with the columns of `COLUMNS`; `step` is 0-based. The null exchanges donors between hosts, as
        in `adoption`; `ci_*` are unadjusted, `sim_*` hold together over the family, and `verdict` is theirs beside the
        margin. The n_ columns count the arm's cells by why they are not eligible.
    """
    frame = as_frame(records)
    by_id = {problem.id: problem for problem in problems}
    steps = max((len(problem.steps) for problem in by_id.values()), default=0)
    family = ("swap", "recompute", frame.primary_stratum())
    wanted = [
        cells
        for key, cells in frame.arms.items()
        if key.family == family and len(cells) and len(key.slots) in (1, frame.n_slots)
    ]
    if not wanted or not steps:
        return pd.DataFrame(columns=list(COLUMNS))
    hosts, donors = (np.unique(np.concatenate([getattr(c, name) for c in wanted])) for name in ("host", "donor"))
    members: dict[bool, list[tuple[Cells, int, Adoption, list[int]]]] = {True: [], False: []}
    rows = {}
    for step in range(steps):
        codes, why = _answers(frame, by_id, step, largest, hosts, donors)
        for cells in wanted:
            offered, reasons = _exclude_own(cells, codes, why)
            counts = np.bincount(reasons[cells.host, cells.donor], minlength=5)
            member = (cells, step, adoption(cells, offered), counts.tolist())
            if null := by_construction(cells.arm, dead_slots, shared_slots):
                rows[step, cells.arm] = _row(frame, *member, None, rule) | {"note": null}
            else:
                members[len(cells.arm.slots) == 1].append(member)
    for part in members.values():
        bounds = adoption_bounds([found for _, _, found, _ in part], rule.alpha)
        made = [_row(frame, *member, one, rule) for member, one in zip(part, bounds, strict=True)]
        adjusted = holm(np.array([row["p"] for row in made], dtype=float))
        for (cells, step, *_), row, p in zip(part, made, adjusted, strict=True):
            rows[step, cells.arm] = row | {"p_holm": p}
    order = [(step, cells.arm) for step in range(steps) for cells in wanted]
    return pd.DataFrame([rows[key] for key in order], columns=list(COLUMNS))


def _row(
    frame: Frame, cells: Cells, step: int, found: Adoption, counts: list[int], bounds: Bounds | None, rule: Rule
) -> dict[str, Any]:
    """One slot set and step; without bounds its effect is 0 by construction."""
    names = ("n_eligible", "n_no_step", "n_undefined", "n_outside_vocabulary", "n_same_answer")
    row: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan) | dict(zip(names, counts, strict=True))
    row |= {"slots": frame.label(cells.arm.slots), "step": step, "method": "swap", "donor_stratum": cells.arm.stratum}
    row |= {"n_hosts": cells.n_hosts, "n_donors": cells.n_donors, "n_gen": len(cells)}
    if bounds is None:
        return row | {"verdict": Verdict.BY_CONSTRUCTION}
    row |= {"rate": found.rate, "null": found.null, "excess": bounds.estimate.value, "p": bounds.estimate.p}
    row |= {"ci_low": bounds.low, "ci_high": bounds.high, "sim_low": bounds.sim_low, "sim_high": bounds.sim_high}
    small = bounds.too_small and np.isfinite(bounds.sim_low)
    notes = [bounds.note] if bounds.note else []
    said = verdict(bounds.sim_low, bounds.sim_high, rule.margin, too_small=bounds.too_small)
    return row | {"verdict": said, "note": "; ".join([*notes, TOO_SMALL] if small else notes)}
