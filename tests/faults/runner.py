"""The driver as the tests hold it, and what two finished runs differ in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from thoughtgraft.records.export import load_records

FULL = os.environ.get("THOUGHTGRAFT_FAULTS") == "full"
"""Whether `make faults` runs: many kills on thousands of cells, instead of a few on hundreds."""

DISCRETE = ("arm", "problem_id", "donor_id", "text", "pred", "valid", "correct", "changed", "adopted", "stop_reason")
CONTINUOUS = ("logp_gold", "dlogp_gold", "logp_donor", "kl", "fed_norm", "donor_cos")


@dataclass(frozen=True)
class Log:
    """What a process noted of itself.

    Attributes:
        packs: Rows of each pack that it began.
        units: Units that it stored, with their rows.
        error: The error that it ended with.
    """

    packs: tuple[int, ...]
    units: dict[str, int]
    error: str | None

    @classmethod
    def read(cls, path: Path) -> Log:
        """A log as far as it is written."""
        lines = path.read_text().splitlines() if path.exists() else []
        stored = [line[1:].split() for line in lines if line[0] == "="]
        errors = [line[2:] for line in lines if line[0] == "!"]
        packs = tuple(int(line[1:]) for line in lines if line[0] == "+")
        return cls(packs, {unit: int(rows) for rows, unit in stored}, errors[0] if errors else None)


class Runner:
    """Starts runs in processes of their own; see `driver`."""

    def __enter__(self) -> Self:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        driver = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("driver.py"))]
        self._process = subprocess.Popen(
            driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, log: Path, **job: Any) -> int:
        """Start (or continue) a run; its pid."""
        return self._ask({"start": {"log": str(log), "dtype": "float32", **job}})

    def wait(self, pid: int) -> int:
        """Wait for it; its exit code, negative if a signal ended it."""
        return self._ask({"wait": pid})

    def whole(self, log: Path, **job: Any) -> Log:
        """A run from start to end."""
        assert self.wait(self.start(log, **job)) == 0, Log.read(log).error
        return Log.read(log)

    def _ask(self, command: dict[str, Any]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def table(run: Path) -> pd.DataFrame:
    """A run's records by what they are known by: a duplicate would be an error."""
    records = load_records(run)
    records["donor_stratum"] = records["donor_stratum"].fillna("")
    return records.set_index(["cell", "donor_stratum"], verify_integrity=True).sort_index()


def same_bits(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Assert that two tables are equal in every bit of every column, as those of equal packs are."""
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def differing(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, int]:
    """In how many rows the answers and grades of two tables differ, by column."""
    assert a.index.equals(b.index), "not the same cells"
    found = {name: int((_texts(a[name]) != _texts(b[name])).sum()) for name in DISCRETE}
    return {name: n for name, n in found.items() if n}


def gaps(a: pd.DataFrame, b: pd.DataFrame) -> pd.Series:
    """The largest difference of two tables' continuous columns in each row; infinite where only one is defined."""
    names = list(CONTINUOUS)
    gap = (a[names] - b[names]).abs().mask(a[names].isna() & b[names].isna(), 0.0)
    return gap.fillna(float("inf")).max(axis=1)


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(str).where(column.notna(), "")
