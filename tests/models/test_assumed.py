"""What changes answers and is in no file is named with its reason; what the user or a file says is not assumed."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.broken import BASE, COCONUT, GOLDEN, PEFT, save, whole
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.lora import LoraScale
from thoughtgraft.models.doctor.examine import diagnose
from thoughtgraft.models.load import load_model

COCONUT_BASE = COCONUT.parents[1] / "base-tiny-gpt2"


def assumed(path: Path, **options: Any) -> dict[str, str]:
    return {found.option: found.value for found in load_model(path, device="cpu", **options).assumptions}


def put(folder: Path, name: str, values: object) -> Path:
    (folder / name).write_text(json.dumps(values))
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return save(tmp_path / "made", whole())


def test_a_raw_checkpoint_leaves_three_things_to_assume(raw: Path) -> None:
    assert assumed(raw) == {
        "--num-latents": "6",
        "--lora-alpha": "32",
        "--prompt-suffix": "nothing between question and begin-of-thought",
    }
    reasons = {found.option: found.why for found in load_model(raw).assumptions}
    assert "published CODI models were trained with 6" in reasons["--num-latents"]
    assert "CODI's own default is 16" in reasons["--lora-alpha"]
    assert "remove_eos" in reasons["--prompt-suffix"]


def test_what_the_user_says_is_not_assumed(raw: Path) -> None:
    assert assumed(raw, num_latents=6, lora_alpha=32, prompt_suffix="") == {}
    assert assumed(raw, num_latents=3, prompt_suffix=" ?") == {"--lora-alpha": "32"}


@pytest.mark.parametrize(
    ("file", "values", "found"),
    [
        ("card.json", {"recipe": {"num_latent": 4, "lora_alpha": 8.0}}, {}),
        ("codi_config.json", {"training_details": {"num_latent": 4, "lora_alpha": 8, "remove_eos": True}}, {}),
        ("training_args.json", {"num_latent": 4, "lora_alpha": 8, "remove_eos": True}, {}),
        ("adapter_config.json", {"lora_alpha": 8, "r": 8}, {"--num-latents", "--prompt-suffix"}),
    ],
)
def test_files_beside_the_weights_are_read(raw: Path, file: str, values: dict[str, Any], found: set[str]) -> None:
    put(raw, file, values)
    assert set(assumed(raw)) == set(found)
    model = load_model(raw)
    assert model.checkpoint.lora_alpha == 8
    if "--num-latents" not in found:
        assert model.num_latents == 4


@pytest.mark.parametrize("value", ["six", -1, True, 10**9, 2.5, None, [6]])
def test_a_number_that_is_none_is_not_taken(raw: Path, value: object) -> None:
    put(raw, "codi_config.json", {"num_latent": value, "lora_alpha": "much" if value is None else -3})
    assert assumed(raw)["--num-latents"] == "6"
    assert assumed(raw)["--lora-alpha"] == "32"


def test_files_that_disagree_are_named(raw: Path) -> None:
    put(raw, "card.json", {"num_latent": 4})
    put(raw, "config.json", json.loads((raw / "config.json").read_text()) | {"num_latent": 5})
    [found] = [a for a in load_model(raw).assumptions if a.option == "--num-latents"]
    assert (found.value, found.why) == ("4", "files disagree: card.json says 4, config.json says 5")


def test_a_trainers_step_is_described_by_the_folder_around_it(tmp_path: Path) -> None:
    step = save(tmp_path / "run" / "checkpoint-50", whole())
    put(tmp_path / "run", "codi_config.json", {"num_latent": 3, "remove_eos": True, "lora_alpha": 16})
    assert assumed(step) == {}
    assert load_model(step).num_latents == 3


def test_an_alpha_beside_the_weights_acts_as_the_same_alpha_given(raw: Path) -> None:
    given = load_model(raw, lora_alpha=16)
    put(raw, "adapter_config.json", {"peft_type": "LORA", "r": 8, "lora_alpha": 16})
    read = load_model(raw)
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(read.lm.get_parameter(name), given.lm.get_parameter(name))
    assert read.weight_hash == given.weight_hash != load_model(raw, lora_alpha=32).weight_hash
    assert read.audit().wrong == ()
    again = load_model(raw, lora_alpha=24)
    assert again.checkpoint.notes == ("adapter_config.json says LoRA alpha 16; 24 was given",)


def test_rank_stabilised_and_single_modules_alphas_are_peft_s(raw: Path) -> None:
    config = {"r": 8, "lora_alpha": 16, "use_rslora": True, "alpha_pattern": {"layers.1.mlp.up_proj": 4, "q_proj": 2}}
    put(raw, "adapter_config.json", config)
    model, state = load_model(raw), whole()
    root = 8**0.5
    for module, scale in (
        ("model.layers.1.mlp.up_proj", 4 / root),
        ("model.layers.0.self_attn.q_proj", 2 / root),
        ("model.layers.0.mlp.up_proj", 16 / root),
    ):
        base, low, high = (
            state[f"{PEFT}{module}.{part}.weight"].double()
            for part in ("base_layer", "lora_A.default", "lora_B.default")
        )
        wanted = (base + scale * high @ low).float()
        torch.testing.assert_close(model.lm.get_parameter(f"{module}.weight").data, wanted, rtol=1e-6, atol=1e-6)
    assert model.audit().wrong == ()
    plain = put(raw, "adapter_config.json", {"r": 8, "lora_alpha": 16})
    assert load_model(plain).weight_hash != model.weight_hash


def test_scales_are_found_by_the_end_of_a_modules_name() -> None:
    scale = LoraScale(32, others=(("q_proj", 8),))
    assert scale.of("model.layers.0.self_attn.q_proj", 4) == 2
    assert scale.of("model.layers.0.self_attn.eq_proj", 4) == 8
    assert str(scale) == "32, 8 for q_proj"
    assert str(LoraScale(16, True)) == "16, rank-stabilised"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"r": 128, "lora_alpha": 16}, r"another adapter's.*got LoRA pairs of rank 8; expected rank 128.*--lora-alpha"),
        ({"r": 8, "lora_alpha": 16, "alpha_pattern": {"(a+)+$": 4}}, r"alpha_pattern.*cannot be followed.*\(a\+\)\+\$"),
        ({"r": 8, "lora_alpha": 16, "alpha_pattern": {"q_proj": "x"}}, "cannot be followed"),
    ],
)
def test_an_adapter_config_that_cannot_be_followed_is_refused(raw: Path, config: dict[str, Any], words: str) -> None:
    put(raw, "adapter_config.json", config)
    with pytest.raises(CheckpointError, match=words):
        load_model(raw)
    assert load_model(raw, lora_alpha=16).checkpoint.lora_alpha == 16
    assert not diagnose(raw).loads


def test_weights_trained_with_the_end_of_sequence_in_the_prompt_are_asked_about(raw: Path) -> None:
    put(raw, "codi_config.json", {"training_details": {"remove_eos": False}})
    with pytest.raises(CheckpointError, match=r"remove_eos false.*--prompt-suffix '<eos>' asks so.*--prompt-suffix ''"):
        load_model(raw)
    assert not diagnose(raw).loads
    model = load_model(raw, prompt_suffix="<eos>")
    plain = load_model(raw, prompt_suffix="")
    assert model.question_ids("Ben has 26 books .") == [*plain.question_ids("Ben has 26 books .")[:-1], 1, 104]
    assert model.model_hash != plain.model_hash


def test_a_prompt_ending_is_told_as_it_is_read_and_refused_where_it_is_unknown(raw: Path) -> None:
    model = load_model(raw, prompt_suffix="<eos>")
    assert model.read[-1] == "prompt ending '<eos>' is read as <eos> (1)"
    assert load_model(raw, prompt_suffix="").read[-1] == "prompt ending '' is read as no token"
    with pytest.raises(CheckpointError, match=r"does not know a part of the prompt ending; got '<\|eot_id\|>'.*<eos>"):
        load_model(raw, prompt_suffix="<|eot_id|>")


def test_coconuts_prompt_ends_in_a_line_break_unless_said_otherwise() -> None:
    model = load_model(COCONUT, base=COCONUT_BASE)
    assert model.prompt_suffix == "\n"
    [found] = [a for a in model.assumptions if a.option == "--prompt-suffix"]
    assert "'\\n' between" in found.value
    other = load_model(COCONUT, base=COCONUT_BASE, prompt_suffix="<eos>")
    question = "Ben has 26 books ."
    assert other.question_ids(question) == [*other.tokenizer(question)["input_ids"], 1, 104]


def test_simcots_coconut_has_its_authors_ten_thoughts(tmp_path: Path) -> None:
    state = torch.load(COCONUT, weights_only=True)
    twin = {f"expainable_llm.{k.removeprefix('base_causallm.')}": v for k, v in state.items() if k.startswith("base")}
    torch.save(state | twin, tmp_path / "checkpoint_28")
    for name, values in (("decoder inside", state | twin), ("SIM_COT-GPT2-Coconut", state)):
        (tmp_path / name).mkdir()
        torch.save(values, tmp_path / name / "checkpoint_28")
        model = load_model(tmp_path / name, base=COCONUT_BASE)
        [found] = [a for a in model.assumptions if a.option == "--num-latents"]
        assert (model.num_latents, found.value) == (10, "10")
        assert "five stages of two" in found.why
    assert load_model(COCONUT, base=COCONUT_BASE).num_latents == 6


def test_the_dtype_and_the_end_of_answers_are_said_where_files_differ(tmp_path: Path) -> None:
    folder = save(tmp_path / "made", {name: value.bfloat16() for name, value in whole().items()})
    put(folder, "config.json", json.loads((BASE / "config.json").read_text()) | {"eos_token_id": [7, 8]})
    reasons = {found.option: found for found in load_model(folder, device="cpu").assumptions}
    assert (reasons["--dtype"].value, "stored as bfloat16" in reasons["--dtype"].why) == ("float32", True)
    assert (reasons["--tokenizer"].value, "names 7, 8" in reasons["--tokenizer"].why) == ("<eos> (1)", True)
    assert "--dtype" not in assumed(folder, dtype="float32")


def test_models_of_this_project_leave_nothing_to_assume() -> None:
    for name in ("tiny-codi", "tiny-coconut", "tiny-pause", "tiny-direct", "tiny-cot"):
        assert load_model(name, device="cpu").assumptions == (), name


def test_a_run_says_what_it_assumed_at_its_start_in_its_folder_and_on_its_first_screen(raw: Path) -> None:
    asked = json.loads((GOLDEN / "codi-llama" / "expected.json").read_text())["questions"]
    rows = [json.dumps({"question": question, "answer": "12"}) for question in asked[:6]]
    (raw / "asked.jsonl").write_text("\n".join(rows))
    out = raw / "run"
    command = ["run", "resampling", "--model", str(raw), "--problems", str(raw / "asked.jsonl"), "--out", str(out)]
    command += ["--hosts", "3", "--donors", "1", "--max-new-tokens", "2", "--certify", "off", "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, "--num-latents", "2"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("assumed: ") == 2
    kept = json.loads((out / "run.json").read_text())["provenance"]
    assert [found["what"] for found in kept["assumed"]] == ["LoRA alpha", "prompt ending"]
    assert kept["read"] == ["weights: pytorch_model.bin"]
    for page, first in (("report.md", "## "), ("report.html", "<h2>")):
        screen = html.unescape((out / page).read_text()).partition(first)[0]
        assert "Assumed of the model, since no file or option says it: LoRA alpha: 32 (raw checkpoints" in screen, page
        assert "number of thoughts" not in screen


def test_doctor_and_commands_say_what_is_assumed(raw: Path) -> None:
    run = CliRunner().invoke
    said = run(app, ["doctor", str(raw)])
    assert said.exit_code == 0
    for option in ("--num-latents", "--lora-alpha", "--prompt-suffix"):
        assert f"({option} sets it)" in said.stdout
    listed = json.loads(run(app, ["doctor", str(raw), "--json"]).stdout)["assumptions"]
    assert [found["what"] for found in listed] == ["number of thoughts", "LoRA alpha", "prompt ending"]
    asked = run(app, ["think", "Ben has 26 books .", "--model", str(raw), "--device", "cpu"])
    assert asked.exit_code == 0, asked.output
    assert asked.stderr.count("assumed: ") == 3
    told = ["--num-latents", "6", "--lora-alpha", "32", "--prompt-suffix", ""]
    quiet = run(app, ["think", "Ben has 26 books .", "--model", str(raw), "--device", "cpu", *told])
    assert (quiet.exit_code, quiet.stderr.count("assumed")) == (0, 0), quiet.output
    assert quiet.stdout == asked.stdout
