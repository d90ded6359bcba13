"""Sound weights load equal however they were wrapped, named or stored; what cannot load says why, and what helps.

Doctor and loader are asked together, so that they cannot disagree.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.models.broken import GOLDEN

from thoughtgraft.errors import CheckpointError, ThoughtgraftError
from thoughtgraft.models.doctor.examine import diagnose
from thoughtgraft.models.load import load_model
from thoughtgraft.models.reasoner import LatentReasoner

State = dict[str, Any]
MARK = Path(__file__).with_name("executed")


class Runs:
    """Unpickling it would create a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (MARK,)


LLAMA, GPT2, COCONUT = "codi-llama", "codi-gpt2", "coconut-gpt2"
Q_A = "codi.base_model.model.model.layers.0.self_attn.q_proj.lora_A"


def base(family: str) -> Path:
    return next((GOLDEN / family).glob("base-*"))


def state_of(family: str) -> State:
    [file] = (GOLDEN / family / "checkpoint").iterdir()
    return {name: value.clone() for name, value in torch.load(file, weights_only=True).items()}


def put(folder: Path, family: str = LLAMA) -> Path:
    """A folder with the base's config and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in base(family).glob("*.json"):
        shutil.copy(path, folder / path.name)
    return folder


def save(folder: Path, state: object, family: str = LLAMA, name: str = "pytorch_model.bin") -> Path:
    put(folder, family)
    if name.endswith(".safetensors"):
        assert isinstance(state, dict)
        save_file({key: value.contiguous().clone() for key, value in state.items()}, folder / name)
    else:
        torch.save(state, folder / name)
    return folder


def before(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def without(state: State, *endings: str) -> State:
    return {name: value for name, value in state.items() if not name.endswith(endings)}


def both(path: Path, **options: Any) -> LatentReasoner:
    """The model, from a loader and a doctor that agree; the audit reads the files again."""
    model = load_model(path, device="cpu", **options)
    diagnosis = diagnose(path, **options)
    assert diagnosis.loads, diagnosis.findings
    assert diagnosis.assumptions == model.assumptions
    audit = model.audit()
    assert audit is not None
    assert (audit.wrong, audit.same_hash, audit.projects) == ((), True, True)
    return model


def refused(path: Path, **options: Any) -> str:
    """What both say."""
    with pytest.raises(ThoughtgraftError) as caught:
        load_model(path, device="cpu", **options)
    diagnosis = diagnose(path, **options)
    assert not diagnosis.loads
    assert diagnosis.findings[0].what == caught.value.what
    assert caught.value.fix
    return str(caught.value)


@cache
def sound_model(family: str) -> LatentReasoner:
    [file] = (GOLDEN / family / "checkpoint").iterdir()
    return load_model(file, base=base(family), device="cpu")


def same(model: LatentReasoner, family: str) -> None:
    """Every parameter, and the prompt, are the sound checkpoint's."""
    sound = sound_model(family)
    for ours, theirs in zip(model.parts, sound.parts, strict=True):
        state = theirs.state_dict()
        assert list(ours.state_dict()) == list(state)
        for name, value in ours.state_dict().items():
            assert torch.equal(value, state[name]), name
    assert model.question_ids("Ben has 26 books .") == sound.question_ids("Ben has 26 books .")
    assert (model.num_latents, model.decoding.ends, model.pad_id) == (
        sound.num_latents,
        sound.decoding.ends,
        sound.pad_id,
    )


# --- names: wrappers, adapters, tied tensors


@pytest.mark.parametrize("family", [LLAMA, COCONUT])
@pytest.mark.parametrize(
    "wrapper", ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "model._orig_mod.", "net.student.", "coconut."]
)
def test_what_a_wrapper_puts_before_names_is_taken_off(tmp_path: Path, wrapper: str, family: str) -> None:
    if (family, wrapper) == (LLAMA, "coconut."):
        pytest.skip("the early name of CODI itself")
    path = save(tmp_path / "made", before(wrapper, state_of(family)), family)
    model = both(path)
    same(model, family)
    assert any("taken off the tensors' names" in note for note in model.read)
    assert model.weight_hash == load_model(save(tmp_path / "bare", state_of(family), family)).weight_hash


