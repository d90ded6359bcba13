"""A checkpoint is read exactly or refused in one clear sentence."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import save_file
from transformers import AutoConfig

from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.assembly import build_lm
from thoughtgraft.models.checkpoint.bases import KNOWN_BASES
from thoughtgraft.models.checkpoint.lora import merge_lora
from thoughtgraft.models.checkpoint.read import Checkpoint, read_checkpoint, write_checkpoint

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FAMILIES = {"codi-gpt2": "base-tiny-gpt2", "codi-llama": "base-tiny-llama"}
PEFT = "codi.base_model.model."
State = dict[str, torch.Tensor]


def base_of(case: str) -> Path:
    return GOLDEN / case / FAMILIES[case]


def read_golden(case: str, **options: Any) -> Checkpoint:
    return read_checkpoint(GOLDEN / case / "checkpoint", base=base_of(case), **options)


def state_of(case: str) -> State:
    return torch.load(GOLDEN / case / "checkpoint" / "pytorch_model.bin", weights_only=True)


def save(folder: Path, state: State) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def copy_base(folder: Path, case: str = "codi-llama") -> Path:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base_of(case) / name, folder / name)
    return folder


@pytest.fixture
def llama() -> State:
    return state_of("codi-llama")


@pytest.fixture
def refuse() -> Callable[..., str]:
    """Reads a checkpoint that must be refused and returns the sentence."""

    def reads(path: Path | str, **options: Any) -> str:
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path, **{"base": base_of("codi-llama"), **options})
        assert "Fix: " in str(caught.value)
        return str(caught.value)

    return reads


# --- what is read is what the official code computes


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("question", range(8))
def test_first_thought_matches_official_code(case: str, question: int) -> None:
    checkpoint = read_golden(case)
    expected = json.loads((GOLDEN / case / "expected.json").read_text())["unpadded"][question]
    ids = expected["input_ids"]
    assert ids[-1] == checkpoint.bot_id
    with torch.inference_mode():
        out = checkpoint.lm(input_ids=torch.tensor([ids]), output_hidden_states=True)
        fed = checkpoint.feeder(out.hidden_states[-1][0, -1])
    torch.testing.assert_close(fed, torch.tensor(expected["z_fed"][0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("case", FAMILIES)
def test_model_is_plain_frozen_and_whole(case: str) -> None:
    checkpoint = read_golden(case)
    assert (checkpoint.base_vocab, checkpoint.pad_id, checkpoint.bot_id, checkpoint.eot_id) == (103, 103, 104, 105)
    assert (checkpoint.family, checkpoint.lora_alpha, checkpoint.notes) == ("codi", 32, ())
    assert checkpoint.lm.get_input_embeddings().weight.shape[0] == checkpoint.lm.config.vocab_size == 106
    assert checkpoint.lm.get_output_embeddings().weight is checkpoint.lm.get_input_embeddings().weight
    assert checkpoint.lm.config._attn_implementation == "sdpa"
    assert len(checkpoint.tokenizer) == 103
    for module in (checkpoint.lm, checkpoint.feeder):
        assert not module.training
        assert not any(p.requires_grad or p.is_meta for p in module.parameters())
        assert not any(b.is_meta for b in module.buffers())


def test_rotary_frequencies_are_computed() -> None:
    checkpoint = read_golden("codi-llama")
    expected = 10000.0 ** (-torch.arange(0, 12, 2).float() / 12)
    torch.testing.assert_close(checkpoint.lm.model.rotary_emb.inv_freq, expected)


def test_question_tokens_are_those_of_the_official_code() -> None:
    for case in FAMILIES:
        checkpoint = read_golden(case)
        expected = json.loads((GOLDEN / case / "expected.json").read_text())
        question = expected["questions"][0].strip().replace("  ", " ")
        assert checkpoint.tokenizer(question).input_ids == expected["unpadded"][0]["input_ids"][:-1]


@pytest.mark.parametrize("transposed", [False, True])
def test_merge_adds_the_scaled_product_once(transposed: bool) -> None:
    torch.manual_seed(0)
    weight, a, b = torch.randn(6, 4), torch.randn(2, 4), torch.randn(6, 2)
    stored = weight.T if transposed else weight
    merged = merge_lora(stored, a, b, scale=4, transposed=transposed, name="w")
    x = torch.randn(5, 4, dtype=torch.float64)
    adapted = x @ weight.double().T + 4 * (x @ a.double().T @ b.double().T)
    torch.testing.assert_close(x @ (merged if transposed else merged.T).double(), adapted, atol=1e-5, rtol=0)
    assert merged.dtype == torch.float32


def test_square_conv1d_is_merged_transposed() -> None:
    # attn.c_proj is 48 x 48: a transposition by shape instead of by module would go unseen
    state, name = state_of("codi-gpt2"), f"{PEFT}transformer.h.0.attn.c_proj"
    delta = 4 * state[f"{name}.lora_B.default.weight"] @ state[f"{name}.lora_A.default.weight"]
    merged = read_golden("codi-gpt2").lm.transformer.h[0].attn.c_proj.weight
    torch.testing.assert_close(merged, state[f"{name}.base_layer.weight"] + delta.T, atol=1e-5, rtol=0)


def test_merge_precedes_the_cast() -> None:
    exact, cast = read_golden("codi-llama"), read_golden("codi-llama", dtype=torch.bfloat16)
    for name, value in exact.lm.state_dict().items():
        assert torch.equal(value.bfloat16(), cast.lm.state_dict()[name])
    assert exact.lm.dtype == torch.float32
    assert cast.lm.dtype == cast.lm.config.dtype == cast.feeder.get_parameter("ln.weight").dtype == torch.bfloat16
    assert cast.lm.model.rotary_emb.inv_freq.dtype == torch.float32  # a rounded frequency would move every position
    assert exact.weight_hash == cast.weight_hash


def test_bfloat16_checkpoint_is_float32_on_cpu(tmp_path: Path, llama: State) -> None:
    save(tmp_path, {name: value.bfloat16() for name, value in llama.items()})
    assert read_checkpoint(tmp_path, base=base_of("codi-llama")).lm.dtype == torch.float32


def test_alpha_scales_the_adapters() -> None:
    assert read_golden("codi-llama", lora_alpha=16).lora_alpha == 16
    name = "model.layers.0.mlp.up_proj.weight"
    none, half, full = (read_golden("codi-llama", lora_alpha=a).lm.get_parameter(name) for a in (0, 16, 32))
    torch.testing.assert_close(half - none, (full - none) / 2)


# --- every layout of the same weights is the same model


def formats(folder: Path, state: State) -> Iterator[Path]:
    """The same state dict as .bin, old-style .bin, .safetensors, shards of both kinds, and single files."""
    state = {name: value.clone() for name, value in state.items()}
    yield save(folder / "bin", state)
    old = folder / "old"
    old.mkdir()
    torch.save(state, old / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    yield old
    whole = folder / "safetensors"
    whole.mkdir()
    save_file(state, whole / "model.safetensors")
    yield whole
    yield whole / "model.safetensors"
    yield folder / "bin" / "pytorch_model.bin"
    names = list(state)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    for stem, writer in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        shards = folder / f"shards-{stem}"
        shards.mkdir()
        weight_map = {}
        for i, half in enumerate(halves):
            file = stem.replace(".", f"-0000{i + 1}-of-00002.")
            writer({name: state[name] for name in half}, shards / file)
            weight_map |= dict.fromkeys(half, file)
        (shards / f"{stem}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        yield shards


def test_hash_and_weights_do_not_depend_on_the_file_format(tmp_path: Path, llama: State) -> None:
    base = base_of("codi-llama")
    reference = read_golden("codi-llama")
    count = 0
    for path in formats(tmp_path, llama):
        checkpoint = read_checkpoint(path, base=base)
        assert checkpoint.weight_hash == reference.weight_hash
        for name, value in reference.lm.state_dict().items():
            assert torch.equal(value, checkpoint.lm.state_dict()[name])
        count += 1
    assert count == 7


def test_hash_sees_one_changed_number(tmp_path: Path, llama: State) -> None:
    llama["prj.ln.bias"][0] += 1e-3
    changed = read_checkpoint(save(tmp_path, llama), base=base_of("codi-llama"))
    assert changed.weight_hash != read_golden("codi-llama").weight_hash


def test_tied_head_may_be_absent(tmp_path: Path, llama: State) -> None:
    del llama[f"{PEFT}lm_head.weight"]
    checkpoint = read_checkpoint(save(tmp_path, llama), base=base_of("codi-llama"))
    assert checkpoint.lm.lm_head.weight is checkpoint.lm.model.embed_tokens.weight
    assert checkpoint.weight_hash == read_golden("codi-llama").weight_hash


def test_older_prefix_without_lora_and_with_ignored_extras(tmp_path: Path, llama: State) -> None:
    plain = {
        name.replace(PEFT, "coconut.").replace(".base_layer", ""): value
        for name, value in llama.items()
        if "lora_" not in name
    }
    plain["coconut.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
    plain |= {"decoder.model.norm.weight": torch.ones(3), "pj_in.weight": torch.ones(2), "pj_out.weight": torch.ones(2)}
    checkpoint = read_checkpoint(save(tmp_path, plain), base=base_of("codi-llama"))
    assert checkpoint.lora_alpha is None
    assert len([note for note in checkpoint.notes if "SIM-CoT" in note]) == 3
    name = "model.layers.1.mlp.down_proj"
    assert torch.equal(checkpoint.lm.get_parameter(f"{name}.weight"), llama[f"{PEFT}{name}.base_layer.weight"])


def test_modules_to_save_replace_the_original(tmp_path: Path, llama: State) -> None:
    norm = f"{PEFT}model.norm"
    llama[f"{norm}.original_module.weight"] = llama.pop(f"{norm}.weight")
    llama[f"{norm}.modules_to_save.default.weight"] = torch.full((48,), 2.0)
    checkpoint = read_checkpoint(save(tmp_path, llama), base=base_of("codi-llama"))
    assert torch.equal(checkpoint.lm.model.norm.weight, torch.full((48,), 2.0))
    assert "original_module" in checkpoint.notes[0]


def test_weights_survive_the_removal_of_their_file(tmp_path: Path, llama: State) -> None:
    save(tmp_path, llama)
    checkpoint = read_checkpoint(tmp_path, base=base_of("codi-llama"))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")  # a view of the mapped file would now be a bus error
    assert torch.equal(checkpoint.lm.model.norm.weight, llama[f"{PEFT}model.norm.weight"])


def test_untied_base_uses_both_matrices(tmp_path: Path, llama: State) -> None:
    llama[f"{PEFT}lm_head.weight"] = llama[f"{PEFT}lm_head.weight"] + 1
    folder = copy_base(save(tmp_path, llama))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    lm = read_checkpoint(folder).lm
    assert torch.equal(lm.lm_head.weight, lm.model.embed_tokens.weight + 1)


# --- writing


@pytest.mark.parametrize("case", FAMILIES)
def test_written_checkpoint_reads_back_without_a_base(tmp_path: Path, case: str) -> None:
    first = read_golden(case)
    config = type(first.lm.config)(**{**first.lm.config.to_dict(), "vocab_size": 103})
    folder = write_checkpoint(tmp_path / "made", first.lm, first.feeder, first.tokenizer, config)
    again = read_checkpoint(folder)
    assert (again.base_vocab, again.lora_alpha, again.notes) == (103, None, ())
    for one, two in ((first.lm, again.lm), (first.feeder, again.feeder)):
        assert one.state_dict().keys() == two.state_dict().keys()
        assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    assert again.tokenizer("what is 3 ?").input_ids == first.tokenizer("what is 3 ?").input_ids
    assert not list(folder.glob("*.tmp"))


def test_written_dtype_is_chosen(tmp_path: Path) -> None:
    first = read_golden("codi-llama")
    config = type(first.lm.config)(**{**first.lm.config.to_dict(), "vocab_size": 103})
    write_checkpoint(tmp_path, first.lm, first.feeder, first.tokenizer, config, dtype=torch.bfloat16)
    again = read_checkpoint(tmp_path)
    assert torch.equal(again.lm.model.norm.weight, first.lm.model.norm.weight.bfloat16().float())


def test_writing_refuses_wrong_rows_and_a_file_in_the_way(tmp_path: Path) -> None:
    first = read_golden("codi-llama")
    with pytest.raises(CheckpointError, match="got 106 rows; expected 109 rows"):
        write_checkpoint(tmp_path, first.lm, first.feeder, first.tokenizer, first.lm.config)
    config = type(first.lm.config)(**{**first.lm.config.to_dict(), "vocab_size": 103})
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_checkpoint(tmp_path / "file", first.lm, first.feeder, first.tokenizer, config)


# --- known bases


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("openai-community/gpt2", 124.4),
        ("openai-community/gpt2-medium", 354.8),
        ("meta-llama/Llama-3.2-1B-Instruct", 1235.8),
        ("meta-llama/Llama-3.2-3B-Instruct", 3212.7),
        ("meta-llama/Llama-3.1-8B-Instruct", 8030.3),
    ],
)
def test_known_bases_have_their_published_sizes(name: str, millions: float) -> None:
    config = AutoConfig.for_model(**KNOWN_BASES[name])
    lm = build_lm(config)
    counted = {id(p): p.numel() for p in lm.parameters()}
    assert sum(counted.values()) - 3 * config.hidden_size * (1 if config.tie_word_embeddings else 2) == pytest.approx(
        millions * 1e6, abs=1e5
    )


def test_llama_bases_scale_their_rotary_frequencies() -> None:
    lm = build_lm(AutoConfig.for_model(**KNOWN_BASES["meta-llama/Llama-3.2-1B-Instruct"]))
    plain = 500000.0 ** (-torch.arange(0, 64, 2).float() / 64)
    ratio = plain / lm.model.rotary_emb.inv_freq
    torch.testing.assert_close(ratio[0], torch.tensor(1.0))  # short wavelengths stay, long ones stretch 32 times
    torch.testing.assert_close(ratio[-1], torch.tensor(32.0))


def make_known(monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads((base_of("codi-llama") / "config.json").read_text())
    monkeypatch.setattr("thoughtgraft.models.checkpoint.bases.KNOWN_BASES", {"made-up/tiny": values})


def test_known_base_is_found_by_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    make_known(monkeypatch)
    checkpoint = read_checkpoint(GOLDEN / "codi-llama" / "checkpoint", tokenizer=base_of("codi-llama"))
    assert checkpoint.base == "made-up/tiny"
    [base] = [found for found in checkpoint.assumptions if found.what == "base model"]
    assert (base.value, base.option) == ("made-up/tiny", "--base")


def test_empty_config_is_passed_over_for_a_known_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, llama: State
) -> None:
    make_known(monkeypatch)
    folder = copy_base(save(tmp_path, llama))
    (folder / "config.json").write_bytes(b"")
    checkpoint = read_checkpoint(folder)
    assert checkpoint.base == "made-up/tiny"
    assert "empty (0 bytes)" in checkpoint.notes[0]


def test_known_base_without_its_tokenizer_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    values = json.loads((base_of("codi-llama") / "config.json").read_text())
    monkeypatch.setattr(
        "thoughtgraft.models.checkpoint.bases.KNOWN_BASES", {"meta-llama/Llama-3.2-1B-Instruct": values}
    )
    message = refuse(GOLDEN / "codi-llama" / "checkpoint", base=None)
    assert "tokenizer of meta-llama/Llama-3.2-1B-Instruct is needed" in message
    assert "--tokenizer unsloth/Llama-3.2-1B-Instruct" in message


# --- what is refused, and how it says so


def test_unknown_names(refuse: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "no model at 'tiny-cody'" in refuse("tiny-cody")
    assert "a path that does not exist" in refuse(tmp_path / "nowhere")
    message = refuse("zen-E/CODI-gpt3")
    assert "neither a local path nor in the Hugging Face cache" in message
    assert "hf download zen-E/CODI-gpt3" in message


class Gated(GatedRepoError):
    def __init__(self) -> None:
        Exception.__init__(self, "403")


class Unknown(RepositoryNotFoundError):
    def __init__(self) -> None:
        Exception.__init__(self, "404")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Gated, "is gated on the Hugging Face hub"),
        (Unknown, "set HF_TOKEN"),
        (TimeoutError, "could not be downloaded; got TimeoutError"),
    ],
)
def test_hub_refusals(
    refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, error: type[Exception], said: str
) -> None:
    def fails(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("thoughtgraft.models.checkpoint.files.snapshot_download", fails)
    assert said in refuse("someone/codi")


def test_hub_id_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: State) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--codi"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    copy_base(save(snapshot, llama))
    checkpoint = read_checkpoint("someone/codi")
    assert checkpoint.name == "someone/codi"
    assert checkpoint.weight_hash == read_golden("codi-llama").weight_hash


def test_folder_without_weights_lists_what_is_there(tmp_path: Path, refuse: Callable[..., str]) -> None:
    (tmp_path / "notes.md").write_text("")
    assert "got notes.md" in refuse(tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        f"{PEFT}model.layers.1.mlp.up_proj.base_layer.weight",
        f"{PEFT}model.layers.1.mlp.up_proj.lora_A.default.weight",
        f"{PEFT}model.norm.weight",
        "prj.3.bias",
    ],
)
def test_one_missing_key_is_named(tmp_path: Path, llama: State, refuse: Callable[..., str], key: str) -> None:
    del llama[key]
    assert f"1 missing: {key};" in refuse(save(tmp_path, llama))


@pytest.mark.parametrize(
    "key",
    [
        "extra.weight",
        "prj.4.weight",
        f"{PEFT}model.layers.0.mlp.up_proj.bias",
        f"{PEFT}model.layers.0.mlp.up_proj.lora_magnitude_vector",
        f"{PEFT}model.layers.0.mlp.up_proj.weight",
    ],
)
def test_one_extra_key_is_named(tmp_path: Path, llama: State, refuse: Callable[..., str], key: str) -> None:
    llama[key] = torch.ones(2)
    assert f"1 unexpected: {key};" in refuse(save(tmp_path, llama))


def test_many_missing_keys_are_counted(tmp_path: Path, llama: State, refuse: Callable[..., str]) -> None:
    kept = {name: value for name, value in llama.items() if "lora_B" not in name}
    message = refuse(save(tmp_path, kept))
    assert "21 missing: " in message
    assert message.count("lora_B") == 4


def test_shifted_projection_keys_are_refused(tmp_path: Path, llama: State, refuse: Callable[..., str]) -> None:
    shifted = {name.replace("prj.1.", "prj.0.").replace("prj.3.", "prj.2."): value for name, value in llama.items()}
    message = refuse(save(tmp_path, shifted))
    assert "missing: prj.1.weight" in message
    assert "unexpected: prj.0.weight" in message


@pytest.mark.parametrize("rows", [103, 105, 107])
def test_wrong_rows(tmp_path: Path, llama: State, refuse: Callable[..., str], rows: int) -> None:
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        llama[PEFT + name] = torch.zeros(rows, 48)
    message = refuse(save(tmp_path, llama))
    assert f"got {rows} rows; expected 106 rows: the base vocabulary of 103" in message
    assert "--base" in message


def test_wrong_shapes_are_named(tmp_path: Path, llama: State, refuse: Callable[..., str]) -> None:
    llama[f"{PEFT}model.norm.weight"] = torch.ones(47)
    assert f"1 of another shape: {PEFT}model.norm.weight is (47,), not (48,)" in refuse(save(tmp_path, llama))
    llama[f"{PEFT}model.norm.weight"] = torch.ones(48)
    llama[f"{PEFT}model.layers.0.mlp.up_proj.lora_B.default.weight"] = torch.ones(96, 9)
    assert "LoRA weights of" in refuse(save(tmp_path, llama))


def test_a_different_tied_head_is_not_decided_in_silence(
    tmp_path: Path, llama: State, refuse: Callable[..., str]
) -> None:
    llama[f"{PEFT}lm_head.weight"] = llama[f"{PEFT}lm_head.weight"] + 1
    message = refuse(save(tmp_path, llama))
    assert "two different ones" in message
    assert '"tie_word_embeddings": false' in message


def test_wrong_base_is_told_by_its_sizes(tmp_path: Path, refuse: Callable[..., str], llama: State) -> None:
    config = json.loads((base_of("codi-llama") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    message = refuse(GOLDEN / "codi-llama" / "checkpoint", base=tmp_path)
    assert "got 3 layers of width 48 in the weights; expected 2 layers of width 48" in message


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "empty (0 bytes)"), (b"{", "not JSON"), (b"{}", "no model_type"), (b'{"model_type": "codi"}', "codi")],
)
def test_unusable_config_without_a_known_base(
    tmp_path: Path, llama: State, refuse: Callable[..., str], content: bytes, why: str
) -> None:
    (save(tmp_path, llama) / "config.json").write_bytes(content)
    message = refuse(tmp_path, base=None)
    assert "3 layers of width 48" in message
    assert why in message
    assert "pass --base" in message
    assert why in refuse(GOLDEN / "codi-llama" / "checkpoint", base=tmp_path)


def test_tokenizer_that_does_not_fit(tmp_path: Path, refuse: Callable[..., str]) -> None:
    checkpoint = GOLDEN / "codi-llama" / "checkpoint"
    assert "holds no tokenizer" in refuse(checkpoint, tokenizer=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    assert "cannot be read" in refuse(checkpoint, tokenizer=tmp_path)
    larger = read_golden("codi-llama").tokenizer
    larger.add_tokens(["<one>"])
    assert "got ids up to 103; expected at most 103 ids" in refuse(checkpoint, tokenizer=larger)
    larger.pad_token = "<one>"  # the official code does this: [PAD] at V is CODI's own pad row
    read_checkpoint(checkpoint, base=base_of("codi-llama"), tokenizer=larger)


# --- damaged and hostile files


@pytest.mark.parametrize("keep", [0, 3, 100, 200_000, -10])
@pytest.mark.parametrize("kind", ["pytorch_model.bin", "model.safetensors"])
def test_truncated_file(tmp_path: Path, llama: State, refuse: Callable[..., str], kind: str, keep: int) -> None:
    path = tmp_path / kind
    if kind == "pytorch_model.bin":
        torch.save(llama, path)
    else:
        save_file({name: value.clone() for name, value in llama.items()}, path)
    path.write_bytes(path.read_bytes()[:keep])
    message = refuse(tmp_path)
    assert str(path) in message
    assert "empty" in message if keep == 0 else "truncated" in message or "is no weight file" in message


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("style", ["zip", "legacy", "pickle"])
def test_pickled_code_is_refused_and_not_executed(tmp_path: Path, refuse: Callable[..., str], style: str) -> None:
    path, target = tmp_path / "pytorch_model.bin", tmp_path / "executed"
    if style == "pickle":
        path.write_bytes(pickle.dumps({"prj.1.weight": Hostile(target)}, protocol=2))
    else:
        torch.save({"prj.1.weight": Hostile(target)}, path, _use_new_zipfile_serialization=style == "zip")
    message = refuse(tmp_path)
    assert "nothing in it was executed" in message
    assert not target.exists()


def test_compressed_archive_is_refused(tmp_path: Path, refuse: Callable[..., str]) -> None:
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    assert "compressed archive" in refuse(tmp_path)


def test_other_files_are_told_apart(tmp_path: Path, refuse: Callable[..., str]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "Git LFS pointer" in refuse(tmp_path)
    path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    assert "truncated or not a safetensors file" in refuse(tmp_path)
    path.unlink()
    torch.save({"model": {"prj.1.weight": torch.ones(2)}}, tmp_path / "pytorch_model.bin")
    assert "is neither a CODI nor a Coconut checkpoint; got keys such as prj.1.weight" in refuse(tmp_path)
    torch.save({"step": 3, "model": None}, tmp_path / "pytorch_model.bin")
    assert "is not a state dict; got a dict with step, model" in refuse(tmp_path)
    torch.save({"model.norm.weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert "is neither a CODI nor a Coconut checkpoint; got keys such as model.norm.weight" in refuse(tmp_path)


def test_shards_are_all_there_and_beside_their_index(tmp_path: Path, refuse: Callable[..., str], llama: State) -> None:
    shards = [path for path in formats(tmp_path, llama) if path.name.startswith("shards-")]
    for folder in shards:
        gone = sorted(folder.glob("*-of-00002*"))[1]
        content = gone.read_bytes()
        gone.unlink()
        assert f"names 2 shards and 1 are missing: {gone.name}" in refuse(folder)
        gone.write_bytes(content)
    index = shards[0] / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    assert "outside its own folder" in refuse(shards[0])
    index.write_text("")
    assert "is not a shard index" in refuse(shards[0])
