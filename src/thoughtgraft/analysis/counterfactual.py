"""Counterfactual adoption: does the host answer what it would if one of its steps had the donor's value?"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pandas as pd

from thoughtgraft.analysis.adoption import adoption
from thoughtgraft.analysis.cells import Cells
from thoughtgraft.analysis.frame import Frame, as_frame
from thoughtgraft.analysis.multiplicity import benjamini_hochberg
from thoughtgraft.problems.problem import Problem

COLUMNS = (
    "slots", "step", "method", "donor_stratum", "rate", "null", "excess", "ci_low", "ci_high", "p", "p_bh",
    "n_eligible", "n_no_step", "n_undefined", "n_outside_vocabulary", "n_same_answer", "n_hosts", "n_gen", "note",
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
    code = {number: i for i, number in enumerate(frame.answers)}
    never = len(code)
    codes = np.full((len(frame.hosts), len(frame.donors)), -1, dtype=np.int64)
    why = np.full(codes.shape, NO_STEP)
    # Donors by their step's value: there are far fewer values than donors.
    lending: dict[Fraction, list[int]] = {}
    for d in donors:
        problem = by_id.get(frame.donors[d])
        if problem is not None and step < len(problem.steps):
            lending.setdefault(problem.steps[step].value, []).append(int(d))
    for h in hosts:
        problem = by_id.get(frame.hosts[h])
        if problem is None or step >= len(problem.steps):
            continue
        for value, lenders in lending.items():
            answer = problem.answer_with(step, value).value
            if answer is None:
                codes[h, lenders], why[h, lenders] = -1, UNDEFINED
            elif largest is not None and answer > largest:
                codes[h, lenders], why[h, lenders] = -1, OUTSIDE
            else:
                codes[h, lenders], why[h, lenders] = code.get(answer, never), ELIGIBLE
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
    records: pd.DataFrame | Frame, problems: Iterable[Problem], *, largest: int | None = None
) -> pd.DataFrame:
    """Adoption of step values, for every edited slot (and all slots) x every step.

    For step j, the counterfactual is the host's answer with its step j set to the value of the donor's step j. Which
    slot holds which step is a result here, so every combination is estimated; all are exploratory, with
    Benjamini-Hochberg p over the table. For a host's last step the counterfactual is the donor's step value itself,
    so that it may coincide with adopting the donor's answer.

    Args:
        records: Records or their frame.
        problems: The problems of the run, with steps.
        largest: The largest number that the model can say, if it has one; larger counterfactuals are not eligible.

    Returns:
        Shares (0..1) with the columns of `COLUMNS`; `step` is 0-based. The null exchanges donors between hosts, as
        in `adoption`. The n_ columns count the arm's cells by why they are not eligible.
    """
    frame = as_frame(records)
    by_id = {problem.id: problem for problem in problems}
    steps = max((len(problem.steps) for problem in by_id.values()), default=0)
    stratum = frame.primary_stratum()
    wanted = [
        cells
        for key, cells in frame.arms.items()
        if key.family == ("swap", "recompute", stratum)
        and len(cells)
        and (len(key.slots) == 1 or len(key.slots) == frame.n_slots)
    ]
    if not wanted or not steps:
        return pd.DataFrame(columns=list(COLUMNS))
    hosts, donors = (np.unique(np.concatenate([getattr(c, name) for c in wanted])) for name in ("host", "donor"))
    rows = []
    for step in range(steps):
        codes, why = _answers(frame, by_id, step, largest, hosts, donors)
        for cells in wanted:
            offered, reasons = _exclude_own(cells, codes, why)
            counts = np.bincount(reasons[cells.host, cells.donor], minlength=5)
            found = adoption(cells, offered)
            figures = (found.rate, found.null, found.excess.value, found.excess.low, found.excess.high, found.excess.p)
            row = (frame.label(cells.arm.slots), step, "swap", stratum, *figures, np.nan)
            rows.append((*row, *(int(c) for c in counts), cells.n_hosts, len(cells), found.excess.note))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["p_bh"] = benjamini_hochberg(table.p.to_numpy(dtype=float))
    return table
