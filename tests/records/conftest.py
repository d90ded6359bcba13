"""Invented runs for the records tests: a spec, rows, and a filled run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thoughtgraft.records.schema import ArmKey, Family
from thoughtgraft.records.spec import RunSpec
from thoughtgraft.records.store import RunStore

Row = dict[str, Any]
SWAP = Family("swap", donors="random").at([3])


def planned(cells: dict[ArmKey, int]) -> list[Row]:
    """What run.json says of them."""
    return [arm.columns | {"n": n} for arm, n in cells.items()]


@pytest.fixture
def make_spec() -> Callable[..., RunSpec]:
    def build(**changes: Any) -> RunSpec:
        fields: dict[str, Any] = {
            "study": "resampling",
            "model": "tiny-codi",
            "model_hash": "m0",
            "protocol": "official",
            "num_latents": 6,
            "problems": "arithmetic:test",
            "problem_hash": "p0",
            "plan_hash": "q0",
            "plan": {"cells_per_arm": planned({ArmKey("baseline"): 4, SWAP: 8})},
            "seed": 0,
            "dtype": "float32",
            "device": "cpu",
            "n_hosts": 4,
            "n_donors": 2,
            "n_cells": 12,
        }
        return RunSpec(**{**fields, **changes})

    return build


@pytest.fixture
def make_rows() -> Callable[[str], list[Row]]:
    """One host's three cells: right unedited, right with one donor, wrong (and adopting) with the other."""

    def build(host: str) -> list[Row]:
        common: Row = {
            "run_id": "r",
            "protocol": "official",
            "num_latents": 6,
            "problem_id": host,
            "gold": "42",
            "base_pred": "42",
            "base_correct": True,
            "valid": True,
            "pad": 0,
        }
        swap: Row = {"arm": "swap@3", "method": "swap", "slots": [3], "downstream": "recompute"}
        swap |= {"donor_stratum": "random", "donor_pred": "7", "donor_correct": True}
        return [
            common
            | {"cell": f"{host}-b", "arm": "baseline", "method": "baseline", "slots": [], "pred": "42"}
            | {"correct": True, "text": "The answer is: 42", "token_ids": [1, 2], "logp_gold": -0.25},
            common | swap | {"cell": f"{host}-0", "donor_id": "d0", "pred": "42", "correct": True, "kl": 0.5},
            common | swap | {"cell": f"{host}-1", "donor_id": "d1", "pred": "7", "correct": False, "adopted": True},
        ]

    return build


@pytest.fixture
def run_folder(tmp_path: Path, make_spec: Callable[..., RunSpec], make_rows: Callable[[str], list[Row]]) -> Path:
    """A finished run of 4 hosts and 12 cells."""
    with RunStore.create(tmp_path / "run", make_spec()) as store:
        for host in ("h0", "h1", "h2", "h3"):
            store.write_unit(host, make_rows(host))
            store.heartbeat(3 * len(store.stored_units()), 12, "records")
    return tmp_path / "run"
