"""Failed cells are counted wherever a run is first looked at: page, terminal, status, Python, tracker, exports."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console
from tests.engine.tiny import loaded, questions
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.cli.console import status_lines
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.effects.gates import RULE
from thoughtgraft.engine.run import run
from thoughtgraft.records.status import read_status
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.studies.resampling.summary import run_summary
from thoughtgraft.tasks.numbers import extract_answer
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.tracking.tracking import final_metrics, running_metrics

HOSTS = 6


def some_rows(n: int):
    """An edit that gives NaN on the first `n` rows of the first slot that it sees, by their cells."""
    seen: list[str] = []

    def op(live, context):
        new = [key for key in context.keys if key not in seen]
        seen.extend(new[: n - len(seen)])
        hit = torch.tensor([key in seen for key in context.keys])
        return live.masked_fill(hit[:, None], torch.nan) if hit.any() else live

    op.identity = f"some {n}"
    return op


def make(folder: Path, n: int) -> Path:
    asked = questions("codi-llama")
    problems = ProblemSet(tuple(Problem(str(i), asked[i], extract_answer(str(i + 3))) for i in range(HOSTS)))
    arms = (Arm("baseline"), Arm("noop"), *(Arm(m, (k,)) for m in ("self", "swap") for k in range(6)))
    plan = Plan((*arms, Arm("own", (1,), op=some_rows(n), repeats=True)), n_donors=4, seed=2)
    model = loaded("codi-llama", "float64")
    run(model, problems, plan, folder, max_new_tokens=5, progress=False, rule=RULE.to_json(), certificate=None)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """2 of 216 cells: less than one in a hundred."""
    return make(tmp_path_factory.mktemp("few") / "run", 2)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return make(tmp_path_factory.mktemp("many") / "run", 5)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("thoughtgraft.studies.resampling.report.make_figures", lambda run, analysis, foot: {})


def printed(what) -> str:
    console = Console(width=200, file=StringIO())
    console.print(what)
    return " ".join(console.file.getvalue().split())


WORDS = "2 of 216 cells failed: the edit gave NaN at CT1 (2)"


def test_the_first_screen_of_the_page_counts_them(few):
    paths = write_report(few)
    first = paths.md.read_text().split("\n## ")[0]
    assert "failed" in first and f"{WORDS}. They are in no estimate." in " ".join(first.split())
    assert WORDS in paths.html.read_text()
    gate = load_run(few).gates().set_index("name").loc["failed"]
    assert gate["outcome"] == "pass" and gate["figure"] == pytest.approx(2 / 216)


def test_more_than_one_in_a_hundred_and_no_effect_is_stated(many):
    paths = write_report(many, force=False)
    text = " ".join(paths.md.read_text().split())
    assert "gate failed (5 of 216 cells failed: the edit gave NaN at CT1 (5))" in text
    assert "No effect is stated" in text
    assert "5 of 216 cells failed" in printed(run_summary(many)) and "INVALID" in printed(run_summary(many))
    assert load_run(many).gates().set_index("name").loc["failed", "outcome"] == "fail"


def test_terminal_status_python_and_tracker_count_them(few):
    write_report(few)
    assert f"{WORDS}. They are in no estimate." in printed(run_summary(few))
    status = read_status(few)
    assert status.errors == 2 and "2 cells failed" in status_lines(status)
    assert running_metrics(status)["errors"] == 2 and final_metrics(few)["failed_share"] == pytest.approx(2 / 216)
    opened = load_run(few)
    assert opened.failed()["error"].tolist() == ["the edit gave NaN at CT1"] * 2
    row = opened.positions().query("method == 'own'").iloc[0]
    assert (row["n_failed"], row["n_gen"]) == (2, 22)
    sound = opened.records("method == 'own' and error.isna()")
    assert status.arms[-1].accuracy == pytest.approx(sound["correct"].astype(float).mean())


def test_they_are_exported_with_their_reason_and_no_outcome(few, tmp_path):
    out = tmp_path / "failed.csv"
    done = CliRunner().invoke(app, ["records", str(few), "--out", str(out), "--where", "error.notna()"])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    assert len(table) == 2 and table[["pred", "correct", "valid", "changed", "adopted", "kl"]].isna().all(axis=None)
    assert table["error"].tolist() == ["the edit gave NaN at CT1"] * 2 and table["base_correct"].notna().all()