@pytest.mark.parametrize("inside", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_what_a_wrapper_puts_inside_names_is_taken_out(tmp_path: Path, inside: str) -> None:
    state = {name.replace("layers.1.", f"layers.1.{inside}"): value for name, value in state_of(LLAMA).items()}
    same(both(save(tmp_path / "made", before(inside, state))), LLAMA)


def test_a_wrapper_around_a_part_of_the_names_only_is_no_wrapper(tmp_path: Path) -> None:
    state = state_of(LLAMA) | {"module.codi.extra.weight": torch.ones(2)}
    assert "1 unexpected: module.codi.extra.weight" in refused(save(tmp_path / "made", state))
    state = before("module.", state_of(LLAMA)) | {"loss.weight": torch.ones(2)}
    assert "1 unexpected: loss.weight" in refused(save(tmp_path / "other", state))
    twice = before("_orig_mod.", state_of(LLAMA)) | state_of(LLAMA)
    assert "twice, under the names of two wrappers" in refused(save(tmp_path / "twice", twice))


@pytest.mark.parametrize("adapter", ["", "codi.", "adapter_0."])
def test_lora_pairs_are_found_under_any_adapters_name(tmp_path: Path, adapter: str) -> None:
    renamed = {name.replace(".default.weight", f".{adapter}weight"): v for name, v in state_of(LLAMA).items()}
    assert f"{Q_A}.{adapter}weight" in renamed
    model = both(save(tmp_path / "made", renamed))
    same(model, LLAMA)
    assert model.weight_hash == load_model(save(tmp_path / "bare", state_of(LLAMA))).weight_hash


def test_two_adapters_are_named(tmp_path: Path) -> None:
    state = state_of(LLAMA)
    state[f"{Q_A}.second.weight"] = state[f"{Q_A}.default.weight"]
    assert "2 LoRA adapters; got default, second; expected one" in refused(save(tmp_path / "made", state))
    state = state_of(LLAMA)
    state[f"{Q_A}.weight"] = state[f"{Q_A}.default.weight"]
    assert "twice" in refused(save(tmp_path / "other", state))


@pytest.mark.parametrize("kind", ["mlp.up_proj.lora_magnitude_vector.weight", "mlp.up_proj.lora_embedding_A.default"])
def test_adapters_of_other_kinds_are_to_be_merged_first(tmp_path: Path, kind: str) -> None:
    state = state_of(LLAMA) | {f"codi.base_model.model.model.layers.0.{kind}": torch.ones(2)}
    said = refused(save(tmp_path / "made", state))
    assert kind in said
    assert "merge_and_unload()" in said


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("family", "dropped"),
    [
        (GPT2, "wte.weight"),
        (LLAMA, "embed_tokens.weight"),
        (GPT2, "lm_head.weight"),
        (COCONUT, ".wte.weight"),
        (COCONUT, "embedding.weight"),
        (COCONUT, ("embedding.weight", "lm_head.weight")),
        (COCONUT, ("embedding.weight", ".wte.weight")),
        (COCONUT, ("lm_head.weight", ".wte.weight")),
    ],
)
def test_one_name_of_tied_tensors_is_enough(
    tmp_path: Path, family: str, dropped: str | tuple[str, ...], kind: str
) -> None:
    state = without(state_of(family), *([dropped] if isinstance(dropped, str) else dropped))
    same(both(save(tmp_path / "made", state, family, kind)), family)


def test_no_name_of_tied_tensors_is_not(tmp_path: Path) -> None:
    state = without(state_of(LLAMA), "embed_tokens.weight", "lm_head.weight")
    assert "holds no token embedding" in refused(save(tmp_path / "made", state))
    path = save(tmp_path / "untied", without(state_of(LLAMA), "embed_tokens.weight"))
    config = json.loads((path / "config.json").read_text()) | {"tie_word_embeddings": False}
    (path / "config.json").write_text(json.dumps(config))
    assert "1 missing: codi.base_model.model.model.embed_tokens.weight" in refused(path)


