"""The studies beside resampling: the same from Python as typed, and their folders read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.studies.same import same_run
from typer.testing import CliRunner

from thoughtgraft import load_model, load_run, run_study
from thoughtgraft.cli.app import app
from thoughtgraft.errors import AnalysisError, PlanError, RunError
from thoughtgraft.report.render import ReportPaths
from thoughtgraft.studies.operations.design import OperationsOptions
from thoughtgraft.studies.options import stored_options
from thoughtgraft.studies.run import Run, Runs

FEW: dict[str, Any] = {"per_class": 8, "layers": "0,3", "probes": "linear", "jobs": 1, "certify": "off"}


def type_in(*words: object) -> str:
    """The standard output of a command that has to succeed."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def typed(options: dict[str, Any]) -> list[str]:
    """Options as they are typed."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


# ---- operations ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A small run from both doors."""
    folder = tmp_path_factory.mktemp("operations")
    type_in("run", "operations", *typed(FEW), "--device", "cpu", "--out", folder / "typed" / "run")
    called = run_study("operations", out=folder / "called" / "run", progress=False, device="cpu", **FEW)
    return folder / "typed" / "run", called


def test_operations_are_the_same_from_both_doors(operations: tuple[Path, Run]) -> None:
    same_run(operations[0], operations[1].path)
    names = {path.name for path in operations[0].iterdir()}
    assert {"analysis", "features", "features-untrained", "report.html", "run.json", "problems.parquet"} <= names


def test_an_analysis_that_lies_in_the_folder_is_read_and_another_seed_makes_it_anew(
    operations: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(operations[1].path)
    options = run.options
    assert isinstance(options, OperationsOptions)
    assert (options.per_class, options.targets, run.seed) == (8, ("operation",), 0)
    stored = run.path / "analysis" / "claims.parquet"
    kept = stored.stat().st_mtime_ns
    found = run.analysis()
    assert [target.name for target in found.targets] == ["operation"] and stored.stat().st_mtime_ns == kept
    page = (run.path / "report.md").read_text()
    (run.path / "report.md").unlink()
    assert run.report().md.read_text() == page and stored.stat().st_mtime_ns == kept
    asked: list[int] = []
    monkeypatch.setattr(type(run.study), "analyse", lambda _, run: asked.append(run.seed))
    load_run(run.path, seed=3).analysis()
    assert asked == [3]
    with pytest.raises(AnalysisError, match="is an operations run, which no rule of questions judges; got rule 2"):
        load_run(run.path, rule=2)


def test_an_analysis_that_was_left_for_later_is_made_when_it_is_asked_for(
    operations: tuple[Path, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"per_class": 2, "layers": "0", "certify": "off", "device": "cpu"}
    run = run_study("operations", out=tmp_path / "run", analyze=False, untrained=False, progress=False, **few)
    assert not run.holds("report.md") and not run.holds("analysis/operations.json")
    made = operations[1].analysis()
    monkeypatch.setattr(type(run.study), "analyse", lambda _, run: made)
    assert "The report: " in type_in("analyze", operations[1].path)
    monkeypatch.setattr(type(run.study), "report", lambda *_, **__: ReportPaths(Path("made.md"), None, ()))
    assert "made.md" in type_in("analyze", run.path)


def test_features_of_elsewhere_are_read_into_a_folder_that_is_no_run(
    operations: tuple[Path, Run], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"mode": "analysis_only", "probes": "linear", "jobs": 1}
    shown = type_in("run", "operations", *typed(asked), "--data", operations[0], "--out", tmp_path / "typed")
    assert "The report: " in shown
    called = run_study("operations", out=tmp_path / "called", data=operations[0], progress=False, **asked)
    same_run(tmp_path / "typed", tmp_path / "called")
    assert isinstance(called, Runs) and not called.parts and (called.path / "study.json").is_file()
    pd.testing.assert_frame_equal(
        called.analysis().targets[0].table("claims"), operations[1].analysis().targets[0].table("claims")
    )
    with pytest.raises(RunError, match="is a study's folder and no run itself, so it has no records"):
        called.records()
    assert type_in("report", called.path).strip() == str((called.path / "report.html").resolve())
    with pytest.raises(PlanError, match="is a run with an analysis of its own, which this one would replace"):
        run_study("operations", out=operations[1].path, data=operations[0], **asked)


# ---- erasure ---------------------------------------------------------------------------------------------------------


def test_erasure_is_the_same_from_both_doors(operations: tuple[Path, Run], tmp_path: Path) -> None:
    few: dict[str, Any] = {"layers": "0", "slots": "1,5", "draws": 19, "hosts": 6, "certify": "off", "device": "cpu"}
    type_in("run", "erasure", operations[0], *typed(few), "--out", tmp_path / "typed" / "run")
    called = run_study("erasure", out=tmp_path / "called" / "run", run=operations[0], progress=False, **few)
    same_run(tmp_path / "typed" / "run", called.path)
    assert list(called.analysis()["n"]) == [6, 6, 6]
    at_hand: dict[str, Any] = {"model": load_model("tiny-codi", device=few.pop("device")), "progress": False}
    loaded = run_study("erasure", out=tmp_path / "loaded" / "run", run=operations[0], **at_hand, **few)
    assert loaded.spec.run_id == called.spec.run_id, "a model at hand is the same model"
    np.testing.assert_array_equal(loaded.records()["pred"].astype(str), called.records()["pred"].astype(str))
    with pytest.raises(PlanError, match=r"this study takes its problems from elsewhere"):
        run_study("erasure", out=tmp_path / "x", run=operations[0], problems=called.problem_set())
    with pytest.raises(PlanError, match="run is missing; expected a value"):
        run_study("erasure", out=tmp_path / "x")


# ---- drift -----------------------------------------------------------------------------------------------------------


def test_drift_is_the_same_from_both_doors_and_its_run_has_a_part_for_each_protocol(tmp_path: Path) -> None:
    few: dict[str, Any] = {"hosts": 6, "donors": 2, "device": "cpu", "protocols": "cot-exploration-fixed"}
    shown = type_in("drift", *typed(few), "--out", tmp_path / "typed" / "drift")
    assert "A official: 6 thoughts fed" in shown and "B cot-exploration-fixed: 5 thoughts fed" in shown
    called = run_study("drift", out=tmp_path / "called" / "drift", progress=False, **few)
    assert isinstance(called, Runs) and list(called.parts) == ["official", "cot-exploration-fixed"]
    for name in called.parts:
        assert called.parts[name].spec.study == "resampling" and called.parts[name].options is None
    same_run(tmp_path / "typed" / "drift", called.path)
    assert called.spec.protocol == "official" and called.options is not None
    pd.testing.assert_frame_equal(called.records(), called.parts["official"].records())
    again = load_run(tmp_path / "typed" / "drift")
    pd.testing.assert_frame_equal(again.analysis().table, called.analysis().table)
    assert stored_options(called.path) == ("drift", called.options.stored())
    with pytest.raises(PlanError, match=r"got a part of the drift study .*/called/drift\. Fix: give that folder: /"):
        stored_options(called.path / "official")
    page = (again.path / "drift.md").read_text()
    (again.path / "drift.md").unlink()
    assert type_in("report", again.path).strip() == str((again.path / "drift.md").resolve())
    assert (again.path / "drift.md").read_text() == page
    dry = type_in("drift", "--like", called.path, "--dry-run", "--out", tmp_path / "x")
    assert "cot-exploration-fixed: 16 arms on 6 hosts of arithmetic:test, 2 donors each, seed 0" in dry
    assert not (tmp_path / "x").exists()
