"""One estimate has one verdict, wherever it is shown, and that verdict is the one of the interval printed beside it."""

from __future__ import annotations

import json
import re
import shutil
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from tests.report.invent import FULL, make_run, parse_table, passing

import thoughtgraft
from thoughtgraft.effects.gates import RULE, Rule
from thoughtgraft.errors import AnalysisError
from thoughtgraft.records.store import RunStore
from thoughtgraft.stats.verdicts import Agreement, Verdict, agreement_verdict, verdict
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.studies.resampling.summary import run_summary
from thoughtgraft.tasks.files import problem_table
from thoughtgraft.tasks.problem import Problem, ProblemSet, Ref, Step

OLD_WORDS = ("SUPPORTED", "REFUTED", "UNDERPOWERED", "CONVERGENT", "DIVERGENT", "INCONCLUSIVE", "equivalent")
COLUMNS = {"H0": "### Accuracy", "H1": "### Accuracy of hosts that are right", "H4": "### Answers and probabilities"}
STEPS = "### Values of single steps"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 hosts x 6 donors under the rule, reported."""
    certificate = passing() | {"dead_slots": [5]}
    run = make_run(tmp_path_factory.mktemp("judged") / "run", FULL, n=40, d=6, certificate=certificate, extras=False)
    ruled(run, RULE)
    golds = RunStore.open(run).frame(["problem_id", "gold"]).drop_duplicates()
    problems = [two_steps(*pair) for pair in zip(golds.problem_id, golds.gold, strict=True)]
    RunStore.open(run).write_table("problems.parquet", problem_table(ProblemSet(tuple(problems))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thoughtgraft.studies.resampling.report.make_figures", lambda run, analysis, foot: {})
        write_report(run, problems=problems)
    return run


def two_steps(name: str, gold: str) -> Problem:
    """A problem that a donor's answer is adopted with when its first step is."""
    answer = Fraction(gold)
    steps = (Step(answer, "+", Fraction(5), answer + 5), Step(Ref(0), "-", Fraction(5), answer))
    return Problem(name, f"question {name}", answer, steps=steps)


def ruled(run: Path, rule: Rule) -> None:
    """Put a rule into a run's folder as if it had been fixed before it."""
    spec = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(spec | {"decision_hash": rule.hash}))
    (run / "decision.json").write_text(rule.to_json())


def tables(text: str) -> list[tuple[str, list[dict[str, str]]]]:
    """Every table of a Markdown page with a heading, by its heading."""
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    return [(title, parse_table(text, title)) for title in titles if "| " in text[text.index(title) :].split("\n##")[0]]


def ends(shown: str) -> tuple[float, float]:
    low, high = shown.strip("[]").replace("−", "-").replace(",", "").split()
    return float(low), float(high)


def test_every_printed_verdict_is_that_of_the_interval_printed_beside_it(judged: Path) -> None:
    seen: set[str] = set()
    for title, rows in tables((judged / "report.md").read_text()):
        for row in rows:
            shown = row.get("simultaneous", row.get("excess, simultaneous"))
            if shown is None or row.get("verdict") in (None, "–"):
                continue
            seen.add(row["verdict"])
            if row["verdict"] in ("BY CONSTRUCTION", "UNDEFINED"):
                assert shown == "undefined", title
            elif "disattenuated r of" not in row.get("about", ""):
                assert verdict(*ends(shown), 5.0) == row["verdict"], (title, row)
    assert {"ABOVE", "PRESENT", "UNRESOLVED", "BY CONSTRUCTION"} <= seen


def test_agreement_is_judged_by_what_is_printed(judged: Path) -> None:
    rows = parse_table((judged / "report.md").read_text(), "## Agreement of swap and ablation")
    for row in rows:
        p = float(row["interaction p"].replace("<", "").replace("&lt;", ""))
        low, high = ends(re.sub(r"^[^\[]*", "", row["disattenuated r [interval]"]))
        assert agreement_verdict(low, high, 0.5, p, 0.05) == row["verdict"]
    assert len(rows) == 4
    # None is above 1, and one that was says so instead of a figure.
    assert any(row["disattenuated r [interval]"].startswith("at least 1 [") for row in rows)
    assert "(at least 1)" in (judged / "report.md").read_text()