# --- files: wrapped dicts, things beside the tensors, other names, several files


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"state_dict": before("model.", s), "epoch": 3, "pytorch-lightning_version": "2.1"},
        lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1}]}},
        lambda s: {"checkpoint": {"state_dict": s, "args": {"lr": 0.1}}, "loss": torch.tensor(0.5)},
        lambda s: {"model": s, "head": {"extra.weight": torch.ones(2)}},
        lambda s: s | {"best": np.float64(0.43), "epoch": 3, "name": "a"},
        lambda s: s | {"scores": np.arange(5), "last": np.int64(2), "flag": np.bool_(True)},
        lambda s: {"model": s, "history": [np.float32(0.5), np.float64(0.1)]},
        lambda s: {"module": s, "optimizer": None, "buffer_names": [], "shapes": [torch.Size([3])]},
        lambda s: {
            "model_state_dict": s,
            "args": argparse.Namespace(lr=1),
            "at": datetime(2026, 1, 1),
            "to": Path("a"),
        },
    ],
)
def test_the_state_dict_is_found_in_what_was_saved_around_it(
    tmp_path: Path, wrap: Callable[[State], State], older: bool
) -> None:
    folder = put(tmp_path / "made")
    torch.save(wrap(state_of(LLAMA)), folder / "pytorch_model.bin", _use_new_zipfile_serialization=not older)
    model = both(folder)
    same(model, LLAMA)
    assert any("passed over what lies beside the tensors" in note for note in model.read)


def test_two_models_in_one_file_are_not_chosen_between(tmp_path: Path) -> None:
    path = save(tmp_path / "made", {"model": state_of(LLAMA), "ema": state_of(LLAMA)})
    assert "holds 2 state dicts; got tensors in model, ema" in refused(path)


def test_numpys_names_in_a_pickle_run_none_of_numpys_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: object, **__: object) -> None:
        raise AssertionError("numpy was called")

    path = save(tmp_path / "made", state_of(LLAMA) | {"best": np.float64(0.43), "all": np.zeros(4)})
    monkeypatch.setattr(np._core.multiarray, "scalar", called)
    monkeypatch.setattr(np._core.multiarray, "_reconstruct", called)
    both(path)


def test_code_beside_the_tensors_is_still_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "made", {"model": state_of(LLAMA), "hook": Runs()})
    assert "holds pickled code" in refused(path)
    assert not MARK.exists()


@pytest.mark.parametrize(
    "name", ["model.pt", "consolidated.00.pth", "last.ckpt", "codi.bin", "weights.safetensors", "checkpoint_12"]
)
def test_a_weight_file_of_any_name_is_read(tmp_path: Path, name: str) -> None:
    same(both(save(tmp_path / "made", state_of(LLAMA), LLAMA, name)), LLAMA)


def test_a_trainers_other_files_are_no_weights(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint-500", state_of(LLAMA))
    torch.save({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}, folder / "optimizer.pt")
    for name in ("training_args.bin", "scheduler.pt", "scaler.pt", "rng_state.pth"):
        torch.save({"x": 1}, folder / name)
    model = both(folder)
    same(model, LLAMA)
    assert model.read == ("weights: pytorch_model.bin",)


def test_the_folder_around_steps_names_them(tmp_path: Path) -> None:
    for step in (500, 1000):
        save(tmp_path / "run" / f"checkpoint-{step}", state_of(LLAMA))
    said = refused(tmp_path / "run")
    assert "but folders inside it do; got checkpoint-500, checkpoint-1000" in said
    assert f"such as {tmp_path / 'run' / 'checkpoint-1000'}" in said


def test_the_hubs_cache_names_its_snapshot(tmp_path: Path) -> None:
    snapshot = save(tmp_path / "hub" / "models--zen-E--CODI-gpt2" / "snapshots" / "abc", state_of(LLAMA))
    for folder in (tmp_path / "hub", tmp_path / "hub" / "models--zen-E--CODI-gpt2"):
        assert f"pass the folder that you mean, such as {snapshot}" in refused(folder)
    same(both(snapshot), LLAMA)


def test_of_a_base_and_a_reasoner_in_one_folder_the_reasoner_is_read_and_the_base_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "made", state_of(LLAMA))
    shutil.copy(base(LLAMA) / "model.safetensors", folder / "model.safetensors")
    model = both(folder)
    same(model, LLAMA)
    assert "read pytorch_model.bin; beside it lies model.safetensors (no latent reasoner)" in model.read
    assert not [found for found in model.assumptions if found.what == "weight file"]


