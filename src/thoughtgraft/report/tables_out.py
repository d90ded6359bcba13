"""The analysis onto disk: every table as parquet, the decision and a summary as JSON."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from thoughtgraft.analysis.verdicts import unjudged
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import records_of
from thoughtgraft.report.run import ANALYSIS_FILE, OLD_DECISION_FILE, old_decision

FOLDER = "analysis"


def write_tables(context: Context) -> None:
    """Write `analysis/*.parquet` and `analysis/decision.json` into the run.

    Where the page shows the words of an older rule, so do these: tables have no verdicts, and decision.json is the
    stored one. Where its records are judged anew, the stored one is kept beside.
    """
    run, analysis = context.run, context.analysis
    old, decision = old_decision(run.store), analysis.decision
    tables = analysis.tables()
    if old is not None:
        run.store.write_json(OLD_DECISION_FILE, old)
    if context.old is not None:
        tables = {name: unjudged(table) for name, table in tables.items()}
        tables["claims"] = pd.DataFrame(list(context.old), columns=list(context.old[0]) if context.old else ["claim"])
    for name, table in tables.items():
        run.store.write_table(f"{FOLDER}/{name}.parquet", table)
    if context.old is not None and old is not None:
        run.store.write_json(ANALYSIS_FILE, old)
        return
    claims = decision.claims if context.old is None else decision.claims[:0]
    content: dict[str, Any] = {
        "rule": decision.rule if context.old is None else {"version": context.basis.old_version},
        "rule_hash": decision.rule_hash,
        "rule_fixed_before": context.basis.fixed_before,
        "valid": decision.valid,
        "missing": run.missing,
        "gates_not_run": list(decision.not_run),
        "gates": [plain(row) for row in records_of(decision.gate_table)],
        "pilot": decision.pilot,
        "claims": [plain(row) for row in records_of(claims)],
        "seed": analysis.seed,
    }
    run.store.write_json(ANALYSIS_FILE, content)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with null for what is undefined: JSON has no word for NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
