"""`zoo` as typed, and what the other verbs do with models that are fed no thought."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.studies.same import same_run
from typer.testing import CliRunner, Result

from thoughtgraft import run_study
from thoughtgraft.cli.app import app
from thoughtgraft.models import load
from thoughtgraft.models import names as embedded
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.studies.options import stored_options
from thoughtgraft.studies.run import Runs
from thoughtgraft.tasks.sets.arithmetic import arithmetic
from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.recipe import train

SMALL = {"teacher_steps": 1, "max_steps": 3, "steps_per_stage": 1, "per_device_train_batch_size": 8, "eval_steps": 100}


def type_in(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def flat(text: str) -> str:
    """Text without line breaks and frames of a terminal."""
    return " ".join(re.sub(r"[│┃]", " ", text).split())


SIZE = ["--limit", 24, "--hosts", 6, "--donors", 2]


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy has not learnt to stop."""
    short(monkeypatch)


def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models write at most 8 tokens."""
    real = load.load_model

    def stopped(*args: Any, **options: Any) -> LatentReasoner:
        model = real(*args, **options)
        model.max_new_tokens = 8
        return model

    monkeypatch.setattr(load, "load_model", stopped)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Toys of three methods, in folders named after them; two are fed two vectors, so that all is quick."""
    base, made = tmp_path_factory.mktemp("zoo"), {}
    for method in ("codi", "pause", "direct", "cot"):
        slots = 2 if method in ("codi", "pause") else 0
        config = TrainingConfig(method=method, num_latent=slots, bf16=False, **SMALL)
        folder = train("tiny", None, arithmetic("validation")[:8], config, base / f"run-{method}", torch.device("cpu"))
        made[method] = folder.rename(base / f"toy-{method}")
    return made


def test_a_card_says_what_the_model_is_and_took(zoo: dict[str, Path]) -> None:
    cards = {method: json.loads((folder / "card.json").read_text()) for method, folder in zoo.items()}
    for method, card in cards.items():
        assert (card["method"], card["seed"], card["steps"], card["problems_seen"]) == (method, 11, 4, 32)
        assert 0.7e6 < card["parameters"] < 1e6 and "M parameters (llama, 4 layers, width 128); " in card["about"]
    assert cards["codi"]["parameters"] > cards["pause"]["parameters"] > cards["direct"]["parameters"]
    # One step trains the teacher alone and costs the same; the others also answer, with K more positions or without.
    assert cards["codi"]["forward_flops"] > cards["direct"]["forward_flops"] > cards["cot"]["forward_flops"]


def test_cards_of_models_without_thoughts_name_their_conditions(zoo: dict[str, Path]) -> None:
    for method in ("direct", "cot"):
        done = type_in("evaluate", "--model", zoo[method], "--limit", 12, "--card", "--device", "cpu", "--json")
        assert done.exit_code == 0, (done.output, done.exception)
        rows = json.loads((zoo[method] / "card.json").read_text())["accuracy"]["arithmetic:test"]
        names = [row["condition"] for row in rows]
        assert names[0] == "answer" and not any("thought" in name for name in names)
        assert ("explicit reasoning" in names) == (method == "direct"), "what cot writes is its reasoning already"
        assert "| answer | 12 |" in (zoo[method] / "README.md").read_text()


def test_a_card_that_cannot_be_filled_is_told_before_anything_runs(zoo: dict[str, Path], tmp_path: Path) -> None:
    bare = shutil.copytree(zoo["codi"], tmp_path / "bare")
    (bare / "card.json").unlink()
    done = type_in("evaluate", "--model", bare, "--card")
    assert done.exit_code == 2 and "has no readable card.json" in flat(done.stderr)
    done = type_in("evaluate", "--model", zoo["codi"], "--card", "--num-latents", 1)
    assert done.exit_code == 2 and "--num-latents 1 --card" in flat(done.stderr)


def test_a_card_says_how_it_was_measured(zoo: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(zoo["direct"], tmp_path / "copy")
    done = type_in("evaluate", "--model", folder, "--limit", 3, "--max-new-tokens", 4, "--card", "--device", "cpu")
    assert done.exit_code == 0, (done.output, done.exception)
    page = (folder / "README.md").read_text()
    assert "--model THIS_FOLDER --problems arithmetic:test --limit 3 --max-new-tokens 4`" in page


def test_the_table_comes_from_cards_without_torch(zoo: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "transformers", "thoughtgraft.models.load"):
        monkeypatch.setitem(sys.modules, name, None)
    shown = type_in("zoo", zoo["direct"], zoo["codi"])
    assert shown.exit_code == 0, (shown.output, shown.exception)
    assert "was not measured on arithmetic:test: thoughtgraft evaluate --model" in shown.stdout
    rows = json.loads(type_in("zoo", zoo["direct"], zoo["cot"], "--json").stdout)
    assert [row["method"] for row in rows] == ["direct", "cot"]
    assert rows[0]["accuracy"]["n"] == 12 and rows[0]["by_steps"]
    assert rows[1]["explicit"] == rows[1]["accuracy"]


def test_a_model_that_is_not_in_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedded.EMBEDDED, "tiny-none", "pause")
    for words in (("zoo", "tiny-none"), ("think", "What?", "--model", "tiny-none")):
        result = type_in(*words)
        assert result.exit_code == 2
        assert "the embedded model tiny-none is not in this installation; got no folder " in flat(result.stderr)
        assert "thoughtgraft train --method pause --out FOLDER" in flat(result.stderr)
    nowhere = type_in("zoo", "no/such/folder")
    assert nowhere.exit_code == 2 and "no/such/folder has no readable card.json" in nowhere.stderr


