"""`load_run`: a folder's tables as DataFrames, computed once, without torch until thoughts are asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import thoughtgraft
from tests.planted.reasoner import Planted, planted_problems
from thoughtgraft.effects.gates import RULE
from thoughtgraft.engine.run import run
from thoughtgraft.errors import AnalysisError, RunError
from thoughtgraft.studies.resampling.design import resampling_plan
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.tasks.files import problem_table, problems_from_table

DESIGN = {"preset": "pilot", "available_hosts": 50, "largest_number": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "planted"
    plan = resampling_plan(3, 3, 0, full=False)
    model = Planted(reads=1, leaks=(0, 2), num_latents=3)
    more = {"facts": {"certify": "off"}, "design": DESIGN, "rule": RULE.to_json()}
    run(model, planted_problems(16), plan, path, study="resampling", progress=False, **more)
    return path


def test_every_table_is_a_frame(folder: Path) -> None:
    opened = thoughtgraft.load_run(folder)
    assert len(opened.records()) == opened.spec.n_cells
    assert set(opened.records("method == 'swap'").method) == {"swap"}
    positions = opened.positions().set_index(["method", "label"])
    assert positions.loc[("swap", "CT1"), "adoption_rate"] == 1.0
    assert set(opened.agreement().method_b) >= {"mean", "zero"}
    assert list(opened.problems().id) == [f"case_{i}" for i in range(16)]
    assert len(opened.per_problem()) == 16
    assert set(opened.decision().claim) == {"H0", "H1", "H3", "H4", "H5"}
    assert "duplicates" in set(opened.gates().name)
    for table in (opened.contrasts(), opened.mediation(), opened.dose(), opened.counterfactual()):
        assert isinstance(table, pd.DataFrame)
    assert opened.counterfactual().n_outside_vocabulary.sum() == 0
    assert "available" in opened.pilot().reason
    thoughts = opened.thoughts()
    assert tuple(thoughts.fed.shape) == (16, 3, 128)
    assert "resampling of planted, 16 hosts" in repr(opened)


def test_a_table_that_is_changed_does_not_change_the_run(folder: Path) -> None:
    opened = thoughtgraft.load_run(folder)
    opened.records().drop(opened.records().index, inplace=True)
    table = opened.positions()
    table["impact_pp"] = 0
    assert opened.positions().impact_pp.any()
    assert len(opened.records()) == opened.spec.n_cells


def test_figures_are_the_reports(folder: Path) -> None:
    opened = thoughtgraft.load_run(folder)
    figure = opened.figure("impact")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure.axes and any("run " in text.get_text() for text in figure.texts)
    with pytest.raises(AnalysisError, match=r"unknown figure; got 'impct'.*did you mean 'impact'\?"):
        opened.figure("impct")
    with pytest.raises(AnalysisError, match="cannot have the figure 'mediation'"):
        opened.figure("mediation")


def test_a_run_that_fails_a_gate_is_drawn_by_force_only(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    spec = json.loads((bad / "run.json").read_text())
    spec["provenance"].pop("certify")  # not switched off on purpose: lost
    (bad / "run.json").write_text(json.dumps(spec))
    opened = thoughtgraft.load_run(bad)
    with pytest.raises(AnalysisError, match=r"states no effect; got the run has no certificate\. Fix: force=True"):
        opened.figure()
    assert any("INVALID" in text.get_text() for text in opened.figure(force=True).texts)


def test_reading_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys, thoughtgraft\n"
        f"run = thoughtgraft.load_run({str(folder)!r})\n"
        "run.records(), run.problems(), run.positions(), run.pilot()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run; expected an existing folder"):
        thoughtgraft.load_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"decoded\.parquet is missing; expected a run that.*Fix: run the command"):
        thoughtgraft.load_run(folder).decoded()


@pytest.mark.parametrize("spec", ["arithmetic:test", "planted"])
def test_problems_come_back_from_their_table_as_they_were(spec: str) -> None:
    problems = planted_problems(9) if spec == "planted" else thoughtgraft.load_problems(spec, n=40, seed=3)
    again = problems_from_table(problem_table(problems), problems.name)
    assert again == problems
    assert again.content_hash == problems.content_hash


def test_a_run_of_the_first_schema_and_rule_still_opens_and_reports(rule1_run: Path) -> None:
    opened = thoughtgraft.load_run(rule1_run)
    assert (opened.spec.schema_version, len(opened.records()), len(opened.problems())) == (3, 1614, 6)
    positions = opened.positions().set_index(["method", "label", "downstream", "donor_stratum"])
    # Counted in the stored records: 17 of 18 swaps of all slots turned right answers wrong.
    assert positions.loc[("swap", "all", "recompute", "random"), "impact_pp"] == pytest.approx(100 * 17 / 18)
    assert write_report(rule1_run).html.is_file()
