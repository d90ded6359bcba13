"""What a tracker is, and what a run's folder has to tell it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from thoughtgraft.files import read_json
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.records.shards import read_effects
from thoughtgraft.records.spec import (
    CERTIFICATE_FILE,
    HEARTBEAT_FILE,
    LOCK_FILE,
    SPEC_FILE,
    read_spec_file,
)
from thoughtgraft.records.status import Status

if TYPE_CHECKING:
    import pandas as pd


class Tracker(Protocol):
    """A service that keeps what it is told. A run has phases, each kept under its own name; metrics are by name."""

    def begin(self, phase: str, config: Mapping[str, Any], tags: Sequence[str]) -> None:
        """Open a phase, or go on with it where the same run was tracked before."""

    def log(self, phase: str, metrics: Mapping[str, float]) -> None:
        """Metrics as of now; `cells` among them is the axis of the others."""

    def summary(self, phase: str, metrics: Mapping[str, Any]) -> None:
        """Final metrics."""

    def table(self, phase: str, name: str, table: pd.DataFrame) -> None:
        """A table."""

    def figure(self, phase: str, name: str, png: Path) -> None:
        """A figure."""

    def folder(self, phase: str, name: str, files: Mapping[str, Path]) -> None:
        """The run's files, by their names in its folder."""

    def finish(self, ok: bool) -> None:
        """Close every phase; `ok` says whether the run ended well."""


TRACKER_FOLDER = "wandb"
_PRIVATE = (LOCK_FILE, HEARTBEAT_FILE)
_FINAL = ("acc", "impact_pp", "ci_low", "ci_high", "p_holm")


def configuration(run: Path) -> dict[str, Any]:
    """What run.json says; empty where there is none."""
    return read_spec_file(run) if (run / SPEC_FILE).is_file() else {}


def identity(run: Path) -> str:
    """Twelve hex digits that name this run in this folder, however often it is continued: run.json is written once."""
    file = run / SPEC_FILE
    return hashlib.sha256(file.read_bytes() if file.is_file() else str(run.resolve()).encode()).hexdigest()[:12]


def running_metrics(status: Status) -> dict[str, float]:
    """How far the run is, and for each method at each single slot and all slots its accuracy and impact so far.

    Impacts are in percentage points, accuracies fractions; later thoughts recomputed, random donors.
    """
    found: dict[str, float] = {"cells": status.done, "errors": status.errors}
    if status.rate_per_s is not None:
        found["cells_per_s"] = status.rate_per_s
    for line in status.main_arms:
        name = line.arm.label(status.widest)
        if line.accuracy is not None:
            found[f"accuracy/{name}"] = line.accuracy
        if line.impact_pp is not None and line.arm.slots:
            found[f"impact_pp/{name}"] = line.impact_pp
    return found


def final_metrics(run: Path) -> dict[str, Any]:
    """The certificate, the position table's main figures under the names of the running ones, the pilot's verdict.

    And the share of cells that failed; nothing of what a study does not have.
    """
    found: dict[str, Any] = {}
    if (run / CERTIFICATE_FILE).is_file():
        found["certificate"] = "passed" if read_json(run / CERTIFICATE_FILE)["passed"] else "failed"
    if (run / "analysis" / "positions.parquet").is_file():
        table = read_effects(run / "analysis" / "positions.parquet")
        arms = ArmKey.of_table(table)
        widest = max((len(arm.slots) for arm in arms), default=0)
        for arm, row in zip(arms, table.to_dict("records"), strict=True):
            if arm.main and arm.span(widest) != "some":
                name = arm.label(widest)
                found |= {f"{column}/{name}": row[column] for column in _FINAL if row.get(column) == row.get(column)}
    if (run / "analysis" / "decision.json").is_file():
        decision: Mapping[str, Any] = read_json(run / "analysis" / "decision.json")
        found |= {"valid": decision.get("valid"), "verdict": (decision.get("pilot") or {}).get("verdict")}
        gates = {gate["name"]: gate for gate in decision.get("gates", ())}
        if "failed" in gates:
            found["failed_share"] = gates["failed"]["figure"]
    return found


def run_files(run: Path) -> dict[str, Path]:
    """Every file that belongs to the run, by its name in the folder; the tracker's own and the process's left out."""
    files = {file.relative_to(run).as_posix(): file for file in sorted(run.rglob("*")) if file.is_file()}
    own = (f"{TRACKER_FOLDER}/", ".tmp-")
    return {name: file for name, file in files.items() if name not in _PRIVATE and not name.startswith(own)}
