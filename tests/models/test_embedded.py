"""The embedded models: what their folders and cards hold, and what of each kind holds by construction."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import ROOT
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.run import run
from thoughtgraft.engine.verify.suite import verify
from thoughtgraft.engine.verify.weights import fingerprint, weights
from thoughtgraft.errors import ModelError, PlanError
from thoughtgraft.models.checkpoint.audit import Fingerprint, read_fingerprint
from thoughtgraft.models.load import load_model
from thoughtgraft.models.names import EMBEDDED, model_folder
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.certificate import Check
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.training.card import markdown, read_card
from thoughtgraft.training.config import TrainingConfig

SLOTS = {"codi": 6, "coconut": 6, "pause": 6, "direct": 0, "cot": 0}
EACH = pytest.mark.parametrize("name", EMBEDDED)


@functools.cache
def loaded(name: str) -> LatentReasoner:
    return load_model(name, device="cpu", dtype="float32")


def recorded(name: str) -> Fingerprint:
    found = read_fingerprint(model_folder(name))
    assert found is not None
    return found


@functools.cache
def asked() -> ProblemSet:
    return load_problems("arithmetic:test", n=8, seed=0)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@EACH
def test_it_is_small_and_in_half_precision(name: str) -> None:
    folder = model_folder(name)
    assert size(folder) <= 3e6
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


@EACH
def test_its_card_says_what_it_is_and_belongs_to_its_weights(name: str) -> None:
    folder, method, model = model_folder(name), EMBEDDED[name], loaded(name)
    card, taken = read_card(folder), recorded(name)
    assert (card["licence"], card["method"], card["protocol"]) == ("Apache-2.0", method, "official")
    assert model.family == method and model.num_latents == SLOTS[method]
    assert card["weight_hash"] == model.weight_hash == taken.weight_hash
    assert set(card["accuracy"]) == {"arithmetic:test", "arithmetic:heldout"}
    assert [rows[0]["n"] for rows in card["accuracy"].values()] == [2000, 1000]
    # The page is the card's own: nothing was typed into it.
    assert (folder / "README.md").read_text() == markdown(name, card)
    assert f"thoughtgraft evaluate --model {name} --problems arithmetic:heldout" in markdown(name, card)


@EACH
def test_readme_and_zoo_page_quote_its_card(name: str) -> None:
    """Figures in the README's table and on the zoo's page are the card's."""
    rows = {row["condition"]: row for row in read_card(model_folder(name))["accuracy"]["arithmetic:test"]}
    main = rows.get("thoughts") or rows["answer"]
    low, high = f"{main['ci_low']:.1%}", f"{main['ci_high']:.1%}"
    others = ("0 thoughts", "all thoughts another problem's", "explicit reasoning")
    shares = [f"{rows[other]['accuracy']:.1%}" if other in rows else "–" for other in others]
    [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| [{name}](")]
    assert line.endswith(" | ".join([f"| {main['accuracy']:.1%}", f"{low} to {high}", *shares]) + " |")
    page = (ROOT / "docs" / "zoo.md").read_text()
    ends = [f"{100 * main[end]:.1f}" for end in ("ci_low", "ci_high")]
    cells = f"{main['condition']} | {main['n']:,} | {main['accuracy']:.1%} | \\[{ends[0]}, {ends[1]}\\] |"
    assert re.search(rf"^\| A\d+ \| {name} \| {re.escape(cells)}$", page, re.MULTILINE), cells


def test_all_were_trained_alike() -> None:
    cards = {name: read_card(model_folder(name)) for name in EMBEDDED}
    for fact in ("base", "data", "seed", "steps", "problems_seen"):
        assert len({card[fact] for card in cards.values()}) == 1, fact
    recipes = {name: dict(card["recipe"]) for name, card in cards.items()}
    for name, recipe in recipes.items():
        assert recipe.pop("method") == EMBEDDED[name] and recipe.pop("num_latent") == SLOTS[EMBEDDED[name]]
    assert len({json.dumps(recipe, sort_keys=True) for recipe in recipes.values()}) == 1
    # The default command makes all of them; options that are newer than the models are off in it.
    default, recipe = TrainingConfig().model_dump(), recipes["tiny-codi"]
    assert recipe == {option: default[option] for option in recipe}
    assert not any(default[option] for option in ("lora_r", "augment", "max_token_num"))


@EACH
def test_it_passes_every_check_that_its_kind_has(name: str) -> None:
    """Those before every run; without slots they are few, so all are made. tests/engine makes all on tiny-codi."""
    model = loaded(name)
    certificate = verify(model, asked()[:3], level="core" if model.num_latents else "full", answer_tokens=2)
    assert certificate.passed, [(c.name, c.figure, c.threshold, c.detail) for c in certificate.checks if not c.passed]
    for check in (weights(model), fingerprint(model, recorded(name))):
        assert isinstance(check, Check) and check.passed, check
    names = {check.name for check in certificate.checks}
    assert ("self-swap identity" in names) == (model.num_latents > 0)
    notes = " ".join(certificate.notes)
    assert (certificate.shared_slots == tuple(range(6))) == (EMBEDDED[name] == "pause")
    assert ("carries nothing of the problem" in notes) == (EMBEDDED[name] == "pause")
    assert (model.without_thoughts in notes) == (model.num_latents == 0)


def test_in_tiny_pause_a_swap_is_the_identity_and_a_zero_is_not() -> None:
    model, problems = loaded("tiny-pause"), asked()
    arms = [Arm("baseline"), *(Arm(method, (k,)) for method in ("swap", "mean") for k in range(6))]
    plan = Plan([*arms, Arm("swap", range(6)), Arm("zero", range(6))], n_donors=3)
    records = run(model, problems, plan, progress=False)
    clean = records[records.method == "baseline"].set_index("problem_id").text
    same = records[records.method.isin(["swap", "mean"])]
    assert len(same) == len(problems) * (6 * 3 + 6 + 3) and not same.changed.any() and not same.adopted.any()
    assert (same.text.to_numpy() == clean[same.problem_id].to_numpy()).all()
    zero = records[records.method == "zero"]
    # The vectors are read, in every problem: they only say nothing about it.
    assert zero.kl.min() > 10 * same.kl.max() and zero.kl.mean() > 0.1


def test_in_tiny_codi_a_swap_is_not_the_identity() -> None:
    records = run(loaded("tiny-codi"), asked(), Plan([Arm("swap", range(6))], n_donors=3), progress=False)
    assert records.changed.mean() > 0.5


@pytest.mark.parametrize("name", ["tiny-direct", "tiny-cot"])
def test_without_slots_there_is_nothing_to_edit(name: str) -> None:
    why = loaded(name).without_thoughts
    with pytest.raises(PlanError, match=r"there is no slot to edit; got slot 0, and a model that is fed no thoughts"):
        run(loaded(name), asked(), Plan([Arm("swap", (0,))], n_donors=3), progress=False)
    with pytest.raises(ModelError, match=rf"{name} is fed no thoughts: {why}; got num_latents=6"):
        load_model(name, device="cpu", num_latents=6)


@pytest.mark.parametrize("name", ["tiny-direct", "tiny-cot"])
def test_studies_of_thoughts_refuse_it_and_say_why(name: str, tmp_path: Path) -> None:
    for study in (["resampling", "--hosts", "4", "--donors", "2"], ["operations", "--per-class", "2"]):
        words = ["run", *study, "--model", name, "--device", "cpu", "--out", str(tmp_path / study[0])]
        refused = CliRunner().invoke(app, words)
        assert refused.exit_code == 2, (refused.output, refused.exception)
        said = " ".join(re.sub(r"[│┃]", " ", refused.stderr).split())
        assert f"no thoughts to edit or to read; got 0 thoughts, since {loaded(name).without_thoughts}" in said
        assert "take a model that thinks, such as tiny-codi" in said
        assert not (tmp_path / study[0]).exists()