@pytest.fixture(scope="module")
def measured(zoo: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three toys side by side, as typed."""
    models, out = [zoo[method] for method in ("codi", "pause", "direct")], tmp_path_factory.mktemp("typed") / "zoo"
    with pytest.MonkeyPatch.context() as patch:
        short(patch)
        result = type_in("zoo", *models, "--out", out, *SIZE, "--device", "cpu")
    assert result.exit_code == 0, (result.output, result.exception)
    return out


def test_python_measures_the_same_zoo_and_its_folder_is_read_again(
    zoo: dict[str, Path], measured: Path, tmp_path: Path
) -> None:
    models = [str(zoo[method]) for method in ("codi", "pause", "direct")]
    called = run_study("zoo", out=tmp_path / "zoo", models=models, limit=24, hosts=6, donors=2, device="cpu")
    same_run(measured, called.path)
    assert isinstance(called, Runs) and list(called.parts) == ["toy-codi", "toy-pause"]
    assert [part.certificate.state for part in called.parts.values()] == ["passed", "passed"]
    assert called.spec.model == "toy-codi" and len(called.records()) == called.spec.n_cells
    assert stored_options(called.path)[1]["models"] == models
    page = (called.path / "zoo.md").read_text()
    (called.path / "zoo.md").unlink()
    shown = type_in("report", called.path)
    assert shown.exit_code == 0 and shown.stdout.strip() == str((called.path / "zoo.md").resolve())
    assert (called.path / "zoo.md").read_text() == page
    dry = type_in("zoo", "--like", measured, "--out", tmp_path / "x", "--dry-run")
    assert "24 of arithmetic:test; 6 hosts x 2 donors of arithmetic:test" in flat(dry.stdout), dry.output
    assert not (tmp_path / "x").exists()


def test_everything_is_measured_onto_a_page(measured: Path) -> None:
    data = json.loads((measured / "zoo.json").read_text())
    assert [model["method"] for model in data["models"]] == ["codi", "pause", "direct"]
    tables = data["tables"]
    still = [r for r in tables["positions"] if r["model"] == "toy-pause" and r["method"] in ("swap", "mean")]
    assert [r["label"] for r in still] == ["CT0", "CT1", "all"] * 2
    assert len(still) == 6 and all(r["verdict"] == "BY CONSTRUCTION" and r["acc"] == r["base_acc"] for r in still)
    assert not any(r["model"] == "toy-direct" for r in tables["positions"] + tables["lens"])
    assert {r["state"] for r in tables["probes"] if r["model"] == "toy-direct"} == {0}
    assert len(pairs := [r for r in tables["pairs"] if r["problems"] == "all"]) == 3 and pairs[0]["n"] == 24
    page = (measured / "zoo.md").read_text()
    assert "toy-direct: no slots, since it was trained to answer at once." in page
    assert "its slots carry nothing of the problem" in page


@pytest.mark.parametrize(("method", "why"), [("direct", "answer at once"), ("cot", "out in words")])
def test_verbs_about_thoughts_refuse_or_say_why(method: str, why: str, zoo: dict[str, Path], tmp_path: Path) -> None:
    model = ["--model", zoo[method], "--device", "cpu"]
    asked = type_in("think", "Tom has 3 apples. Tom buys 5 apples. How many apples does Tom have?", *model)
    assert asked.exit_code == 0, (asked.output, asked.exception)
    assert re.search(rf"is fed no thoughts: .*{why}\. What it writes:", flat(asked.stdout))
    answer = json.loads(type_in("think", "Tom has 3 apples.", *model, "--json").stdout)
    assert answer["thoughts"] == [] and why in answer["note"]
    for study in (["resampling", "--hosts", 4, "--donors", 2], ["operations", "--per-class", 2]):
        refused = type_in("run", *study, *model, "--out", tmp_path / study[0])
        assert refused.exit_code == 2, (refused.output, refused.exception)
        assert re.search(rf"no thoughts to edit or to read; got 0 thoughts, since .*{why}", flat(refused.stderr))
        assert not (tmp_path / study[0]).exists()
    checked = type_in("verify", *model, "--json")
    assert checked.exit_code == 0, (checked.output, checked.exception)
    assert why in " ".join(json.loads(checked.stdout)["notes"])
