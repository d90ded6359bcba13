"""`run resampling` and `demo` as typed: dry run, pilot, the run it prepares, and every wrong input in one sentence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.cli.conftest import Job
from typer.testing import CliRunner, Result

from thoughtgraft.cli.app import app
from thoughtgraft.effects.decision import PilotVerdict
from thoughtgraft.effects.gates import RULE
from thoughtgraft.engine.verify import suite
from thoughtgraft.models import load
from thoughtgraft.stats.intervals import MIN_HOSTS
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.run import Run
from thoughtgraft.studies.sample import Pilot

SMALL = ["run", "resampling", "--preset", "pilot", "--hosts", "4", "--donors", "2", "--device", "cpu"]


def type_in(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def flat(text: str) -> str:
    """Text without line breaks and frames of a terminal."""
    return " ".join(re.sub(r"[│┃]", " ", text).split())


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A small pilot, from the command to its report."""
    out = tmp_path_factory.mktemp("cli") / "pilot"
    return out, type_in(*SMALL, "--out", out)


def test_a_pilot_ends_with_its_verdict_and_a_report(pilot: tuple[Path, Result]) -> None:
    out, result = pilot
    assert result.exit_code == 0, result.output
    assert re.search(r"The pilot's verdict: (GO|NO-GO|INVALID)\. ", flat(result.stdout))
    spec = json.loads((out / "run.json").read_text())
    assert spec["decision_hash"] == RULE.hash
    assert (out / "decision.json").read_text() == RULE.to_json()
    assert spec["plan"]["preset"] == "pilot"
    assert spec["plan"]["available_hosts"] == 2_000 - 4
    assert spec["plan"]["largest_number"] == 30
    assert spec["plan"]["only_correct"] is False
    for name in ("report.md", "report.html", "certificate.json", "decoded.parquet", "analysis/decision.json"):
        assert (out / name).is_file(), name
    report = (out / "report.md").read_text()
    assert re.search(r"Verdict of this pilot: (GO|NO-GO|INVALID)", report)
    assert "hash is not in run.json" not in report


def judged(monkeypatch: pytest.MonkeyPatch, verdict: str) -> None:
    """Let pilots be judged so, whatever the embedded model does in four problems."""
    monkeypatch.setattr(Run, "pilot", lambda self: PilotVerdict(verdict, 30, "CT1", 100, "by decree"))


