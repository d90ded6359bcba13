"""The rule as typed: margin and alpha before a run, another rule for records that are there, and the table it makes."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from tests.cli.conftest import Job
from tests.report.invent import FEW, make_run, passing
from typer.testing import CliRunner, Result

from thoughtgraft.cli.app import app
from thoughtgraft.effects.gates import RULE, Rule
from thoughtgraft.errors import RunError
from thoughtgraft.records.spec import RuleFacts, refuse_another_run
from thoughtgraft.records.store import RunStore
from thoughtgraft.report.document import interval, judged
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.studies.resampling.summary import run_summary
from thoughtgraft.studies.sample import Pilot

SMALL = ["run", "resampling", "--preset", "demo", "--hosts", "4", "--donors", "2", "--device", "cpu"]


def type_in(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def flat(text: str) -> str:
    return " ".join(text.split())


def printed(run: Path) -> list[str]:
    """The lines of the terminal's summary at 80 columns."""
    console = Console(width=80, file=io.StringIO())
    console.print(run_summary(run))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_margin_and_alpha_make_the_rule_that_is_kept_hashed_and_read_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = type_in(*SMALL, "--margin", "7", "--alpha", "0.1", "--out", out)
    assert result.exit_code == 0, result.output
    rule = Rule.of(7, 0.1)
    assert (out / "decision.json").read_text() == rule.to_json() != RULE.to_json()
    spec = load_run(out).spec
    assert (spec.decision_hash, spec.rule) == (rule.hash, RuleFacts(2, 7.0, 0.1))
    assert json.loads((out / "run.json").read_text())["rule"] == {"version": 2, "margin_pp": 7.0, "alpha": 0.1}
    assert "margin 7 pp, alpha 0.1" in (out / "report.md").read_text()
    assert "90% alone" in flat(result.stdout) and "95% alone" not in flat(result.stdout)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"}
    refused = type_in(*SMALL, "--margin", "6", "--alpha", "0.1", "--out", out)
    assert refused.exit_code == 2
    assert "holds another run; got rule.margin_pp: 7.0 there, 6.0 now" in flat(refused.stderr)
    assert "rule.alpha" not in refused.stderr
    assert {path: path.read_bytes() for path in before} == before, "nothing that is stored is harmed"


def test_a_rule_that_is_text_of_another_kind_is_kept_and_not_guessed_at() -> None:
    assert RuleFacts.of_text(RULE.to_json()) == RuleFacts(2, 5.0, 0.05)
    for text in ("by eye", "[]", '{"version": 2}', '{"version": 2, "margin": "?", "alpha": 0.05}'):
        assert RuleFacts.of_text(text) is None


def test_the_difference_of_two_rules_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FEW, rule=RuleFacts(2, 5.0, 0.05), decision_hash="a")
    spec = RunStore.open(run).spec
    other = spec.model_copy(update={"rule": RuleFacts(2, 5.0, 0.01), "decision_hash": "b"})
    with pytest.raises(RunError, match=r"rule\.alpha: 0\.05 there, 0\.01 now"):
        refuse_another_run(run, spec, other)


