"""A stored run of rule 1: its words are shown as data, under what was wrong with them, and its records judged anew."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from tests.report.invent import parse_table

import thoughtgraft
from thoughtgraft.effects.gates import RULE, basis_of
from thoughtgraft.errors import AnalysisError
from thoughtgraft.stats.verdicts import Verdict
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.studies.resampling.summary import run_summary

pytestmark = pytest.mark.usefixtures("no_figures")
WORDS = {"SUPPORTED", "REFUTED", "UNDERPOWERED"}
STORED = "### The stored words"


def report(run: Path, rule: int | None = None) -> str:
    opened = thoughtgraft.load_run(run)
    problems = opened.problem_set()
    return write_report(run, problems=problems, largest=opened.largest_number, rule=rule).md.read_text()


def decision(run: Path, name: str = "decision") -> dict[str, object]:
    return dict(json.loads((run / "analysis" / f"{name}.json").read_text()))


def shown(run: Path) -> str:
    console = Console(width=100, record=True, file=StringIO())
    console.print(run_summary(run))
    return console.export_text()


def test_its_page_prints_the_stored_words_and_what_was_wrong_with_them(rule1_run: Path) -> None:
    stored, records = decision(rule1_run), sorted(rule1_run.glob("records/*"))
    before = [file.read_bytes() for file in records]
    text = report(rule1_run)
    assert "they cannot be taken at face value" in text.lower() and "83% of runs of 50 hosts" in text
    assert "analyze --rule 2" in text
    rows = parse_table(text, STORED)
    assert [row["verdict of rule 1"] for row in rows] == [row["verdict"] for row in stored["claims"]]  # type: ignore[attr-defined]
    assert set(rows[0]) >= {"estimate", "95% interval", "n"} and {row["verdict of rule 1"] for row in rows} <= WORDS
    # Nothing on the page is judged a second time.
    assert {row["verdict"] for row in parse_table(text, "### Accuracy")} == {"–"}
    assert "### The claims in numbers" not in text and "| ABOVE |" not in text
    assert decision(rule1_run) == stored and [file.read_bytes() for file in records] == before
    positions = pd.read_parquet(rule1_run / "analysis" / "positions.parquet")
    assert not [name for name in positions if name.endswith("verdict")] and "sim_low" in positions
    assert "judged by rule 1" in shown(rule1_run)


def test_its_records_are_judged_anew_and_the_page_says_when_the_rule_was_chosen(rule1_run: Path) -> None:
    stored = decision(rule1_run)
    text = report(rule1_run, rule=2)
    assert "Rule 2 was chosen after this run" in text and STORED not in text
    assert "run.json fixed the rule 818085c867a4f5b0 before it" in text
    assert not [word for word in WORDS if word in text]
    claims = parse_table(text, "### The claims in numbers")
    assert {row["question"] for row in claims} == {"H0", "H1", "H3", "H4", "H5"}
    # Six hosts are too few for any interval that is known to hold.
    assert {row["verdict"] for row in claims} <= {"UNRESOLVED", "UNDEFINED", "BY CONSTRUCTION"}
    found = decision(rule1_run)
    assert found["rule"]["version"] == 2 and found["rule_fixed_before"] is False  # type: ignore[index]
    assert decision(rule1_run, "decision-before") == stored
    assert "judged by rule 1" not in shown(rule1_run)


def test_the_stored_words_outlive_being_judged_anew(rule1_run: Path) -> None:
    first = report(rule1_run)
    stored = decision(rule1_run)
    report(rule1_run, rule=2)
    assert parse_table(report(rule1_run), STORED) == parse_table(first, STORED)
    assert decision(rule1_run) == stored


def test_the_python_door_gives_both(rule1_run: Path) -> None:
    run, anew = thoughtgraft.load_run(rule1_run), thoughtgraft.load_run(rule1_run, rule=2)
    assert run.basis.old_version == 1 and run.basis.fixed_before
    assert anew.basis.old_version is None and not anew.basis.fixed_before
    assert set(run.decision().verdict) <= WORDS and len(run.decision()) == len(decision(rule1_run)["claims"])  # type: ignore[arg-type]
    assert set(anew.decision().verdict) <= {*Verdict}
    assert "verdict" not in run.positions() and "verdict" in anew.positions()
    assert "verdict" not in run.agreement() and "verdict" not in run.counterfactual()
    pd.testing.assert_series_equal(run.positions().impact_pp, anew.positions().impact_pp)


def test_without_stored_words_there_are_none(rule1_run: Path) -> None:
    for file in (rule1_run / "analysis").iterdir():
        file.unlink()
    text = report(rule1_run)
    assert "it was never analysed under its rule" in text and "judged by rule 1" in shown(rule1_run)
    assert thoughtgraft.load_run(rule1_run).decision().empty
    assert "Rule 2 was chosen after this run" in report(rule1_run, rule=2)


def test_its_margin_and_alpha_are_kept_when_it_is_judged_anew() -> None:
    old = {"version": 1, "alpha": 0.1, "margin": 0.02}
    assert basis_of(json.dumps(old), None, 2).rule.margin == 0.02
    assert basis_of(json.dumps(old), None, 2).rule.alpha == 0.1
    assert basis_of(RULE.to_json(), RULE.hash).rule == RULE
    with pytest.raises(AnalysisError, match="damaged"):
        basis_of(json.dumps({"version": "x"}), None)
