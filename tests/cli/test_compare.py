"""`compare` as typed: two runs side by side, as a table and as JSON, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.planted.reasoner import Planted, planted_problems
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.effects.gates import RULE
from thoughtgraft.engine.run import run
from thoughtgraft.studies.resampling.design import resampling_plan


def make(path: Path, design: str = "own", seed: int = 0) -> Path:
    model = Planted(design, reads=1, leaks=(0, 2), num_latents=3)
    plan = resampling_plan(3, 3, seed, full=False)
    off = {"certify": "off"}
    run(model, planted_problems(16), plan, path, study="resampling", progress=False, facts=off, rule=RULE.to_json())
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("compare")
    return make(base / "own"), make(base / "relay", "relay", 1)


def test_effects_stand_side_by_side_with_what_differs(runs: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(app, ["compare", *map(str, runs)])
    assert result.exit_code == 0, result.output
    assert "the runs differ in:" in result.stdout
    assert "  seed: 0 | 1" in result.stdout
    assert "  model_hash: " in result.stdout
    assert "B - A" in result.stdout
    same = CliRunner().invoke(app, ["compare", str(runs[0]), str(runs[0]), "--all"])
    assert "the runs do not differ in model, protocol or plan" in same.stdout
    assert "the runs do not differ: no interval" in same.stdout


def test_an_unfinished_run_is_named(runs: tuple[Path, Path], tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(runs[0], part)
    spec = json.loads((part / "run.json").read_text())
    (part / "run.json").write_text(json.dumps(spec | {"n_cells": spec["n_cells"] + 5}))
    result = CliRunner().invoke(app, ["compare", str(part), str(runs[1])])
    assert result.exit_code == 0 and "UNFINISHED" in result.stdout, result.output


def test_json_holds_every_arm(runs: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(app, ["compare", *map(str, runs), "--json"])
    found = json.loads(result.stdout)
    assert {"model_hash", "seed", "plan_hash"} == {item["field"] for item in found["differences"]}
    rows = {(row["method"], row["label"]): row for row in found["rows"]}
    assert rows["baseline", "-"]["quantity"] == "accuracy"
    row = rows["swap", "CT0"]
    assert row["a_pp"] == 0, "this slot is read by nothing that matters"
    assert row["difference_pp"] == pytest.approx(row["b_pp"])
    assert row["b_pp"] > 50, "and here the answer passes through it"
    assert row["ci_low"] > 0
    assert row["design"] == "paired"
    assert row["n_shared"] == 16


def test_a_run_that_failed_a_gate_is_not_compared_unless_by_force(runs: tuple[Path, Path], tmp_path: Path) -> None:
    bad = make(tmp_path / "bad")
    checks = [{"name": "x", "proves": "x", "figure": 1, "threshold": "<= 0", "passed": False, "consequence": "x"}]
    (bad / "certificate.json").write_text(json.dumps({"passed": False, "kind": "core", "checks": checks}))
    result = CliRunner().invoke(app, ["compare", str(runs[0]), str(bad)])
    assert result.exit_code == 2
    assert "a run failed its gates, so it states no effect" in result.stderr
    assert "bad: certificate; expected valid runs. Fix: repair" in result.stderr
    forced = CliRunner().invoke(app, ["compare", str(runs[0]), str(bad), "--force"])
    assert forced.exit_code == 0
    assert "INVALID" in forced.stdout


@pytest.mark.parametrize("words", [["nowhere", "nowhere"], ["tests", "tests"]])
def test_what_is_not_a_run_is_named(words: list[str]) -> None:
    result = CliRunner().invoke(app, ["compare", *words])
    assert result.exit_code == 2
    assert f"error: {words[0]} is not a run; expected " in result.stderr
    assert "Fix: give the folder that was given to --out" in result.stderr
