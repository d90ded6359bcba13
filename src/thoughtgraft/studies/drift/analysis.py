"""The drift study: one plan under several protocols, and how far each is from the right one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from thoughtgraft.edits.known import Baseline, Self, Swap
from thoughtgraft.effects.compare import compare_records
from thoughtgraft.effects.frame import Frame, as_frame, as_slots
from thoughtgraft.effects.gates import Known
from thoughtgraft.effects.positions import arm_mean, position_table
from thoughtgraft.errors import AnalysisError
from thoughtgraft.records.schema import ArmKey

_FROM_POSITIONS = (
    "label", "slots", "method", "n_hosts", "n_donors", "n_gen", "n_failed", "acc", "impact_pp", "ci_low", "ci_high",
    "sim_low", "sim_high", "verdict", "zero_bound_pp", "p_holm", "changed_rate", "adoption_rate", "adoption_null",
    "adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high", "dlogp", "kl", "kl_ci_low", "kl_ci_high",
    "note",
)  # fmt: skip
_DIFFERENCE = {"difference_pp": "difference_pp", "ci_low": "difference_ci_low", "ci_high": "difference_ci_high",
               "p_holm": "difference_p_holm"}  # fmt: skip
COLUMNS = ("protocol", *_FROM_POSITIONS, *_DIFFERENCE.values(), "differs_rate")
METHODS = tuple(edit.name for edit in (Baseline, Self, Swap))


def drift_table(
    records: Mapping[str, pd.DataFrame],
    *,
    seed: int = 0,
    dead_slots: Mapping[str, Collection[int]] | None = None,
    shared_slots: Mapping[str, Collection[int]] | None = None,
) -> pd.DataFrame:
    """What each protocol reports on the same hosts and donors, and its difference to the first one's.

    Args:
        records: The records of each protocol's run, by its name; the first is the standard.
        seed: Seeds the resampling of the position tables.
        dead_slots: By protocol, the 0-based slots that cannot reach the output, as its certificate says.
        shared_slots: By protocol, those at which every problem is fed the same vector.

    Returns:
        One row per protocol and arm (baseline, self and swap; later thoughts recomputed, random donors), with the
        columns of `COLUMNS`: those of the position table; `difference_*`, impact - the standard's on the same hosts
        and donors in pp, with its interval and Holm's p over the single slots (accuracy for the baseline; undefined
        for the standard); `differs_rate`, the share (0..1) of generations whose answer is another number than the
        standard's answer to the same cell; and an interval of `kl`. The baseline's interval is Wilson's of its
        accuracy, in percent. Sorted by method, then single slots by number, then several slots.

    Raises:
        AnalysisError: No records, records that cannot be used, or other hosts, donors or arms than the standard's.
    """
    if not records:
        raise AnalysisError("there is no protocol to compare", expected="at least one run's records")
    standard = next(iter(records))
    frames = {name: as_frame(part) for name, part in records.items()}
    answers = {name: _answers(part) for name, part in records.items()}
    tables = []
    for name, frame in frames.items():
        own, shared = answers[name], answers[standard]
        if set(own) != set(shared):
            raise AnalysisError(
                f"the runs under {standard} and {name} are not of one plan",
                got=f"{len(set(own) ^ set(shared))} cells that only one of them has",
                expected="the same arms, hosts and donors in both",
                fix="finish both runs: the same command continues them",
            )
        dead, alike = ((by_name or {}).get(name, ()) for by_name in (dead_slots, shared_slots))
        effects = position_table(frame, seed=seed, known=Known(dead_slots=dead, shared_slots=alike))
        table = pd.DataFrame([_baseline(frame), *_with_kl_intervals(effects, frame).to_dict("records")])
        if name != standard:
            table = _with_difference(table, compare_records(frames[standard], frame))
            differs = _differs(own, shared)
            table = table.assign(differs_rate=[differs[m, s] for m, s in zip(table.method, table.slots, strict=True)])
        tables.append(table.assign(protocol=name).reindex(columns=list(COLUMNS)))
    table = pd.concat([part.astype(object) for part in tables], ignore_index=True).infer_objects()
    place = [(METHODS.index(m), len(s), s) for m, s in zip(table.method, table.slots, strict=True)]
    return table.iloc[sorted(range(len(table)), key=place.__getitem__)].reset_index(drop=True)


def _baseline(frame: Frame) -> dict[str, Any]:
    """The unedited run as a row: `acc` as a fraction, its interval in percent; no edit, so no impact."""
    key, cells = next(
        ((key, c) for key, c in frame.arms.items() if key.method == Baseline.name and len(c)), (None, None)
    )
    if key is None or cells is None:
        raise AnalysisError("a run has no baseline", fix="use the plan of the drift study")
    right = int(cells.correct.sum())
    interval = binomtest(right, len(cells)).proportion_ci(0.95, "wilson")
    row = frame.columns(key) | {"acc": right / len(cells), "n_hosts": cells.n_hosts}
    row |= {"ci_low": 100 * interval.low, "ci_high": 100 * interval.high}
    return row | {"n_gen": len(cells), "n_failed": cells.n_failed, "n_donors": 0, "note": "", "verdict": ""}


def _with_kl_intervals(table: pd.DataFrame, frame: Frame) -> pd.DataFrame:
    """The rows of self and swap, with the interval of their mean divergence."""
    table = table[table.method.isin(METHODS)]
    arms = [frame.arms[key] for key in ArmKey.of_table(table)]
    found = [arm_mean(cells, cells.kl) for cells in arms]
    # A divergence is never negative, but for rounding.
    lows = [max(est.low, 0.0) for est in found]
    return table.assign(kl_ci_low=lows, kl_ci_high=[est.high for est in found])


def _with_difference(table: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    main = compared[compared.donor_stratum.isin(["", "random"]) & compared.downstream.isin(["", "recompute"])]
    main = main[["method", "slots", *_DIFFERENCE]].rename(columns=_DIFFERENCE)
    return table.merge(main, on=["method", "slots"], how="left", validate="one_to_one")


Cell = tuple[str, tuple[int, ...], str, str]
_FAILED = object()


def _answers(records: pd.DataFrame) -> dict[Cell, object]:
    """The parsed answer of every cell of the table's arms; None where nothing was parsed, `_FAILED` without outcome."""
    part = records[records["method"].isin(METHODS)]
    donors = part["donor_id"].where(part["donor_id"].notna(), "")
    slots = map(as_slots, part["slots"])
    answers = part["pred"].astype(object).where(part["pred"].notna(), None)
    answers = answers.where(part["correct"].notna(), _FAILED)
    names = zip(part["method"], slots, part["problem_id"].astype(str), donors.astype(str), strict=True)
    return dict(zip(names, answers, strict=True))


def _differs(own: Mapping[Cell, object], other: Mapping[Cell, object]) -> dict[Any, float]:
    """Share of cells with another answer than `other` has there, by method and slots; failed cells left out."""
    found: dict[tuple[str, tuple[int, ...]], list[bool]] = {}
    for cell, answer in own.items():
        both = found.setdefault(cell[:2], [])
        if answer is not _FAILED and other[cell] is not _FAILED:
            both.append(answer != other[cell])
    return {name: float(np.mean(values)) if values else np.nan for name, values in found.items()}
