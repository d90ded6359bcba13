"""`run erasure` as typed: over an operations run of the embedded model, continued, and with wrong input."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from thoughtgraft.cli.app import app
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore

OPERATIONS = "run operations --per-class 8 --device cpu --layers 0,3 --certify off --no-analyze --no-untrained --out"
FEW = ("--device", "cpu", "--layers", "0,3", "--slots", "1,5", "--draws", "19", "--hosts", "6", "--certify", "off")


def type_in(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("erasure") / "operations"
    result = type_in(*OPERATIONS.split(), out)
    assert result.exit_code == 0, result.output
    return out


def test_the_table_comes_out_and_the_same_command_continues(operations: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = type_in("run", "erasure", operations, "--out", out, *FEW)
    assert result.exit_code == 0, result.output
    assert "operation erased from the stream (LEACE, rank 2): fitted on 12 problems, done on 6 others" in result.output
    table = pd.read_parquet(out / "analysis" / "erasure.parquet")
    assert [(row.layer, list(row.slots)) for row in table.itertuples()] == [
        (layer, slots) for layer in (0, 3) for slots in ([1], [5], [1, 5])
    ]
    assert (table["n"] == 6).all() and (table["draws"] == 19).all()
    dead = table[[verdict == "BY CONSTRUCTION" for verdict in table["verdict"]]]
    assert [(row.layer, list(row.slots)) for row in dead.itertuples()] == [(3, [5])]
    assert (dead["changed"] == 0).all() and (dead["random_changed"] == 0).all()
    assert (table["random_change"] / table["change"]).between(0.2, 5).all()
    page = (out / "report.md").read_text()
    assert (
        "# Erasing operation from the residual stream" in page and "NOT CERTIFIED" in (out / "report.html").read_text()
    )
    store = RunStore.open(out)
    assert store.spec.n_cells == 6 * (1 + 6 * 20) == len(store.frame())
    shards = {file.name: file.stat().st_mtime_ns for file in (out / "records").glob("*.parquet")}
    again = type_in("run", "erasure", operations, "--out", out, *FEW)
    assert again.exit_code == 0, again.output
    assert {file.name: file.stat().st_mtime_ns for file in (out / "records").glob("*.parquet")} == shards
    assert read_status(out).state == "finished"
    (out / "report.md").unlink()
    assert type_in("report", out).exit_code == 0 and (out / "report.md").read_text() == page
    refused = type_in("analyze", out)
    assert refused.exit_code == 2 and "run its command again" in refused.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "colour"], "has no label 'colour'; expected id, split"),
        (["--layers", "1"], "has no features of layer 1; expected [0, 3]"),
        (["--slots", "6"], "the model has no such slot; got '6'; expected each, or numbers in 0..5"),
    ],
)
def test_what_is_not_there_is_refused(operations: Path, tmp_path: Path, words: list[str], message: str) -> None:
    result = type_in("run", "erasure", operations, "--out", tmp_path / "x", *words)
    assert result.exit_code != 0 and message in flat(result.output), result.output
    assert not (tmp_path / "x").exists()
