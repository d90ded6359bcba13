"""`drift` as typed: runs, table, figure and page; resumed; protocols that do not exist or do not fit are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tests.planted.reasoner import Planted
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.errors import ModelError
from thoughtgraft.records.store import RunStore

FIXED, ORIGINAL = "cot-exploration-fixed", "cot-exploration-original"
SIZE = ["drift", "--hosts", "6", "--donors", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("drift") / "out"
    result = CliRunner().invoke(app, [*SIZE, "--out", str(out)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_each_protocol_is_named_with_its_outcome(made: tuple[Path, str]) -> None:
    _, said = made
    assert "A official: 6 thoughts fed" in said and "valid" in said
    assert f"B {ORIGINAL}: 5 thoughts fed" in said and "nothing reads it" in said
    assert f"C {FIXED}: 5 thoughts fed" in said and "self-swap identity" in said
    assert said.count("INVALID") == 2


def test_the_runs_are_ordinary_ones_and_the_page_says_what_is_wrong(made: tuple[Path, str]) -> None:
    out, _ = made
    specs = {name: RunStore.open(out / name).spec for name in ("official", ORIGINAL, FIXED)}
    assert len({spec.plan_hash for spec in specs.values()}) == 1
    assert len({spec.model_hash for spec in specs.values()}) == 3
    assert "protocol_flaw" not in specs["official"].plan
    assert "never fed" in specs[ORIGINAL].plan["protocol_flaw"]
    page = (out / "drift.md").read_text()
    assert "not valid: cot-exploration-original and cot-exploration-fixed" in page
    assert page.count("counts begin-of-thought as the first thought") >= 2
    assert "figures/drift.png" in page
    assert (out / "figures" / "drift.png").is_file() and (out / "figures" / "drift.svg").is_file()


def test_the_table_on_disk_is_the_one_in_json_and_a_second_call_runs_nothing(made: tuple[Path, str]) -> None:
    out, _ = made
    before = sorted(p.stat().st_mtime_ns for p in out.glob("*/records/*.parquet"))
    result = CliRunner().invoke(app, [*SIZE, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [p["protocol"] for p in found["protocols"]] == ["official", ORIGINAL, FIXED]
    assert [p["certificate"] for p in found["protocols"]] == ["passed", "failed", "failed"]
    assert [p["thoughts_fed"] for p in found["protocols"]] == [6, 5, 5]
    assert sorted(p.stat().st_mtime_ns for p in out.glob("*/records/*.parquet")) == before
    table = pd.read_parquet(out / "drift.parquet")
    assert len(table) == len(found["rows"]) == 3 * 15
    dead = next(r for r in found["rows"] if (r["protocol"], r["method"], r["label"]) == (ORIGINAL, "swap", "CT5"))
    assert (dead["impact_pp"], dead["kl"], dead["verdict"]) == (None, None, "BY CONSTRUCTION")


def test_an_unknown_protocol_is_refused_before_anything_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*SIZE, "--out", str(tmp_path / "out"), "--protocols", "official,latest"])
    assert result.exit_code == 2
    assert "error: unknown protocol; got 'latest'; expected official, official-padded" in result.stderr
    assert not (tmp_path / "out").exists()


def test_another_familys_model_refuses_the_protocol_and_says_whose_it_is() -> None:
    model = Planted("own", reads=1, num_latents=3)
    with pytest.raises(ModelError, match=r"not defined for .*; got a model of the family planted; expected codi"):
        model.under(FIXED)
    other = model.under("official-padded")
    assert (model.protocol.name, other.protocol.name) == ("official", "official-padded")
    assert other.lm is model.lm and other.model_hash != model.model_hash
