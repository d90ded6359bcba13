"""Gate G0: whether a run may state any effect, each gate with its figure; without evidence it is "not run"."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from thoughtgraft.analysis.cells import Cells
from thoughtgraft.analysis.frame import Frame
from thoughtgraft.analysis.rule import RULE, GateRule, Rule

PASS, FAIL, NOT_RUN = "pass", "fail", "not run"
_REASONS = 3  # named


@dataclass(frozen=True)
class GateResult:
    """A gate's outcome ("pass", "fail", "not run"), its `figure` (NaN where none), and what the figure counts."""

    name: str
    statement: str
    outcome: str
    figure: float
    limit: float | None
    detail: str


def _result(rule: GateRule, figure: float, detail: str) -> GateResult:
    if not np.isfinite(figure) or rule.limit is None:
        return GateResult(rule.name, rule.statement, NOT_RUN, np.nan, rule.limit, detail)
    passed = figure <= rule.limit if rule.sense == "most" else figure >= rule.limit
    return GateResult(rule.name, rule.statement, PASS if passed else FAIL, figure, rule.limit, detail)


def _arms(frame: Frame, method: str) -> list[Cells]:
    return [cells for key, cells in frame.arms.items() if key.method == method and len(cells)]


def _self_null(frame: Frame, dead: Collection[int]) -> tuple[float, str]:
    arms = _arms(frame, "self")
    covered = {slot for cells in arms for slot in cells.arm.slots if len(cells.arm.slots) == 1}
    lacking = [f"CT{slot}" for slot in range(frame.n_slots) if slot not in covered and slot not in dead]
    changed = float(sum(cells.changed.sum() for cells in arms))
    n = sum(map(len, arms))
    # A change is evidence against the run wherever it occurs; its absence is evidence only where self was run.
    if not arms or (lacking and not changed):
        return np.nan, f"no self arm at {', '.join(lacking) or 'any slot'}"
    return changed, f"{int(changed)} of {n} self cells changed their answer"


def _noop(frame: Frame) -> tuple[float, str]:
    arms = _arms(frame, "noop")
    changed, n = float(sum(cells.changed.sum() for cells in arms)), sum(map(len, arms))
    return (changed, f"{int(changed)} of {n} noop cells changed their answer") if n else (np.nan, "no noop arm")


def _moved(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """How far each cell's distribution moved, as (|dlogp|, kl)."""
    return np.abs(cells.dlogp), np.abs(cells.kl)


def _edits_bite(frame: Frame, dead: Collection[int]) -> tuple[float, str]:
    # What noop and self move is arithmetic noise; a swap must move more than the most of it.
    still = [cells for method in ("noop", "self") for cells in _arms(frame, method)]
    floors = [
        max((float(np.nanmax(x)) for c in still if np.isfinite(x := _moved(c)[i]).any()), default=0.0) for i in (0, 1)
    ]
    shares = {}
    for slot, cells in frame.singles("swap", "recompute", frame.primary_stratum()).items():
        measures = _moved(cells)
        measured = np.isfinite(measures[0]) | np.isfinite(measures[1])
        if slot in dead or not measured.any():
            continue
        moved = (np.nan_to_num(measures[0]) > floors[0]) | (np.nan_to_num(measures[1]) > floors[1])
        shares[slot] = float(moved[measured].mean())
    if not shares:
        return np.nan, "no log-probabilities of single-slot swaps in the records"
    least = min(shares, key=lambda slot: shares[slot])
    noise = f"more than the largest noop or self change ({max(floors):.1e} nats)"
    return shares[least], f"least at CT{least}: {shares[least]:.1%} of cells moved by {noise}"


def _invalid(frame: Frame) -> tuple[float, str]:
    arms = [*_arms(frame, "baseline"), *_arms(frame, "self")]
    n = sum(map(len, arms))
    if not n:
        return np.nan, "no baseline or self rows"
    bad = float(sum((1 - cells.valid).sum() for cells in arms))
    return bad / n, f"{int(bad)} of {n} baseline and self answers did not parse"


def failed_words(failures: Mapping[str, int], n_cells: int) -> str:
    """How many cells failed, and the most frequent reasons with their counts."""
    if not failures:
        return f"none of {n_cells:,} cells failed"
    named = [f"{reason} ({n:,})" for reason, n in list(failures.items())[:_REASONS]]
    named += [f"{len(failures) - _REASONS:,} more reasons"] if len(failures) > _REASONS else []
    return f"{sum(failures.values()):,} of {n_cells:,} cells failed: {'; '.join(named)}"


def failed_gate(failures: Mapping[str, int] | None, n_cells: int, rule: Rule = RULE) -> GateResult:
    """Whether too many cells have no outcome.

    Args:
        failures: Failed cells by their reason; None where records cannot show them.
        n_cells: All cells.
        rule: The rule, whose gate `failed` has the limit.
    """
    gate = next(gate for gate in rule.gates if gate.name == "failed")
    if failures is None:
        return _result(gate, np.nan, "the records have no column `error`, so failures would not show")
    return _result(gate, sum(failures.values()) / n_cells, failed_words(failures, n_cells))


def check_gates(
    frame: Frame,
    certificate: Mapping[str, bool] | None = None,
    dead_slots: Collection[int] = (),
    rule: Rule = RULE,
    shared_slots: Collection[int] = (),
) -> tuple[GateResult, ...]:
    """Check every gate of the rule.

    Args:
        frame: The run.
        certificate: Outcomes, by gate name, of the gates that records cannot show ("certificate", "transplant"). A
            gate that is not named is "not run", which is not a pass.
        dead_slots: 0-based slots that are structurally dead under the run's protocol.
        rule: The rule of the run.
        shared_slots: 0-based slots at which every problem is fed the same vector, so that a swap is the identity.
    """
    checks = {
        "self_null": lambda: _self_null(frame, dead_slots),
        "noop": lambda: _noop(frame),
        "edits_bite": lambda: _edits_bite(frame, {*dead_slots, *shared_slots}),
        "invalid": lambda: _invalid(frame),
        "duplicates": lambda: (float(frame.duplicates), f"{frame.duplicates} repeated of {frame.n_rows} rows"),
    }
    results = []
    for gate in rule.gates:
        if gate.name == "failed":
            results.append(failed_gate(frame.failures, frame.n_cells, rule))
            continue
        if gate.evidence == "records":
            results.append(_result(gate, *checks[gate.name]()))
            continue
        known = (certificate or {}).get(gate.name)
        outcome = NOT_RUN if known is None else PASS if known else FAIL
        detail = "not among the records" if known is None else "from the run's certificate"
        results.append(GateResult(gate.name, gate.statement, outcome, np.nan, None, detail))
    return tuple(results)
