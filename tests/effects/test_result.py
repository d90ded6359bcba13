"""`analyse` end to end: complete, deterministic, quick, and without torch."""

from __future__ import annotations

import subprocess
import sys
import time

import pandas as pd
import pytest
from tests.effects.invent import make_records

from thoughtgraft.effects.gates import Known
from thoughtgraft.studies.resampling.analysis import analyse

METHODS = ("swap", "mean", "zero", "skip", "noise", "shuffle")


def full_design(n: int, d: int) -> pd.DataFrame:
    singles = {(k,): v for k, v in enumerate((0.02, 0.1, 0.3, 0.5, 0.05, 0.0))}
    runs = {tuple(range(k)): 0.1 * k for k in range(2, 7)} | {tuple(range(6 - k, 6)): 0.1 * k for k in range(2, 6)}
    down = ("recompute", "freeze_kv")
    return make_records(
        n, d, loss=singles | runs, methods=METHODS, downstreams=down, adopt=0.3, host_sd=0.1, direct=0.4
    )


def test_same_seed_same_tables() -> None:
    records = full_design(20, 3)
    one, two = analyse(records, seed=4), analyse(records.sample(frac=1, random_state=0), seed=4)
    for name, table in one.tables().items():
        pd.testing.assert_frame_equal(table, two.tables()[name], check_exact=False, rtol=1e-9)
    assert len(one.positions) > 50 and len(one.agreement) == 4 and len(one.dose) and len(one.mediation)
    with pytest.raises(AttributeError):
        one.seed = 5  # type: ignore[misc]


@pytest.mark.slow
def test_full_design_is_analysed_within_a_minute() -> None:
    """100 hosts x 10 donors, 15 slot sets x 6 methods x 2 downstream rules: about 100,000 generations."""
    records = full_design(100, 10)
    start = time.process_time()
    found = analyse(records, known=Known(available_hosts=500))
    assert len(records) > 90_000 and time.process_time() - start < 60
    assert found.decision.valid


def test_minimal_records_give_empty_tables_not_errors() -> None:
    records = make_records(8, 2, loss={(0,): 0.5})
    found = analyse(records[records.method.isin(["baseline", "swap"])])
    assert len(found.positions) == 1 and found.agreement.empty and found.mediation.empty and found.dose.empty
    only = analyse(records[records.method == "baseline"])
    assert only.positions.empty and only.per_problem.table.empty and only.decision.claims.empty


def test_torch_is_never_needed() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import thoughtgraft.studies.resampling.analysis
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