def test_a_smaller_margin_asks_for_more_hosts(
    jobs: list[Job], rule1_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {m: Pilot.open(rule1_run, "arithmetic:test", Rule.of(m)).asks_for(10) or 0 for m in (2.5, 5, 10)}
    assert asked[2.5] > 3.5 * asked[5] > 12 * asked[10] > 0, "as the square of the margin"
    stricter = Pilot.open(rule1_run, "arithmetic:test", Rule.of(5, 0.01)).asks_for(10) or 0
    assert stricter > 1.3 * asked[5]
    words = ["run", "resampling", "--preset", "full", "--hosts", "30", "--donors", "5", "--out", tmp_path / "x"]
    monkeypatch.setattr(Pilot, "check_model", lambda *_: None)  # the stored pilot is of an earlier identity
    assert type_in(*words, "--pilot", rule1_run, "--margin", "10", "--alpha", "0.01").exit_code == 0
    assert (jobs[0].drawn.rule, jobs[0].drawn.pilot.rule) == (Rule.of(10, 0.01),) * 2  # type: ignore[union-attr]
    dry = flat(type_in(*words, "--pilot", rule1_run, "--margin", "10", "--dry-run").stdout)
    assert re.search(r"; \d+ hosts would find 10 pp", dry), dry


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--margin", "0"], r"the margin of a rule is a size in percentage points; got 0; expected more than 0"),
        (["--margin", "-5"], r"got -5; expected more than 0"),
        (["--margin", "80"], r"got 80; expected more than 0, at most 50"),
        (["--margin", "nan"], r"got nan"),
        (["--alpha", "0"], r"alpha is the share of runs that may say something false; got 0;"),
        (["--alpha", "5"], r"got 5; expected more than 0, at most 0\.2"),
    ],
)
def test_a_rule_out_of_range_is_one_sentence(words: list[str], message: str, tmp_path: Path) -> None:
    result = type_in(*SMALL, *words, "--out", tmp_path / "x")
    assert result.exit_code == 2 and re.search(message, flat(result.stderr)), result.output
    assert not (tmp_path / "x" / "run.json").exists()


def test_records_of_rule_1_keep_its_words_until_they_are_judged_anew(rule1_run: Path) -> None:
    again = Path(shutil.copytree(rule1_run, rule1_run.parent / "again"))
    kept, judged_anew = type_in("analyze", rule1_run), type_in("analyze", again, "--rule", "2")
    assert kept.exit_code == judged_anew.exit_code == 0, kept.output + judged_anew.output
    assert "judged by rule 1" in flat(kept.stdout) and "UNRESOLVED" not in kept.stdout
    assert "judged by rule 1" not in judged_anew.stdout and "UNRESOLVED *" in judged_anew.stdout
    assert "SUPPORTED" in (rule1_run / "report.md").read_text()
    assert type_in("report", rule1_run, "--rule", "2").exit_code == 0
    page = (rule1_run / "report.md").read_text()
    assert "SUPPORTED" not in page and "Rule 2 was chosen after this run" in page
    assert "there is no such rule to judge by; got rule 3" in flat(type_in("report", again, "--rule", "3").stderr)
    other = make_run(rule1_run.parent / "other", FEW, study="operations")
    refused = flat(type_in("analyze", other, "--rule", "2").stderr)
    assert "is an operations run, which no rule of questions judges; got rule 2. Fix: leave --rule out" in refused


def test_the_terminals_table_has_both_intervals_and_the_verdict_of_the_stored_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FEW, n=30, d=6, certificate=passing())
    write_report(run)
    lines = printed(run)
    assert max(map(len, lines)) <= 80
    table = pd.read_parquet(run / "analysis" / "positions.parquet")
    effects = table[~table.method.isin(["noop", "self"])].to_dict("records")
    shown = [line.split() for line in lines if re.match(r" (swap|zero) ", line)]
    impacts, adoptions = shown[: len(effects)], shown[len(effects) :]
    for row, words in zip(effects, impacts, strict=True):
        low, high = judged(row["sim_low"], row["sim_high"], 5)[1:-1].split(", ")
        own = interval(row["ci_low"], row["ci_high"])[1:-1].split(", ")
        assert words[:3] == [row["method"], row["label"], str(row["n_gen"])]
        assert words[5:] == [f"[{own[0]},", f"{own[1]}]", f"[{low},", f"{high}]", *str(row["verdict"]).split()]
    swaps = [row for row in effects if row["method"] == "swap"]
    assert [words[-1] for words in adoptions] == [row["adoption_excess_verdict"].split()[-1] for row in swaps]
    assert any("95% together" in line for line in lines) and not any("too small" in line for line in lines)


def test_a_verdict_that_so_small_a_design_cannot_give_is_starred(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FEW, n=12, d=4, certificate=passing())
    write_report(run)
    lines = printed(run)
    rows = [line for line in lines if re.match(r" (swap|zero) ", line)]
    assert rows and all(line.rstrip().endswith("UNRESOLVED *") for line in rows)
    assert "* too small for any interval that is known to hold: fewer than 20 hosts or 5 donors" in flat(
        "\n".join(lines)
    )
