"""LoRA training: the base stays as it was, and the adapter loads as CODI's official raw format does."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.errors import CheckpointError, ModelError
from thoughtgraft.models.checkpoint.adapter import DESCRIPTION, ROWS, WEIGHTS, write_official
from thoughtgraft.models.lm import load_language_model
from thoughtgraft.models.load import load_model
from thoughtgraft.tasks.sets.arithmetic import arithmetic
from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.lora import GrownEmbedding, GrownHead
from thoughtgraft.training.recipe import (
    load_base,
    make_encoder,
    make_objective,
    prepare,
    tiny_lm,
    tiny_tokenizer,
    train,
)
from thoughtgraft.training.trainer import make_optimizers

CPU = torch.device("cpu")
RECIPE = TrainingConfig(
    teacher_steps=1,
    max_steps=3,
    per_device_train_batch_size=8,
    learning_rate=2e-2,
    lora_r=4,
    optim="adamw",
    bf16=False,
    save_steps=2,
    eval_steps=100,
    logging_steps=1,
)
VALIDATION = arithmetic("validation")[:8]
DATA = prepare(arithmetic("test")[:64], VALIDATION, None, RECIPE)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny_tokenizer()
    tiny_lm(len(tokenizer), seed=5).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("lora")
    return train(str(base), DATA, VALIDATION, RECIPE, out, CPU)


def answers(model, problems):
    return collect_thoughts(model, problems).texts


def test_a_grown_embedding_and_its_head_are_a_larger_tied_matrix():
    base = nn.Embedding(5, 3)
    grown = GrownEmbedding(base, 2)
    whole = torch.cat([base.weight, grown.rows])
    ids, states = torch.tensor([[0, 6, 4], [5, 1, 6]]), torch.randn(2, 3)
    assert torch.equal(grown(ids), whole[ids])
    assert torch.allclose(GrownHead(grown)(states), states @ whole.T)
    grown(ids).sum().backward()
    assert base.weight.grad is None
    assert grown.rows.grad.tolist() == [[1.0] * 3, [2.0] * 3]


def test_the_base_is_not_touched_and_everything_that_is_learned_moves(base, adapter):
    learned = load_file(adapter / WEIGHTS)
    assert learned[ROWS].shape == (3, 128)
    pairs = [name for name in learned if ".lora_B." in name]
    assert len(pairs) == 7 * 4
    assert all(learned[name].abs().max() > 0 for name in pairs)  # B starts at zero
    assert json.loads((adapter / DESCRIPTION).read_text())["base_hash"] == load_language_model(str(base)).weight_hash
    start = load_base(str(base), RECIPE)
    assert not torch.equal(learned[ROWS].float(), start.lm.get_input_embeddings().rows)


def test_a_resumed_training_ends_in_the_same_adapter(base, adapter, tmp_path):
    state = torch.load(adapter.parent / "state.pt", weights_only=True)
    assert state["step"] == RECIPE.total_steps
    assert all("base" not in name for name in state["objective"])

    class Stop(Exception):
        pass

    def stopping(*args):
        raise Stop

    from thoughtgraft.training.trainer import Trainer

    original = Trainer.save
    try:
        Trainer.save = lambda self: (original(self), stopping())
        with pytest.raises(Stop):
            train(str(base), DATA, VALIDATION, RECIPE, tmp_path, CPU)
    finally:
        Trainer.save = original
    again = load_file(train(str(base), DATA, VALIDATION, RECIPE, tmp_path, CPU) / WEIGHTS)
    first = load_file(adapter / WEIGHTS)
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_the_official_raw_format_gives_the_same_answers(adapter, tmp_path):
    ours = load_model(adapter, device="cpu")
    official = load_model(write_official(adapter, tmp_path / "official"), device="cpu")
    assert ours.weight_hash == official.weight_hash
    problems = arithmetic("test")[:20]
    assert answers(ours, problems) == answers(official, problems)
    names = set(load_file(tmp_path / "official" / "model.safetensors"))
    layer = "codi.base_model.model.model.layers.0.self_attn.q_proj"
    assert {f"{layer}.base_layer.weight", f"{layer}.lora_A.default.weight", "prj.ln.bias"} <= names
    assert "codi.base_model.model.model.embed_tokens.weight" in names


def test_another_alpha_is_multiplied_into_the_official_format(base, tmp_path):
    recipe = RECIPE.model_copy(update={"lora_alpha": 8.0})
    adapter = train(str(base), DATA, VALIDATION, recipe, tmp_path / "run", CPU)
    ours = load_model(adapter, device="cpu", dtype="float64")
    official = load_model(write_official(adapter, tmp_path / "official"), device="cpu", dtype="float64")
    assert (ours.checkpoint.lora_alpha, official.checkpoint.lora_alpha) == (8.0, 32.0)
    for (name, a), (_, b) in zip(ours.lm.named_parameters(), official.lm.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_muon_leaves_the_added_rows_to_adamw(base):
    recipe = RECIPE.model_copy(update={"optim": "muon"})
    start = load_base(str(base), recipe)
    objective = make_objective(start, make_encoder(start, recipe), recipe)
    adamw, muon = (
        {id(p) for group in optimizer.param_groups for p in group["params"]}
        for optimizer in make_optimizers(objective, recipe)
    )
    rows = id(start.lm.get_input_embeddings().rows)
    assert rows in adamw and rows not in muon and muon


def test_an_adapter_passes_its_audit(adapter):
    model = load_model(adapter, device="cpu")
    found = model.audit()
    assert not found.wrong
    assert found.same_hash
    assert found.projects


def test_an_adapter_whose_base_was_moved_is_audited_where_it_lies_now(base, adapter, tmp_path):
    shutil.copytree(base, tmp_path / "moved")
    shutil.copytree(adapter, tmp_path / "adapter")
    fields = json.loads((adapter / DESCRIPTION).read_text())
    (tmp_path / "adapter" / DESCRIPTION).write_text(json.dumps(fields | {"base": str(tmp_path / "gone")}))
    found = load_model(tmp_path / "adapter", base=tmp_path / "moved", device="cpu").audit()
    assert not found.wrong and found.same_hash


def test_another_base_is_refused(adapter, tmp_path):
    tokenizer = tiny_tokenizer()
    tiny_lm(len(tokenizer), seed=6).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"is not the one that .* was trained on"):
        load_model(adapter, base=tmp_path, device="cpu")


def test_a_wrong_field_of_an_adapters_description_is_named(adapter, tmp_path):
    save_file(load_file(adapter / WEIGHTS), tmp_path / WEIGHTS)
    fields = json.loads((adapter / DESCRIPTION).read_text())
    (tmp_path / DESCRIPTION).write_text(json.dumps(fields | {"lora_alpha": "much"}))
    with pytest.raises(CheckpointError, match=r"does not describe an adapter; got lora_alpha: Input should be a valid"):
        load_model(tmp_path, device="cpu")


def test_an_incomplete_adapter_is_refused(adapter, tmp_path):
    save_file({"prj.1.weight": torch.zeros(2, 2)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"does not describe an adapter.*base_hash"):
        load_model(tmp_path, device="cpu")
    (tmp_path / DESCRIPTION).write_text((adapter / DESCRIPTION).read_text())
    with pytest.raises(CheckpointError, match=r"holds no embedding\.rows"):
        load_model(tmp_path, device="cpu")
    tensors = load_file(adapter / WEIGHTS)
    removed = next(name for name in tensors if "layers.2.mlp.up_proj.lora_A" in name)
    save_file({name: value for name, value in tensors.items() if name != removed}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"1 missing: codi\.base_model.*layers\.2\.mlp\.up_proj\.lora_A"):
        load_model(tmp_path, device="cpu")


def test_lora_on_random_weights_is_refused():
    with pytest.raises(ModelError, match=r"LoRA adapts a trained model.*--base tiny --lora-r 4"):
        load_base("tiny", RECIPE)


def test_an_unknown_base_says_what_it_could_be(tmp_path):
    with pytest.raises(ModelError, match=r"cannot be loaded.*smollm2, a hub id or a directory"):
        load_language_model(str(tmp_path))


def test_what_is_validated_on_or_held_out_is_not_trained_on():
    problems = arithmetic("test")[:12]
    chosen = prepare(problems, problems[:3], problems[3:5], RECIPE)
    assert {p.id for p in chosen.problems} == {p.id for p in problems[5:]}
    assert [overlap.same for overlap in chosen.overlaps] == [True, True]


def test_export_writes_the_official_format_and_refuses_what_is_no_adapter(adapter, tmp_path):
    done = CliRunner().invoke(app, ["export", str(adapter), "--out", str(tmp_path / "official")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "official" / "model.safetensors").is_file()
    again = CliRunner().invoke(app, ["export", str(adapter), "--out", str(tmp_path / "official")])
    assert again.exit_code == 2 and "official is not empty" in again.output
    refused = CliRunner().invoke(app, ["export", str(tmp_path), "--out", str(tmp_path / "other")])
    assert refused.exit_code != 0
    assert "is not an adapter" in refused.output
    assert "Traceback" not in refused.output
