"""`analyse_zoo`: every table of a zoo, each row with an id that sentences cite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from thoughtgraft.analysis.estimate import position_table
from thoughtgraft.analysis.frame import Frame, build_frame
from thoughtgraft.analysis.lens_hits import COLUMNS as LENS
from thoughtgraft.analysis.lens_hits import lens_hits, lens_scores
from thoughtgraft.analysis.probing.states import COLUMNS as STATES
from thoughtgraft.analysis.probing.states import StateReadings, read_states
from thoughtgraft.analysis.zoo.accuracy import accuracy_table, pair_table
from thoughtgraft.analysis.zoo.findings import Evidence, finding_table
from thoughtgraft.analysis.zoo.measured import Measured, check_zoo
from thoughtgraft.errors import AnalysisError
from thoughtgraft.problems import Problem

IDS = {"accuracy": "A", "pairs": "P", "positions": "R", "lens": "L", "probes": "M", "findings": "F", "checks": "C"}
"""The letter of each table's row ids."""
TARGETS = ("operation", "n_steps")
SHOWN = ("swap", "mean", "zero")


@dataclass(frozen=True)
class ZooResult:
    """Models and tables; every table has a column `id` (`A1`, `P1`, ...). The makers document the other columns.

    Attributes:
        models: What was measured.
        tables: By name, the names of `IDS`.
        notes: What could not be done, and why.
    """

    models: tuple[Measured, ...]
    tables: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...]


def analyse_zoo(models: Sequence[Measured], problems: Sequence[Problem], labels: pd.DataFrame, seed: int) -> ZooResult:
    """Compare models that answered the same problems.

    Args:
        models: The models.
        problems: The problems with their steps, for the lens.
        labels: Columns `id`, `question`, `operation`, `n_steps`, where known `split` and `template`, for the probes.
        seed: Of folds, permutations and sign flips.

    Raises:
        AnalysisError: The models were not asked the same problems, or records cannot be used.
    """
    zoo = tuple(models)
    check_zoo(zoo)
    slotted = [model for model in zoo if model.records is not None and model.decoded is not None]
    frames = {m.name: build_frame(m.records) for m in slotted if m.records is not None}
    # In the order of their names, all slots stand after the single ones.
    effects = {m.name: _effects(m, frames[m.name], seed) for m in slotted}
    positions = [table.sort_values(["method", "slots"]).assign(model=name) for name, table in effects.items()]
    scores = {m.name: lens_scores(m.decoded, problems) for m in slotted if m.decoded is not None}
    hits = [lens_hits(m.decoded, problems).assign(model=m.name) for m in slotted if m.decoded is not None]
    readings, notes = _readings(zoo, labels, seed)
    rates = _stack(hits, ["model", *LENS])
    impacts = _stack(positions, ["model"])
    if len(impacts):
        impacts = impacts[impacts.method.isin(SHOWN)].reset_index(drop=True)
    evidence = Evidence(frames, scores, readings)
    tables = {
        "accuracy": accuracy_table(zoo),
        "pairs": pair_table(zoo),
        "positions": impacts,
        "lens": rates,
        "probes": _stack([r.table() for r in readings], list(STATES)),
        "findings": finding_table(zoo, evidence),
        "checks": _checks(zoo),
    }
    return ZooResult(zoo, {name: _with_ids(table, IDS[name]) for name, table in tables.items()}, tuple(notes))


def _effects(model: Measured, frame: Frame, seed: int) -> pd.DataFrame:
    """A model's position table; which slots are dead, or fed alike to all problems, its certificate says."""
    said = model.certificate or {}
    dead, alike = (said.get(name) or () for name in ("dead_slots", "shared_slots"))
    return position_table(frame, seed=seed, dead_slots=dead, shared_slots=alike)


def _readings(zoo: tuple[Measured, ...], labels: pd.DataFrame, seed: int) -> tuple[list[StateReadings], list[str]]:
    """The probes of every target that can be probed, and why others cannot."""
    found, notes = [], []
    ids = list(zoo[0].correct.problem_id)
    for target in TARGETS:
        try:
            found.append(read_states({m.name: m.states for m in zoo}, ids, labels, target, seed))
        except AnalysisError as error:
            notes.append(f"{target} was not probed: {error}")
    return found, notes


def _checks(zoo: tuple[Measured, ...]) -> pd.DataFrame:
    columns = ["model", "outcome", "passed", "checks", "failed", "notes"]
    rows = []
    for model in zoo:
        if model.certificate is None:
            why = f"nothing is fed: {model.why_no_slots}" if model.why_no_slots else ""
            rows.append((model.name, "not certified", 0, 0, "", why))
            continue
        checks = model.certificate["checks"]
        failed = [str(check["name"]) for check in checks if not check["passed"]]
        outcome = "passed" if model.certificate["passed"] else "FAILED"
        notes = "; ".join(map(str, model.certificate.get("notes", ())))
        rows.append((model.name, outcome, len(checks) - len(failed), len(checks), ", ".join(failed), notes))
    return pd.DataFrame(rows, columns=columns)


def _stack(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _with_ids(table: pd.DataFrame, letter: str) -> pd.DataFrame:
    out = table.copy()
    out.insert(0, "id", [f"{letter}{i + 1}" for i in range(len(table))])
    return out