def test_of_two_reasoners_in_one_folder_the_standard_file_is_read_and_the_other_said(tmp_path: Path) -> None:
    folder = save(tmp_path / "made", state_of(LLAMA), name="model.safetensors")
    torch.save({name: value * 0 for name, value in state_of(LLAMA).items()}, folder / "pytorch_model.bin")
    model = both(folder)
    same(model, LLAMA)
    [found] = [found for found in model.assumptions if found.what == "weight file"]
    assert found.value == "model.safetensors"
    assert "pytorch_model.bin" in found.why


def test_of_several_reasoners_without_a_standard_name_none_is_chosen(tmp_path: Path) -> None:
    for name in ("step9.pt", "step10.pt"):
        save(tmp_path / "made", state_of(LLAMA), name=name)
    said = refused(tmp_path / "made")
    assert "the checkpoints of several models; got step9.pt, step10.pt; expected one" in said
    assert "step10.pt" in said.rpartition("Fix:")[2]


def test_a_broken_file_beside_a_sound_one_is_named_and_passed_over(tmp_path: Path) -> None:
    folder = save(tmp_path / "made", state_of(LLAMA), name="codi.pt")
    (folder / "pytorch_model.bin").write_bytes(b"nothing")
    model = both(folder)
    same(model, LLAMA)
    assert any("pytorch_model.bin (not readable" in note for note in model.read)


