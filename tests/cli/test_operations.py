"""`run operations` and `problems --label` as typed: a run, its continuation, labels, draws, and wrong input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.architecture import SRC
from typer.testing import CliRunner, Result

from thoughtgraft.cli.app import app
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore
from thoughtgraft.studies.registry import load_run
from thoughtgraft.tasks.files import read_problems
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.tasks.sets import gsm8k as hub

SMALL = [
    "run",
    "operations",
    "--per-class",
    "4",
    "--device",
    "cpu",
    "--layers",
    "0,late",
    "--certify",
    "off",
    "--no-analyze",
]


def type_in(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def flat(text: str) -> str:
    """Text without line breaks."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the embedded model."""
    out = tmp_path_factory.mktemp("operations") / "run"
    result = type_in(*SMALL, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def local_gsm8k(gsm8k_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gsm8k:...` from the files instead of the hub."""
    monkeypatch.setattr(hub, "_part", lambda split: list(read_problems(gsm8k_dir / f"{split}.jsonl")))


def test_a_run_holds_features_labels_and_the_clean_answers(run: Path) -> None:
    features, untrained = load_run(run).states(), load_run(run).states(untrained=True)
    problems = pd.read_parquet(run / "problems.parquet")
    assert features.layers == untrained.layers == (0, 3)
    assert features.positions == ("BOT", *(f"CT{k}" for k in range(6)))
    assert list(features.ids) == list(untrained.ids) == list(problems["id"])
    assert list(problems["operation"]) == ["addition"] * 4 + ["multiplication"] * 4 + ["mixed"] * 4
    known = {p.id: p for p in load_problems("arithmetic:test")}
    for row in problems.to_dict("records"):
        problem = known[row["id"]]
        assert (row["operation"], row["n_steps"]) == (problem.operation, len(problem.steps))
        assert row["mul"] == any(step.op == "*" for step in problem.steps)
        assert row["base_correct"] == (row["base_pred"] == problem.gold)
    trained, other = features.matrix(3, "CT2"), untrained.matrix(3, "CT2")
    assert trained.shape == (12, 128) and not np.allclose(trained, other)
    opened = load_run(run)
    thoughts = opened.thoughts()
    hidden = np.stack([features.matrix("hidden", p) for p in features.positions], 1)
    np.testing.assert_allclose(hidden, thoughts.hidden.float().numpy(), rtol=1e-4, atol=1e-4)
    assert opened.problem_set().content_hash == RunStore.open(run).spec.problem_hash


def test_what_the_run_says_of_itself(run: Path) -> None:
    spec = json.loads((run / "run.json").read_text())
    plan = spec["plan"]
    assert spec["study"] == "operations" and spec["n_cells"] == 24
    assert plan["features"] == {
        "layers": [0, 3],
        "positions": ["BOT", *(f"CT{k}" for k in range(6))],
        "storage": "float32",
    }
    assert plan["drawn"] == dict.fromkeys(("addition", "multiplication", "mixed"), 4)
    assert (plan["mode"], plan["draw"], plan["rule"], plan["layer_names"]) == (
        "prototype",
        "all",
        "annotations",
        {"late": 3},
    )
    status = read_status(run)
    assert (status.state, status.done, status.total, status.phase) == ("finished", 24, 24, "finished")


def test_the_same_command_continues_and_another_is_refused(run: Path) -> None:
    victim = next((run / "features-untrained").glob("*.safetensors"))
    kept = {file: file.stat().st_mtime_ns for file in (run / "features").iterdir()}
    victim.unlink()
    assert read_status(run).done == 12
    assert type_in(*SMALL, "--out", run).exit_code == 0
    assert victim.is_file() and {file: file.stat().st_mtime_ns for file in kept} == kept
    refused = type_in(*SMALL, "--layers", "all", "--out", run)
    assert refused.exit_code == 2
    assert re.search(
        r"holds another run; got .*features\.layers: \[0, 3\] there, \[0, 1, 2, 3\] now", flat(refused.stderr)
    )


def test_classes_that_fall_short_are_said(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "answer": f"<<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(6)]
    rows += [{"question": f"{i}!", "answer": f"<<{i}*1={i}>>{i}\n#### {i}"} for i in range(3)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = [
        "run",
        "operations",
        "--problems",
        tmp_path / "mine.jsonl",
        "--per-class",
        5,
        "--dry-run",
        "--out",
        tmp_path / "x",
    ]
    result = type_in(*words)
    said = flat(result.stdout)
    assert "8 problems of" in said and "(5 addition, 3 multiplication, 0 mixed)" in said
    assert "multiplication: only 3 where 5 were wanted; all are taken and none is filled up from elsewhere" in said
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "half"], "unknown mode; got 'half'; expected prototype, full, analysis_only"),
        (["--data", "x.npz"], "there is no run or file x.npz"),
        (["--layers", "9"], "no such layer; got '9'; expected all, early, middle, late, or numbers in 0..3"),
        (["--draw", "some"], "unknown draw; got 'some'"),
        (["--rule", "some"], "unknown rule for operations; got 'some'"),
        (["--feature-dtype", "int8"], "unknown type to keep features in; got 'int8'"),
        (["--mode", "analysis_only"], "there is no run or file"),
        (["--target", "color"], "no such label to read; got color; expected operation, n_steps, add, sub, mul, div"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path: Path, words: list[str], message: str) -> None:
    result = type_in(*SMALL, "--out", tmp_path / "x", *words)
    assert result.exit_code == 2 and message in flat(result.stderr), result.output
    assert not (tmp_path / "x").exists()


def test_analysis_only_of_a_users_file_needs_neither_torch_nor_the_model(tmp_path: Path) -> None:
    rng, classes = np.random.default_rng(0), np.repeat(["addition", "multiplication", "mixed"], 20)
    centres = {"addition": 0.0, "multiplication": 3.0, "mixed": -3.0}
    values = rng.normal(size=(60, 4)) + np.array([centres[name] for name in classes])[:, None]
    np.savez(tmp_path / "mine.npz", features=values, ids=np.array([f"p{i}" for i in range(60)]))
    table = pd.DataFrame({"id": [f"p{i}" for i in range(60)], "operation": classes})
    table.assign(question=[f"question {i}" for i in range(60)]).to_csv(tmp_path / "labels.csv", index=False)
    code = """
import sys
class Blocked:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from thoughtgraft.cli.app import main
main()
"""
    words = ["run", "operations", "--mode", "analysis_only", "--out", str(tmp_path / "out")]
    words += ["--data", str(tmp_path / "mine.npz"), "--labels", str(tmp_path / "labels.csv")]
    words += ["--probes", "linear", "--jobs", "1"]  # the others take their time elsewhere
    environment = {**os.environ, "PYTHONPATH": str(SRC), "MPLBACKEND": "Agg"}
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr


def test_labels_of_gsm8k(local_gsm8k: None, tmp_path: Path) -> None:
    out = tmp_path / "sample.parquet"
    words = [
        "problems",
        "gsm8k:all",
        "--label",
        "--per-class",
        200,
        "--draw",
        "cot-exploration",
        "--out",
        out,
        "--json",
    ]
    found = json.loads(type_in(*words).stdout)
    assert (found["rule"], found["n"]) == ("cot-exploration", 8792)
    counts = [found["splits"][split]["operations"] for split in ("test", "train")]
    assert {k: counts[0][k] + counts[1][k] for k in counts[0]} == {
        "addition": 963,
        "multiplication": 1480,
        "mixed": 6349,
    }
    assert [found["sample"]["ids"][i] for i in (0, 200, 400)] == ["train_4559", "train_6492", "train_3671"]
    assert sum(row["n"] for row in found["rules"] if row["agree"]) == 8334
    table = pd.read_parquet(out)
    assert list(table["id"]) == found["sample"]["ids"] and set(table["operation"][:200]) == {"addition"}


def test_names_with_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a[red].jsonl").write_text('{"question": "how many?", "answer": "<<5+2=7>>7 #### 7"}')
    result = type_in("problems", tmp_path / "a[red].jsonl", "--label")
    assert result.exit_code == 0, result.output
    assert "a[red].jsonl: 1 problems" in result.output.replace("\n", "") and "a[red] 1" in flat(result.output)


def test_labels_are_printed_with_examples_and_read_back(tmp_path: Path) -> None:
    rows = [{"question": "a 3-4 day trip?", "answer": "3-4 days: <<5*2=10>>10\n#### 10"}]
    rows += [{"question": "how many?", "answer": "<<5+2=7>>7\n#### 7"}]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = type_in("problems", tmp_path / "mine.jsonl", "--label", "--out", tmp_path / "out" / "labels.json")
    said = flat(result.stdout)
    assert "they agree on 1 of 2" in said
    assert "annotations say multiplication, cot-exploration says mixed: 1 mine_0: 3-4 days: <<5*2=10>>10" in said
    again: ProblemSet = load_problems(str(tmp_path / "out" / "labels.json"))
    assert again.content_hash == load_problems(str(tmp_path / "mine.jsonl")).content_hash
    wrong = type_in("problems", tmp_path / "mine.jsonl", "--label", "--out", tmp_path / "x.csv")
    assert wrong.exit_code == 2 and "labels cannot be written so; got '.csv'; expected .json or .parquet" in flat(
        wrong.stderr
    )
    assert "add --label" in flat(type_in("problems", "arithmetic:test", "--rule", "annotations").stderr)