def test_claims_positions_terminal_and_files_say_the_same_of_the_same_estimate(judged: Path) -> None:
    text = (judged / "report.md").read_text()
    claims = parse_table(text, "### The claims in numbers")
    console = Console(width=80, record=True, file=StringIO())
    console.print(run_summary(judged))
    terminal, adopted = (
        {
            found[1]: found[2]
            for line in part.splitlines()
            if (found := re.match(r"\s*swap\s+(CT\d|all)\s.*?\s([A-Z][A-Z ]+[A-Z])(\s|$)", line))
        }
        for part in console.export_text().split("adoption: ")
    )
    stored = pd.read_parquet(judged / "analysis" / "claims.parquet").set_index(["claim", "subject"]).verdict
    opened = thoughtgraft.load_run(judged).decision().set_index(["claim", "subject"]).verdict
    counted = 0
    for name, title in COLUMNS.items():
        shown = {row["slot"]: row["verdict"] for row in parse_table(text, title) if row["method"] == "swap"}
        for row in claims:
            if row["question"] != name:
                continue
            subject = row["about"].split(":")[0].replace("all slots", "all")
            assert shown[subject] == row["verdict"] == stored[name, subject] == opened[name, subject]
            counted += 1
            if name == "H0":
                assert terminal[subject] == row["verdict"]
    impacts = {row["slot"]: row["verdict"] for row in parse_table(text, "### Accuracy") if row["method"] == "swap"}
    excesses = {row["slot"]: row["verdict"] for row in parse_table(text, COLUMNS["H4"]) if row["method"] == "swap"}
    assert terminal == impacts and adopted == excesses and counted == 1 + 6 + 7
    steps = {f"{row['slot']}, step {row['step']}": row["verdict"] for row in parse_table(text, STEPS)}
    held = {row["about"].split(":")[0]: row["verdict"] for row in claims if row["question"] == "H5"}
    assert len(held) == 12 and held == {name: said for name, said in steps.items() if name in held}
    summary = parse_table(text, "## Claims and verdicts")
    for row in claims:
        about = row["about"].split(":")[0]
        assert any(line["verdict"] == row["verdict"] and about in line["for"] for line in summary)


def test_many_subjects_of_one_verdict_are_counted_with_their_range(
    judged: Path, tmp_path: Path, no_figures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thoughtgraft.studies.resampling.report._LISTED", 3)
    run = shutil.copytree(judged, tmp_path / "run")
    known = thoughtgraft.load_run(run).problem_set()
    summary = parse_table(write_report(run, problems=known).md.read_text(), "## Claims and verdicts")
    claims = thoughtgraft.load_run(run).decision()
    values = claims[(claims.claim == "H5") & (claims.verdict == "ABOVE")].estimate
    said = [line["for"] for line in summary if line["verdict"] == "ABOVE"]
    assert len(values) == 4 and said[-1] == f"4 subjects ({values.min():.1f} pp to {values.max():.1f} pp)"
    assert said[0].startswith("all slots ("), "one is named"


def test_no_old_word_is_on_a_page(judged: Path) -> None:
    for name in ("report.md", "report.html", "journal.md"):
        text = (judged / name).read_text()
        assert not [word for word in OLD_WORDS if re.search(rf"\b{word}\b", text)], name
    assert "chosen after this run" not in (judged / "report.md").read_text()


def test_pages_name_every_verdict_in_their_glossary(judged: Path) -> None:
    terms = {row["term"]: row["meaning"] for row in parse_table((judged / "report.md").read_text(), "## Definitions")}
    assert {*map(str, Verdict), *map(str, Agreement)} <= set(terms)


def test_margin_and_alpha_are_those_of_the_run_and_of_nobody_else(
    judged: Path, tmp_path: Path, no_figures: Any
) -> None:
    run = shutil.copytree(judged, tmp_path / "strict")
    strict = Rule.of(margin_pp=30, alpha=0.01)
    ruled(run, strict)
    text = write_report(run).md.read_text()
    assert "margin 30 pp, alpha 0.01" in text and strict.hash in text and "more than 30 pp" in text
    claims = thoughtgraft.load_run(run).decision()
    assert set(claims[claims.claim == "H1"].margin) == {30} and "99%" in text
    usual = thoughtgraft.load_run(judged).decision()
    first, second = (table[table.claim == "H1"].set_index("subject").sim_high for table in (claims, usual))
    assert (first.drop("CT5") > second.drop("CT5")).all()
    assert list(claims.verdict) != list(usual.verdict)


def test_a_rule_changed_after_the_run_is_refused(judged: Path, tmp_path: Path) -> None:
    run = shutil.copytree(judged, tmp_path / "changed")
    (run / "decision.json").write_text(Rule.of(margin_pp=1).to_json())
    with pytest.raises(AnalysisError, match="not the rule that the run was begun with"):
        write_report(run)
    with pytest.raises(AnalysisError, match="a rule is not changed after the run"):
        thoughtgraft.load_run(run).decision()


def test_a_missing_rule_is_named_unless_it_is_the_default_one(judged: Path, tmp_path: Path, no_figures: Any) -> None:
    run = shutil.copytree(judged, tmp_path / "without")
    (run / "decision.json").unlink()
    assert "chosen after this run" not in write_report(run).md.read_text()
    ruled(run, Rule.of(margin_pp=3))
    (run / "decision.json").unlink()
    with pytest.raises(AnalysisError, match="not in its folder"):
        write_report(run)
    assert "chosen after this run" in write_report(run, rule=2).md.read_text()


def test_a_damaged_or_newer_rule_is_named(judged: Path, tmp_path: Path) -> None:
    run = shutil.copytree(judged, tmp_path / "odd")
    for text, words in (("{", "damaged"), ('{"version": 2}', "damaged"), ("[]", "damaged"),
                        (RULE.to_json().replace('"version": 2', '"version": 3'), "newer rule")):  # fmt: skip
        spec = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(spec | {"decision_hash": None}))
        (run / "decision.json").write_text(text)
        with pytest.raises(AnalysisError, match=words):
            write_report(run)
    with pytest.raises(AnalysisError, match="there is no such rule"):
        write_report(run, rule=1)