def test_shards_with_an_empty_config_need_the_base_and_load_with_it(tmp_path: Path) -> None:
    folder, state = put(tmp_path / "made"), state_of(LLAMA)
    names, weight_map = sorted(state), {}
    for i in range(2):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        part = {name: state[name].contiguous().clone() for name in names[i::2]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text("")
    said = refused(folder)
    assert "config.json: empty (0 bytes)" in said
    assert "pass --base" in said
    same(both(folder, base=str(base(LLAMA))), LLAMA)


@pytest.mark.parametrize("missing", [False, True])
def test_shards_without_their_index_are_one_model(tmp_path: Path, missing: bool) -> None:
    folder, state = put(tmp_path / "made"), state_of(LLAMA)
    names = sorted(state)
    for i in range(3):
        part = {name: state[name].contiguous().clone() for name in names[i::3]}
        save_file(part, folder / f"model-0000{i + 1}-of-00003.safetensors")
    if missing:
        (folder / "model-00002-of-00003.safetensors").unlink()
        assert "holds 2 of 3 shards and no index of them" in refused(folder)
    else:
        same(both(folder), LLAMA)


def test_a_link_out_of_the_folder_is_passed_over_where_it_is_not_the_model(tmp_path: Path) -> None:
    folder = save(tmp_path / "made", state_of(LLAMA))
    (folder / "other.pt").symlink_to(base(LLAMA) / "model.safetensors")
    same(both(folder), LLAMA)
    (folder / "pytorch_model.bin").unlink()
    assert "is a link out of its folder" in refused(folder)


def test_folders_with_files_of_any_name_are_named_too(tmp_path: Path) -> None:
    save(tmp_path / "run" / "global_step9", {"module": state_of(LLAMA)}, name="mp_rank_00_model_states.pt")
    save(tmp_path / "run" / "global_step10", {"module": state_of(LLAMA)}, name="mp_rank_00_model_states.pt")
    (tmp_path / "run" / "latest").write_text("global_step10")
    assert f"such as {tmp_path / 'run' / 'global_step10'}" in refused(tmp_path / "run")
    same(both(tmp_path / "run" / "global_step10"), LLAMA)


@pytest.mark.parametrize("byte", [b"\xff", b"\x00", b"6", b"\xdc"])
@pytest.mark.parametrize("place", ["header", "directory"])
def test_a_damaged_name_inside_a_zip_is_damage(tmp_path: Path, place: str, byte: bytes) -> None:
    file = save(tmp_path / "made", state_of(LLAMA)) / "pytorch_model.bin"
    content = bytearray(file.read_bytes())
    name = b"pytorch_model/data.pkl"
    at = content.find(name) if place == "header" else content.rfind(name)
    content[at : at + 1] = byte
    file.write_bytes(bytes(content))
    refused(file.parent)


# --- what is in the tensors: dtypes, projections, rows, numbers


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")])
@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_half_precision_loads_and_says_what_it_is_computed_in(
    tmp_path: Path, dtype: torch.dtype, name: str, kind: str
) -> None:
    path = save(tmp_path / "made", {key: value.to(dtype) for key, value in state_of(LLAMA).items()}, name=kind)
    model = both(path)
    [found] = [found for found in model.assumptions if found.option == "--dtype"]
    assert (model.dtype_name, found.value) == ("float32", "float32")
    assert f"stored as {name}" in found.why


def test_a_projection_without_its_norm_is_one(tmp_path: Path) -> None:
    state = {name: value for name, value in state_of(LLAMA).items() if not name.startswith("prj.ln")}
    model = both(save(tmp_path / "made", state))
    assert any("prj ends without a LayerNorm" in note for note in model.read)
    x = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
    inner = torch.nn.functional.gelu(x @ state["prj.1.weight"].T + state["prj.1.bias"])
    wanted = inner @ state["prj.3.weight"].T + state["prj.3.bias"]
    torch.testing.assert_close(model.project(x, 0), wanted)


@pytest.mark.parametrize("lost", ["prj.ln.weight", "prj.ln.bias", "prj.3.bias"])
def test_half_a_projection_is_none(tmp_path: Path, lost: str) -> None:
    assert f"1 missing: {lost}" in refused(save(tmp_path / "made", without(state_of(LLAMA), lost)))


def test_no_projection_is_said_to_be_none(tmp_path: Path) -> None:
    state = {name: value for name, value in state_of(LLAMA).items() if not name.startswith("prj.")}
    said = refused(save(tmp_path / "made", state))
    assert "there is no prj" in said
    assert "use_prj False" in said


@pytest.mark.parametrize("padded", [107, 112, 128, 192])
def test_rows_padded_to_a_round_number_are_refused_with_the_cut_that_helps(tmp_path: Path, padded: int) -> None:
    state = state_of(LLAMA)
    for name in [name for name in state if name.endswith(("embed_tokens.weight", "lm_head.weight"))]:
        state[name] = torch.cat([state[name], torch.zeros(padded - 106, 48)])
    said = refused(save(tmp_path / "made", state))
    assert f"got {padded} rows; expected 106 rows" in said
    cut = {name: value[:106] if value.shape[0] == padded else value for name, value in state.items()}
    same(both(save(tmp_path / "cut", cut)), LLAMA)
    assert ("cut it and the output matrix to their first 106 rows" in said) == (padded % 8 == 0)


def test_rows_of_the_tokenizer_count_where_the_config_has_more(tmp_path: Path) -> None:
    for family, rows in ((COCONUT, 104), (LLAMA, 103)):
        path = save(tmp_path / family, state_of(family), family)
        config = json.loads((path / "config.json").read_text()) | {"vocab_size": 128, "pad_token_id": 120}
        (path / "config.json").write_text(json.dumps(config))
        model = both(path)
        same(model, family)
        [found] = [found for found in model.assumptions if found.what == "base vocabulary"]
        assert found.value == f"{rows} rows"
        assert "config.json says 128" in found.why
        state = state_of(family)
        for name in [name for name in state if name.endswith(("embed_tokens.weight", "wte.weight", "lm_head.weight"))]:
            state[name] = state[name][:-1]
        torch.save(without(state, "embedding.weight"), path / "pytorch_model.bin")
        assert f"{rows + 2} rows; expected 131 rows" in refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "name", ["prj.1.weight", f"{Q_A}.default.weight", "codi.base_model.model.model.embed_tokens.weight"]
)
def test_numbers_that_are_none_are_refused_by_doctor_and_run_alike(tmp_path: Path, name: str, value: float) -> None:
    state = state_of(LLAMA)
    for tied in ("embed_tokens.weight", "lm_head.weight") if name.endswith("embed_tokens.weight") else ():
        state[next(key for key in state if key.endswith(tied))][0, 0] = value
    state[name][0, 0] = value
    said = refused(save(tmp_path / "made", state))
    assert f"{name} is damaged: it holds numbers that are not finite; got NaN or infinity in 1 of" in said