def test_an_invalid_pilot_prepares_nothing(
    pilot: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, "INVALID")
    result = type_in("run", "resampling", "--preset", "full", "--pilot", pilot[0], "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert re.search("is INVALID; got by decree; expected GO or NO-GO. Fix: repair the cause", flat(result.stderr))


def test_the_pilots_problems_are_left_out_of_the_run_it_sizes(
    pilot: tuple[Path, Result], jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, "GO")
    out, _ = pilot
    used = set(pd.read_parquet(out / "problems.parquet").id)
    for preset in ("pilot", "full"):
        result = type_in("run", "resampling", "--preset", preset, "--pilot", out, "--out", tmp_path / "x")
        assert result.exit_code == 0, result.output
        assert not used & {p.id for p in jobs[-1].problems}
    assert len(jobs[-1].problems) == 100
    assert jobs[-1].design.facts["available_hosts"] == 2_000 - 100 - 4
    facts = jobs[-1].design.facts["pilot"]
    assert facts["run_id"] == load_run(out).spec.run_id
    assert facts["verdict"] == "GO"
    shown = type_in("run", "resampling", "--preset", "full", "--pilot", out, "--out", tmp_path / "x", "--dry-run")
    basis = r"80% power: .*\((by the pilot's variances, at CT\d|no slot varied in the pilot)\)"
    assert re.search(basis, flat(shown.stdout))


def test_auto_takes_what_the_pilot_asks_for_and_at_most_what_is_left(
    pilot: tuple[Path, Result], jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, "NO-GO")
    words = ["run", "resampling", "--preset", "pilot", "--pilot", pilot[0], "--hosts", "auto", "--out", tmp_path / "x"]
    for needed, taken, left in ((30, 30, 2_000 - 34), (2, MIN_HOSTS, 2_000 - 4 - MIN_HOSTS), (5_000, 1_996, 0)):
        monkeypatch.setattr(Pilot, "asks_for", lambda self, n_donors, needed=needed: needed)
        assert type_in(*words).exit_code == 0
        assert (jobs[-1].drawn.n_hosts(None), jobs[-1].design.facts["available_hosts"]) == (taken, left)
        short = [line for line in jobs[-1].design.lines if "1996 hosts, and 5000 are needed" in line]
        assert bool(short) is (taken < needed)
    monkeypatch.setattr(Pilot, "asks_for", lambda self, n_donors: None)
    assert "the pilot asks for no number of hosts; got by decree. Fix: give --hosts" in flat(type_in(*words).stderr)


def test_a_run_smaller_than_its_pilot_asks_for_says_so_before_it_starts_and_on_its_first_screen(
    pilot: tuple[Path, Result], jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, "GO")
    monkeypatch.setattr(Pilot, "asks_for", lambda self, n_donors: 538)
    small = ["run", "resampling", "--preset", "full", "--hosts", "8", "--donors", "2", "--pilot", pilot[0]]
    said = "Smaller than its pilot asks for: 8 hosts, and 538 are needed"
    assert said in flat(type_in(*small, "--out", tmp_path / "x", "--dry-run").stdout)
    assert type_in(*small, "--out", tmp_path / "x").exit_code == 0
    assert jobs[-1].design.lines[0].startswith(said)
    shown: list[str] = []
    monkeypatch.undo()
    judged(monkeypatch, "GO")
    monkeypatch.setattr(Pilot, "asks_for", lambda self, n_donors: 538)
    monkeypatch.setattr(suite, "verify", lambda *_, **__: shown.append("certificate") or 1 / 0)
    told = type_in(*small, "--out", tmp_path / "x")
    assert isinstance(told.exception, ZeroDivisionError)
    assert said in flat(told.stdout) and shown == ["certificate"], "before the first check"
    out = tmp_path / "page"
    shutil.copytree(pilot[0], out)
    spec = json.loads((out / "run.json").read_text())
    spec["plan"]["pilot"] = jobs[-1].design.facts["pilot"]
    (out / "run.json").write_text(json.dumps(spec))
    page = flat(Path(type_in("report", out).stdout.strip()).read_text())
    told = "Smaller than its pilot asks for: 4 hosts, and 538 are needed"
    assert 0 < page.index(told) < page.index("Claims and verdicts</h2>")
    assert "Smaller than" not in (pilot[0] / "report.md").read_text()


def test_a_larger_run_beside_is_called_a_second_look_from_its_start_to_its_page(
    pilot: tuple[Path, Result], tmp_path: Path
) -> None:
    small, _ = pilot
    out = tmp_path / "more"
    words = ["run", "resampling", "--preset", "demo", "--hosts", "6", "--donors", "2", "--device", "cpu"]
    asked = [*words, "--out", out, "--beside", small, "--beside", tmp_path / "nowhere"]
    said = f"4 of these 6 hosts and 3 of their 5 donors were seen before, in {small.parent.name}/{small.name}"
    dry = type_in(*asked, "--dry-run")
    assert f"{said}. A larger number of hosts in a new folder is a second look" in flat(dry.stdout), dry.output
    result = type_in(*asked)
    assert result.exit_code == 0, result.output
    place = f"{small.parent.name}/{small.name}"
    told = f"{said}. A larger number of hosts in a new folder is a second look ({place} had 4): no interval"
    assert told in flat(result.stderr)
    assert "Not counted among earlier looks: nowhere cannot be read" in flat(result.stderr)
    looks = load_run(out).spec.looks
    assert looks is not None and (looks.hosts, looks.n_hosts, looks.donors) == (4, 6, 3)
    page = flat((out / "report.html").read_text())
    assert page.index(told) < page.index("Claims and verdicts</h2>")
    assert "<dt>seen before</dt><dd>4 of 6 hosts, 3 of 5 donors</dd>" in page
    assert "> 4 of these 6 hosts and" in (out / "report.md").read_text()
    assert said in flat(type_in("status", out).stdout)
    before = (out / "run.json").read_bytes()
    assert type_in(*words, "--out", out).exit_code == 0, "what was noted when it began stays"
    assert (out / "run.json").read_bytes() == before


def test_pilot_and_full_are_disjoint_blocks_of_one_permutation(jobs: list[Job], tmp_path: Path) -> None:
    for preset in ("pilot", "full"):
        assert type_in("run", "resampling", "--preset", preset, "--out", tmp_path, "--seed", "7").exit_code == 0
    first, second = ([p.id for p in job.problems] for job in jobs)
    assert (len(first), len(second)) == (20, 100)
    assert not set(first) & set(second)
    both = ["run", "resampling", "--preset", "pilot", "--hosts", "120", "--out", tmp_path, "--seed", "7"]
    assert type_in(*both).exit_code == 0
    assert [p.id for p in jobs[-1].problems] == first + second


def test_options_reach_the_plan(jobs: list[Job], tmp_path: Path) -> None:
    words = ["--limit", "3", "--only-correct", "--donors", "4", "--hosts", "9", "--num-latents", "2"]
    assert type_in("run", "resampling", "--out", tmp_path, *words).exit_code == 0
    job = jobs[0]
    assert (job.plan.hosts, job.plan.only_correct, job.plan.n_donors) == (3, True, 4)
    assert (len(job.problems), job.drawn.n_hosts(3), job.model.num_latents) == (9, 3, 2)


@pytest.mark.parametrize("command", [SMALL, ["demo", "--hosts", "6", "--donors", "2"]])
def test_a_dry_run_says_how_many_how_long_and_what_for_and_starts_nothing(command: list[str], tmp_path: Path) -> None:
    result = type_in(*command, "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    shown = flat(result.stdout)
    assert re.search(r"swap recompute random [\d,]+ ([\d,]+ )?\d+", shown), shown
    assert re.search(r"[\d,]+ generations.*: \d hosts of arithmetic:test, 2 donors each, seed 0", shown)
    assert re.search(r"about [\d.]+ (s|min|h) on this machine \(cpu, .*measured on [\d,]+ generations", shown)
    assert re.search(r"smallest impact of one slot found with 80% power: [\d.]+ pp", shown)
    assert re.search(r"No verdict can come of this design: with \d hosts( and \d distinct donors)? no interval", shown)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "huge"], r"unknown preset; got 'huge'; expected demo, pilot, full\."),
        (["--problems", "riddles"], r"unknown problems; got 'riddles'; expected arithmetic"),
        (["--problems", "nowhere.jsonl"], r"nowhere\.jsonl"),
        (
            ["--hosts", "auto"],
            r"--hosts auto takes what a pilot asks for\. Fix: add --pilot RUN, or",
        ),
        (["--hosts", "1"], r"the number of hosts is not usable; got '1'; expected auto, or a number from 2 on\."),
        (["--hosts", "some"], r"the number of hosts is not usable; got 'some'"),
        (["--hosts", "1990", "--preset", "full"], r"does not hold so many problems; got 1990 wanted from position 20"),
        (["--hosts", "4", "--donors", "4"], r"4 donors for each of 4 problems; expected 1\.\.3\. Fix: ask for fewer"),
        (["--model", "no/such/folder"], r"no/such/folder"),
        (["--protocol", "mine"], r"unknown protocol; got 'mine'; expected official"),
        (["--model", "tiny-direct"], r"no thoughts to edit or to read; got 0 thoughts.*Fix: take a model that thinks"),
        (["--num-latents", "-1"], r"--num-latents is not usable; got -1; expected a whole number, 1 or more"),
        (["--device", "tpu9"], r"unknown device; got 'tpu9'; expected auto, cpu"),
        (["--dtype", "int3"], r"unknown dtype; got 'int3'; expected float32"),
        (["--batch-size", "many"], r"batch size is not usable; got 'many'; expected auto or a number"),
        (["--tracker", "diary"], r"unknown tracker; got 'diary'; expected none, wandb"),
        (["--engine", "spark"], r"unknown engine; got 'spark'; expected local, ray"),
        (["--workers", "2"], r"the local engine has no workers; got --workers\. Fix: add --engine ray"),
        (["--certify", "maybe"], r"unknown choice for --certify; got 'maybe'; expected auto, full, off\."),
        (["--pilot", "no/such/run"], r"no/such/run is not a run; expected an existing folder\. Fix: give the folder"),
    ],
)
def test_wrong_inputs_exit_2_with_one_sentence(words: list[str], message: str, tmp_path: Path) -> None:
    result = type_in(*SMALL, "--certify", "off", "--out", tmp_path / "run", *words)
    assert result.exit_code == 2, (result.output, result.exception)
    assert len(re.findall("error: ", result.stderr)) == 1
    assert re.search(message, flat(result.stderr)), result.stderr
    assert "Traceback" not in result.output


