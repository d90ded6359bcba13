"""Tracking: what W&B is told can be read again with W&B's own tools, and a tracker that fails harms nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.report.invent import FEW, make_run, passing

from thoughtgraft.errors import MissingExtraError, RunError
from thoughtgraft.records.status import read_status
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.tracking.tracking import Tracking, open_tracking

SCRIPT = """
import sys
from pathlib import Path
from thoughtgraft.tracking.tracking import open_tracking
with open_tracking("wandb", Path(sys.argv[1]), study="resampling", group="pilot") as tracking:
    tracking.watch()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its report. To be read only."""
    path = make_run(tmp_path_factory.mktemp("tracked") / "run", FEW, certificate=passing())
    write_report(path)
    return path


class Witness:
    """Remembers what it is told, and fails at one thing."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []
        self.fails_at = fails_at

    def __getattr__(self, name: str) -> Any:
        def tell(*arguments: Any) -> None:
            self.told.append((name, arguments))
            if name == self.fails_at:
                raise ConnectionError("the network is gone")

        return tell

    def names(self) -> list[str]:
        return [name for name, _ in self.told]


@pytest.fixture(scope="module")
def offline(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str, Path]:
    """The run tracked by a process that knows no key and no mode: its environment, what it said, W&B's folder."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC"))}
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), "WANDB_ERROR_REPORTING": "false"}
    environment |= {"XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_DATA_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(run)], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return environment, done.stderr, run / "wandb"


def records(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The records of an offline W&B run, by `wandb leet inspect`."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
    return (json.loads(line) for line in done.stdout.splitlines())


def test_an_offline_run_read_with_wandbs_own_tools_holds_everything(offline, run):
    environment, said, folder = offline
    assert "no W&B key is known, so tracking is offline" in said and "Traceback" not in said
    found: dict[str, list[dict[str, Any]]] = {}
    for place in sorted(folder.glob("offline-run-*")):
        entries = list(records(place, environment))
        head = next(entry["run"] for entry in entries if entry["type"] == "run")
        assert head["project"] == "codi-resampling" and head["run_group"] == "pilot"
        phase = head["job_type"]
        assert head["display_name"] == f"pilot_{phase}"
        assert {"codi-resampling", "pilot", phase, "tiny-codi", "official"} == set(head["tags"])
        assert head["config"]["update"]["plan_hash"] == "cd34"
        assert entries[-1]["type"] == "exit" and entries[-1]["exit"]["exit_code"] == 0
        found[phase] = entries
    assert sorted(found) == ["analysis", "extraction", "resampling"]

    def history(phase: str) -> dict[str, Any]:
        items = (entry["history"]["item"] for entry in found[phase] if entry["type"] == "history")
        return {key: value for item in items for key, value in item.items()}

    status = read_status(run)
    swap = next(arm for arm in status.arms if arm.arm.method == "swap" and arm.arm.slots == (3,))
    running = history("resampling")
    assert running["cells"] == status.total
    assert running["accuracy/swap CT3"] == pytest.approx(swap.accuracy)
    assert running["impact_pp/swap CT3"] == pytest.approx(swap.impact_pp)

    told = history("analysis")
    figures = {path.stem for path in (run / "figures").glob("*.png")}
    assert figures and figures == {
        key.split("/")[1][:-6] for key in told if key.endswith("._type") and "figures" in key
    }
    place = next(folder.glob(f"*-{next(e['run']['run_id'] for e in found['analysis'] if e['type'] == 'run')}"))
    table = json.loads((place / "files" / told["analysis/positions.path"]).read_text())
    expected = pd.read_parquet(run / "analysis" / "positions.parquet")
    assert table["columns"] == list(expected.columns) and len(table["data"]) == len(expected)
    assert [row[table["columns"].index("impact_pp")] for row in table["data"]] == pytest.approx(
        expected["impact_pp"].astype(object).where(expected["impact_pp"].notna(), None).tolist()
    )
    assert {"problems._type", "decoded._type"} <= set(history("extraction"))
    summary = {k: v for e in found["analysis"] if e["type"] == "summary" for k, v in e["summary"]["update"].items()}
    row = expected[(expected.method == "swap") & (expected.label == "CT3")].iloc[0]
    assert summary["impact_pp/swap CT3"] == pytest.approx(row.impact_pp)
    assert summary["ci_low/swap CT3"] == pytest.approx(row.ci_low)

    artifact = next(
        e["artifact"] for e in found["analysis"] if e["type"] == "artifact" and e["artifact"]["type"] == "run"
    )
    files = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert {"run.json", "report.html", "analysis/positions.parquet", "figures/impact.png"} <= files
    assert any(name.startswith("records/") for name in files)
    assert not any(name.startswith("wandb/") or name.endswith(".lock") for name in files)


@pytest.mark.parametrize("method", ["begin", "log", "summary", "table", "figure", "folder", "finish"])
def test_a_tracker_that_fails_warns_once_and_the_run_goes_on(run, method):
    witness = Witness(method)
    with pytest.warns(UserWarning) as caught, Tracking(lambda: witness, run, "resampling") as tracking:
        tracking.watch()
    assert [str(w.message) for w in caught] == [
        "tracking failed, the run goes on without it (ConnectionError: the network is gone)"
    ]
    assert witness.names()[-1] == "finish"
    others = {"log", "summary", "table", "figure", "folder"}
    # A phase that did not open is told nothing; after any other failure the rest is told all the same.
    assert (others & set(witness.names())) == (set() if method == "begin" else others)


def test_a_tracker_that_cannot_be_made_warns_once(run):
    def make():
        raise ImportError("protobuf is too old")

    with (
        pytest.warns(UserWarning, match=r"goes on without it \(ImportError: protobuf is too old\)") as caught,
        Tracking(make, run, "resampling") as tracking,
    ):
        tracking.watch()
    assert len(caught) == 1


def test_a_runs_own_error_is_passed_on_and_told(run):
    witness = Witness()
    with pytest.raises(KeyboardInterrupt), Tracking(lambda: witness, run, "resampling") as tracking:
        tracking.watch()
        raise KeyboardInterrupt
    assert witness.told[-1] == ("finish", (False,))
    assert "table" not in witness.names()


def test_looking_often_costs_little(run, monkeypatch):
    looks = []
    monkeypatch.setattr("thoughtgraft.tracking.tracking.read_status", lambda path: looks.append(1) or read_status(path))
    tracking = Tracking(Witness, run, "resampling")
    with tracking:
        for _ in range(100):
            tracking.watch()
        assert len(looks) == 1


def test_a_folder_that_is_not_a_resampling_run_is_told_as_far_as_it_goes(tmp_path):
    (tmp_path / "analysis").mkdir()
    pd.DataFrame({"layer": [4, 8], "accuracy": [0.5, None]}).to_parquet(tmp_path / "analysis" / "probes.parquet")
    witness = Witness()
    with Tracking(lambda: witness, tmp_path, "operations"):
        pass
    assert ("table", "analysis/probes") in {(name, a[1]) for name, a in witness.told if name == "table"}
    assert witness.names()[-2:] == ["folder", "finish"]


def test_none_does_nothing_and_wrong_names_are_refused(run, monkeypatch):
    with open_tracking("none", run, study="resampling", group="pilot") as tracking:
        tracking.watch()
    with pytest.raises(RunError, match="unknown tracker; got 'mlflow'; expected none, wandb"):
        open_tracking("mlflow", run, study="resampling", group="pilot")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"'wandb' is not installed\. Fix: pip install 'thoughtgraft\[wandb\]'"):
        open_tracking("wandb", run, study="resampling", group="pilot")