def test_weights_too_large_for_a_dtype_are_named_with_the_dtype_that_holds_them(tmp_path: Path) -> None:
    state = state_of(LLAMA)
    state["prj.1.weight"][0, 0] = 1e5
    path = save(tmp_path / "made", state)
    with pytest.raises(CheckpointError, match=r"does not fit into float16; got numbers up to 1e\+05.*bfloat16"):
        load_model(path, device="cpu", dtype="float16")
    load_model(path, device="cpu", dtype="bfloat16")


# --- beside the weights: tokenizers, stages


def test_a_tokenizer_without_an_end_of_sequence_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "made", state_of(LLAMA))
    settings = json.loads((path / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / "special_tokens_map.json").unlink(missing_ok=True)
    assert 'names no end-of-sequence token, so no answer could stop; expected an "eos_token"' in refused(path)
    same(both(path, tokenizer=str(base(LLAMA))), LLAMA)


def add_bocot(folder: Path) -> Path:
    """Begin- and end-of-thought as tokens in the tokenizer, at the rows that CODI's own code uses."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] += [
        {"id": 103 + i, "content": name, **flags} for i, name in enumerate(("[PAD]", "<|bocot|>", "<|eocot|>"))
    ]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_the_bocot_dialect_is_asked_for_its_prompt_and_never_guessed(tmp_path: Path) -> None:
    path = add_bocot(save(tmp_path / "made", state_of(LLAMA)))
    said = refused(path)
    assert "holds <|bocot|> and <|eocot|>: a dialect of CODI" in said
    assert "--prompt-suffix '<eos>'" in said
    question = "Ben has 26 books ."
    plain = both(path, prompt_suffix="").question_ids(question)
    asked = both(path, prompt_suffix="<eos>").question_ids(question)
    assert asked == [*plain[:-1], 1, 104]
    for removed, wanted in ((True, plain), (False, asked)):
        (path / "codi_config.json").write_text(json.dumps({"training_details": {"remove_eos": removed}}))
        assert both(path).question_ids(question) == wanted


def test_a_stage_that_writes_its_reasoning_out_is_no_reasoner(tmp_path: Path) -> None:
    prefix = "base_causallm."
    state = {name.removeprefix(prefix): v for name, v in state_of(COCONUT).items() if name.startswith(prefix)}
    said = refused(save(tmp_path / "made", state, COCONUT, "checkpoint_6"))
    assert "is a language model without continuous thoughts" in said


def test_simcots_copy_is_passed_over_by_name(tmp_path: Path) -> None:
    state = state_of(COCONUT)
    copy = {f"expainable_llm.{k.removeprefix('base_causallm.')}": v for k, v in state.items() if k.startswith("base_")}
    model = both(save(tmp_path / "made", state | copy, COCONUT, "checkpoint_28"), num_latents=6)
    same(model, COCONUT)
    assert any("SIM-CoT's auxiliary decoder" in note for note in model.read)