def test_a_pilot_of_something_else_is_refused(
    pilot: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, "NO-GO")
    out, _ = pilot
    full = ["run", "resampling", "--preset", "full", "--pilot", out, "--out", tmp_path / "x"]
    result = type_in(*full, "--problems", "arithmetic:heldout")
    assert result.exit_code == 2
    assert "the pilot drew from other problems; got arithmetic:test; expected arithmetic:heldout" in flat(result.stderr)
    result = type_in(*full, "--num-latents", "3")
    assert result.exit_code == 2
    other = r"the pilot is of another model; got num_latents: 6 there, 3 now .* Fix: run a pilot of this model"
    assert re.search(other, flat(result.stderr)), result.stderr


def test_records_are_written_as_the_file_is_named(pilot: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = pilot
    asked = type_in("records", out, "--out", tmp_path / "swaps.parquet", "--where", 'method == "swap"')
    assert asked.exit_code == 0 and "generations" in asked.stderr, asked.output
    assert set(pd.read_parquet(tmp_path / "swaps.parquet").method) == {"swap"}
    none = type_in("records", out, "--out", tmp_path / "none.jsonl", "--where", 'method == "swop"')
    assert "warning: the file holds no generation" in none.stderr and (tmp_path / "none.jsonl").read_bytes() == b""
    assert "unknown export format" in type_in("records", out, "--out", tmp_path / "a.xlsx").stderr


def test_a_file_named_otherwise_than_its_format_is_refused(pilot: tuple[Path, Result], tmp_path: Path) -> None:
    result = type_in("records", pilot[0], "--out", tmp_path / "a.csv", "--format", "jsonl")
    assert result.exit_code == 2 and "a.csv is named otherwise than --format jsonl" in result.stderr


def test_words_that_the_model_has_never_seen_are_a_warning(jobs: list[Job], tmp_path: Path) -> None:
    rows = [{"question": f"Zebras quarrel {i} times incessantly?", "answer": f"{i}"} for i in range(5)]
    (tmp_path / "odd.json").write_text(json.dumps(rows))
    told = type_in(*SMALL, "--problems", tmp_path / "odd.json", "--out", tmp_path / "run")
    assert "warning: tiny-codi has never seen" in told.stderr and "mean little" in told.stderr
    assert "warning" not in type_in(*SMALL, "--out", tmp_path / "run").stderr


def test_status_names_the_main_arms_and_counts_the_rest(pilot: tuple[Path, Result]) -> None:
    out, _ = pilot
    short, whole = (flat(type_in("status", out, *words).stdout) for words in ([], ["--all"]))
    assert short.startswith("resampling on tiny-codi, protocol official finished: ")
    assert re.search(r"and \d+ more arms: --all shows them", short) and "freeze_kv" not in short
    assert "freeze_kv" in whole and "more arms" not in whole


def test_an_unfinished_run_says_so_everywhere(pilot: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "part"
    shutil.copytree(pilot[0], out)
    spec = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(spec | {"n_cells": spec["n_cells"] + 7}))
    shown = flat(type_in("analyze", out).stdout)
    assert f"UNFINISHED: {spec['n_cells']:,} of {spec['n_cells'] + 7:,} generations" in shown
    page = flat((out / "report.html").read_text())
    assert f"The run is unfinished: 7 of {spec['n_cells'] + 7:,} generations are still missing" in page
    assert "stopped: " in flat(type_in("status", out).stdout)


def test_an_invalid_run_states_no_effect(pilot: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "bad"
    shutil.copytree(pilot[0], out)
    (out / "certificate.json").unlink()
    shown = flat(type_in("analyze", out).stdout)
    assert "INVALID: failed gates: certificate" in shown and "impact" not in shown


def test_a_damaged_table_is_one_sentence(pilot: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "damaged"
    shutil.copytree(pilot[0], out)
    (out / "problems.parquet").write_bytes(b"PAR1 and no more")
    for verb in ("analyze", "report"):
        result = type_in(verb, out)
        assert result.exit_code == 2 and "problems.parquet is damaged" in result.stderr, result.output
        assert "delete it, then run the command that made this run again" in result.stderr


def test_what_cannot_work_is_refused_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_model", None)
    (tmp_path / "file").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("x")
    for words, message in (
        ([*SMALL, "--out", tmp_path / "file"], "file is a file"),
        ([*SMALL, "--out", tmp_path / "mine"], "holds other things and no run; got a.txt"),
        ([*SMALL, "--donors", "9", "--out", tmp_path / "new"], "9 donors for each of 4 problems"),
        (["demo", "--hosts", "5", "--out", tmp_path / "new"], "10 donors for each of 5 problems"),
        (["run", "operations", "--probes", "svm", "--out", tmp_path / "new"], "unknown probe; got 'svm'"),
        ([*SMALL, "--batch-size", "0", "--out", tmp_path / "new"], "batch size is not usable; got '0'"),
    ):
        result = type_in(*words)
        assert result.exit_code == 2 and message in result.stderr, result.output


def test_a_folder_that_holds_another_run_is_refused(pilot: tuple[Path, Result]) -> None:
    out, _ = pilot
    result = type_in(*SMALL, "--seed", "5", "--out", out)
    assert result.exit_code == 2
    assert re.search(
        r"holds another run; got .*seed: 0 there, 5 now.*Fix: use --out another folder", flat(result.stderr)
    )


@pytest.mark.parametrize("words", [["--donors", "0"], ["--hosts", "1"], ["--limit", "0"], ["--nonsense"]])
def test_the_command_lines_own_limits_exit_2_too(words: list[str], tmp_path: Path) -> None:
    assert type_in(*SMALL, "--out", tmp_path / "x", *words).exit_code == 2
