"""A run folder as the report reads it: records, problems, decoded thoughts, certificate, starts; what lacks is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from thoughtgraft.analysis.rule import VERSION, Basis, basis_of
from thoughtgraft.records import RunSpec, RunStore
from thoughtgraft.records.frames import read_frame
from thoughtgraft.records.layout import DECISION_FILE, PROBLEMS_FILE, STARTS_FILE
from thoughtgraft.report.certificate import Certificate, read_certificate
from thoughtgraft.report.formats import shorten

DECODED_FILE = "decoded.parquet"
ANALYSIS_FILE = "analysis/decision.json"
OLD_DECISION_FILE = "analysis/decision-before.json"
"""The verdicts of an older rule, kept where the records are judged anew."""


@dataclass(frozen=True)
class RunData:
    """Everything of a run that a report may quote; thoughts themselves are never read.

    Attributes:
        problems: id -> its row of `problems.parquet`; empty where the file is missing.
        decoded: Rows of `decoded.parquet` (problem_id, slot, rank, token, prob); None where missing.
        starts: One entry per start of the run.
    """

    path: Path
    store: RunStore
    records: pd.DataFrame
    problems: Mapping[str, Mapping[str, Any]]
    decoded: pd.DataFrame | None
    certificate: Certificate
    starts: tuple[Mapping[str, Any], ...]

    @property
    def spec(self) -> RunSpec:
        """What `run.json` says."""
        return self.store.spec

    @property
    def missing(self) -> int:
        """Generations that the run has not made yet."""
        return max(self.spec.n_cells - len(self.records), 0)

    def question(self, problem_id: str, limit: int = 400) -> str:
        """A problem's question on one line."""
        text = self.problems.get(problem_id, {}).get("question")
        return shorten(str(text), limit) if isinstance(text, str) else "(its text is not in the run)"

    def plan(self, name: str) -> Any:
        """A field of the plan; None where it has none."""
        return self.spec.plan.get(name)


def basis_of_run(store: RunStore, wanted: int | None = None) -> Basis:
    """By which rule a run is judged; `wanted` is a version that was asked for instead of its own.

    Raises:
        AnalysisError: Its rule is damaged, changed since the run began, missing, or unknown here.
    """
    file = store.path / DECISION_FILE
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
    return basis_of(text, store.spec.decision_hash, wanted)


def old_decision(store: RunStore) -> dict[str, Any] | None:
    """What an older rule said when the run was analysed under it; None where nothing of it is kept."""
    for name in (OLD_DECISION_FILE, ANALYSIS_FILE):
        if (store.path / name).is_file():
            found = store.read_json(name)
            if found["rule"]["version"] != VERSION:
                return dict(found)
    return None


def load(path: Path | str) -> RunData:
    """Open a run for reading.

    Raises:
        RunError: The folder is not a run's, or one of its files is damaged.
    """
    store = RunStore.open(path)
    table = _table(store.path / PROBLEMS_FILE)
    problems: dict[str, Mapping[str, Any]] = {}
    if table is not None and "id" in table:
        problems = {str(row["id"]): {str(k): v for k, v in row.items()} for row in table.to_dict("records")}
    starts = store.read_json(STARTS_FILE) if (store.path / STARTS_FILE).is_file() else []
    return RunData(
        path=store.path,
        store=store,
        records=store.frame(),
        problems=problems,
        decoded=_table(store.path / DECODED_FILE),
        certificate=read_certificate(store),
        starts=tuple(starts),
    )


def _table(file: Path) -> pd.DataFrame | None:
    return read_frame(file) if file.is_file() else None
