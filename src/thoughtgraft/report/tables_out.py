"""The analysis onto disk: every table as parquet, the decision and a summary as JSON."""

from __future__ import annotations

import math
from typing import Any

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.document import records_of
from thoughtgraft.report.run import RunData

FOLDER = "analysis"


def write_tables(run: RunData, analysis: Analysis) -> None:
    """Write `analysis/*.parquet` and `analysis/decision.json` into the run."""
    for name, table in analysis.tables().items():
        run.store.write_table(f"{FOLDER}/{name}.parquet", table)
    decision = analysis.decision
    content = {
        "rule": decision.rule,
        "rule_hash": decision.rule_hash,
        "valid": decision.valid,
        "missing": run.missing,
        "gates_not_run": list(decision.not_run),
        "gates": [plain(row) for row in records_of(decision.gate_table)],
        "pilot": decision.pilot,
        "claims": [plain(row) for row in records_of(decision.claims)],
        "seed": analysis.seed,
    }
    run.store.write_json(f"{FOLDER}/decision.json", content)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with null for what is undefined: JSON has no word for NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
