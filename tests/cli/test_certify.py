"""`verify` as typed, and when a run still needs a certificate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.engine.tiny import tiny
from tests.report.invent import FEW, make_run
from typer.testing import CliRunner, Result

from thoughtgraft.cli.app import app
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.verify import suite as verify_module
from thoughtgraft.engine.verify.statements import STATEMENTS
from thoughtgraft.engine.verify.suite import certificate_for
from thoughtgraft.errors import PlanError
from thoughtgraft.models.names import model_folder
from thoughtgraft.records.certificate import Certificate, Check
from thoughtgraft.tasks.problem import Problem, ProblemSet

CORE = ["verify", "--level", "core", "--device", "cpu"]


def type_in(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_verify_passes_and_writes_into_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FEW, extras=False)
    result = type_in(*CORE, "--json", "--out", run)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["passed"] is True
    assert printed["kind"] == "core"
    assert printed["model_hash"]
    assert json.loads((run / "certificate.json").read_text()) == printed


def test_visible_padding_exits_1_and_names_the_cause() -> None:
    result = type_in(*CORE, "--protocol", "official-padded")
    assert result.exit_code == 1
    words = " ".join(result.stdout.split())
    core = sum(statement.core for statement in STATEMENTS.values())
    assert f"certificate: FAILED ({core - 1} of {core} checks: core)" in words
    assert "padding probe" in words
    assert "official-padded shows the padding to everything after the question" in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--level", "most"], "unknown level of certification; got 'most'; expected core, full."),
        (["--cases", "nowhere.json"], "there is no file nowhere.json"),
        (["--out", "no/such/run"], "no/such/run is not a run"),
    ],
)
def test_wrong_inputs_exit_2(words: list[str], message: str) -> None:
    result = type_in("verify", "--device", "cpu", *words)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())


def test_a_run_that_could_state_no_effect_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Check("thoughts fed", "they arrive", float("nan"), "<= 1", False, "nothing counts")
    found = Certificate("tiny-codi", "official", "float32", "core", (failed,))
    monkeypatch.setattr(verify_module, "verify", lambda *_, **__: found)
    out = tmp_path / "run"
    run = type_in("run", "resampling", "--device", "cpu", "--hosts", 4, "--donors", 2, "--out", out)
    assert run.exit_code == 2 and not out.exists(), run.output
    assert "the certificate failed, so a run could state no effect; got thoughts fed" in " ".join(run.stderr.split())


def test_a_model_of_nan_is_refused_wherever_it_is_asked_for(tmp_path: Path) -> None:
    weights = load_file(model_folder("tiny-codi") / "model.safetensors")
    broken, out = tmp_path / "model", tmp_path / "run"
    shutil.copytree(model_folder("tiny-codi"), broken)
    name = next(name for name in weights if name.startswith("prj.") and name.endswith("weight"))
    save_file(weights | {name: weights[name] * float("nan")}, broken / "model.safetensors")
    study = ["run", "resampling", "--hosts", 4, "--donors", 2, "--out", out]
    for words in (study, ["evaluate", "--limit", 4], ["think", "Tom has 3 bags."]):
        told = type_in(*words, "--model", broken, "--device", "cpu")
        assert told.exit_code == 2 and "holds numbers that are not finite" in told.stderr, told.output
    assert not out.exists()


def test_a_run_is_certified_once_and_again_only_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def verify(*_: Any, level: str, plan: Plan | None, **__: Any) -> Certificate:
        asked.append(level)
        return Certificate("m", "official", "float32", level, (), plan_hash="" if plan is None else plan.plan_hash)

    monkeypatch.setattr(verify_module, "verify", verify)
    model, problems = tiny("codi-gpt2", "float32"), ProblemSet((Problem("0", "?", None),))
    assert certificate_for(model, problems, tmp_path, "off") is None
    first = certificate_for(model, problems, tmp_path, "auto")
    assert first is not None
    (tmp_path / "certificate.json").write_text(json.dumps(first.to_json()))
    assert certificate_for(model, problems, tmp_path, "auto") is None
    full = certificate_for(model, problems, tmp_path, "full")
    assert full is not None
    (tmp_path / "certificate.json").write_text(json.dumps(full.to_json()))
    assert certificate_for(model, problems, tmp_path, "full") is None
    assert asked == ["core", "full"]
    # A plan whose arms were not tried is certified anew.
    plans = [Plan((Arm("swap", slot),)) for slot in (1, 2)]
    of_one = certificate_for(model, problems, tmp_path, "auto", plans[0])
    assert of_one is not None and of_one.plan_hash == plans[0].plan_hash
    (tmp_path / "certificate.json").write_text(json.dumps(of_one.to_json()))
    assert certificate_for(model, problems, tmp_path, "auto", plans[0]) is None
    assert certificate_for(model, problems, tmp_path, "auto", plans[1]) is not None
    with pytest.raises(PlanError, match=r"--certify; got 'maybe'; expected auto, full, off"):
        certificate_for(model, problems, tmp_path, "maybe")
