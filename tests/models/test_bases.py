"""A base that the engine would compute otherwise than its own library is refused by every door, with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.broken import GOLDEN
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.rollout import rollout
from thoughtgraft.engine.rows import Row
from thoughtgraft.errors import ModelError
from thoughtgraft.models import attention as prefix
from thoughtgraft.models.checkpoint import twin
from thoughtgraft.models.checkpoint.twin import check_base
from thoughtgraft.models.doctor.examine import diagnose
from thoughtgraft.models.load import load_model
from thoughtgraft.models.reasoner import LatentReasoner

TOKENIZER = GOLDEN / "codi-llama" / "base-tiny-llama"
VOCAB = 103
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "tie_word_embeddings": True,
}
TWO = {"num_key_value_heads": 2}
GPT = {"n_layer": 2, "n_head": 4}
FULL = {"layer_types": ["full_attention"] * 2}
SOUND: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", TWO),
    "qwen3, heads of their own width": ("qwen3", TWO | {"head_dim": 16}),
    "mistral without a window": ("mistral", TWO | {"sliding_window": None, "tie_word_embeddings": False}),
    "gemma, embeddings scaled inside": ("gemma", {"num_key_value_heads": 1, "head_dim": 8}),
    "phi, parallel residual, partial rotary": ("phi", {"tie_word_embeddings": False}),
    "phi3": ("phi3", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "gpt_neox, parallel residual": ("gpt_neox", {"tie_word_embeddings": False}),
    "gpt_neox, one after the other": ("gpt_neox", {"tie_word_embeddings": False, "use_parallel_residual": False}),
    "olmo2, norms after": ("olmo2", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "granite with every factor but the logits'": (
        "granite",
        TWO | {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.0078125},
    ),
    "gpt2 whose scores are scaled by depth": ("gpt2", GPT | {"scale_attn_by_inverse_layer_idx": True}),
    "llama with scaled frequencies": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "smollm3, layers without positions": ("smollm3", TWO),
}
FOREIGN: dict[str, tuple[str, dict[str, Any], str]] = {
    "granite": (
        "granite",
        TWO | {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22},
        r"logits_scaling is 8\.0 in its config, and its logits are not the product",
    ),
    "cohere": ("cohere", {"num_key_value_heads": 4, "logit_scale": 0.0625}, r"logit_scale is 0\.0625 in its config"),
    "gemma2": ("gemma2", {"num_key_value_heads": 1, "head_dim": 8}, r"final_logit_softcapping is 30\.0 in its config"),
    "gemma2, uncapped logits": (
        "gemma2",
        {"num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": None, **FULL},
        "its Gemma2Attention computes more than scaled dot products",
    ),
    "gemma3": ("gemma3_text", {"num_key_value_heads": 1, "head_dim": 8}, "sliding_window=4096"),
    "mistral with a window": ("mistral", TWO | {"sliding_window": 4096}, "sliding_window=4096"),
    "falcon": ("falcon", {"alibi": True, "new_decoder_architecture": False}, "alibi is True in its config"),
    "falcon, rotary": ("falcon", {"alibi": False}, "its FalconAttention does not go through"),
    "bloom": ("bloom", GPT, "its attention adds ALiBi"),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}, "MptAttention"),
    "stablelm": ("stablelm", {"num_key_value_heads": 4}, "its StableLmAttention does not go through"),
    "gptj": ("gptj", {"n_embd": 32, "rotary_dim": 8, **GPT}, "its GPTJAttention does not go through"),
    "gpt_neo": (
        "gpt_neo",
        {"attention_types": [[["global"], 2]], "num_heads": 4, "num_layers": 2},
        "its GPTNeoAttention does not go through",
    ),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}, "OPTForCausalLM keeps its blocks in an unknown place"),
    "mamba": ("mamba", {}, "linear_attention"),
}


def config_of(kind: str, changes: dict[str, Any], vocab: int = VOCAB) -> PretrainedConfig:
    return AutoConfig.for_model(kind, **{**SHAPE, "vocab_size": vocab, **changes})


def checkpoint(
    folder: Path,
    kind: str,
    changes: dict[str, Any],
    *,
    vocab: int = VOCAB,
    rows: int | None = None,
    coconut: bool = False,
) -> Path:
    """A random CODI, or Coconut, on a base of this kind, with the golden Llama's tokenizer."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    config_of(kind, changes, vocab).save_pretrained(folder)
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config_of(kind, changes, rows or vocab + 3))
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    state = {("base_causallm." if coconut else "codi.") + name: value for name, value in lm.state_dict().items()}
    if coconut:
        torch.save(state | {"embedding.weight": lm.get_input_embeddings().weight.data}, folder / "checkpoint_5")
        return folder
    for name in ("prj.1", "prj.3"):
        state |= {f"{name}.weight": 0.2 * torch.randn(32, 32), f"{name}.bias": torch.zeros(32)}
    torch.save(state | {"prj.ln.weight": torch.ones(32), "prj.ln.bias": torch.zeros(32)}, folder / "pytorch_model.bin")
    return folder


# --- the check itself


@pytest.mark.parametrize("case", SOUND)
def test_bases_that_are_computed_as_their_library_does_are_taken(case: str) -> None:
    check_base(config_of(*SOUND[case]), case)


@pytest.mark.parametrize("case", FOREIGN)
def test_others_are_refused_with_the_reason(case: str) -> None:
    kind, changes, words = FOREIGN[case]
    with pytest.raises(ModelError, match=words) as caught:
        check_base(config_of(kind, changes), case)
    assert caught.value.fix
    assert len(str(caught.value)) < 900


def swapped_parts(scores: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of the softmax, with a log-sum-exp that says they weigh alike."""
    return scores.softmax(-1) @ value, 0 * scores.sum(-1, keepdim=True)


def late_values(self: prefix.ColumnCache, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any) -> Any:
    """Values stored one column late."""
    return UPDATE(self, key, value.roll(1, 2), layer)


@contextmanager
def nothing_added(block: torch.nn.Module) -> Iterator[None]:
    """The last block's MLP is left out."""
    handle = block.get_submodule("mlp").register_forward_hook(lambda _m, _a, out: 0 * out)
    yield
    handle.remove()


UPDATE = prefix.ColumnCache.update


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (LatentReasoner, "unembed", lambda self, hidden: 1.01 * self.lm.get_output_embeddings()(hidden)),
        (LatentReasoner, "embed", lambda self, ids: 1.01 * self.lm.get_input_embeddings()(ids)),
        (prefix, "_normalised", swapped_parts),
        (prefix.ColumnCache, "update", late_values),
        (twin, "last_token_alone", nothing_added),
    ],
)
def test_a_mistake_of_the_engines_own_is_seen_too(
    where: Any, name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "_known", {})
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(ModelError, match="llama cannot be run faithfully"):
        check_base(config_of("llama", {}), "llama")


def test_a_config_is_asked_once_and_what_it_asks_for_makes_it_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "_known", {})
    asked: list[str] = []
    real = twin._difference
    monkeypatch.setattr(twin, "_difference", lambda config: asked.append(config.model_type) or real(config))
    for vocab, name in ((VOCAB, "a"), (200, "b")):
        check_base(config_of("llama", {}, vocab), name)
    assert asked == ["llama"]
    check_base(config_of("llama", {"rms_norm_eps": 1e-3}), "c")
    assert asked == ["llama", "llama"]


def test_the_process_s_generator_dtype_and_precision_are_nothing_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "_known", {})
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    try:
        check_base(config_of("llama", {}), "llama")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(torch.rand(1), wanted)


# --- every door


@pytest.mark.parametrize("case", ["granite", "stablelm", "falcon", "bloom", "gemma2", "mistral with a window"])
def test_loader_and_doctor_refuse_alike(case: str, tmp_path: Path) -> None:
    kind, changes, words = FOREIGN[case]
    path = checkpoint(tmp_path / "made", kind, changes)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(path, device="cpu")
    diagnosis = diagnose(path)
    assert not diagnosis.loads
    assert diagnosis.findings[0].what == caught.value.what


def test_commands_and_training_refuse_too(tmp_path: Path) -> None:
    kind, changes, _ = FOREIGN["granite"]
    path, run = str(checkpoint(tmp_path / "made", kind, changes)), CliRunner().invoke
    base = tmp_path / "base"
    AutoModelForCausalLM.from_config(config_of(kind, changes)).save_pretrained(base)
    PreTrainedTokenizerFast.from_pretrained(TOKENIZER).save_pretrained(base)
    for command in (
        ["think", "Ben has 26 books .", "--model", path],
        ["evaluate", "--model", path, "--limit", "2"],
        ["doctor", path],
        ["train", "--base", str(base), "--out", str(tmp_path / "trained"), "--max-steps", "1"],
    ):
        said = run(app, command)
        assert said.exit_code != 0, command
        assert "logits_scaling is 8.0 in its config" in " ".join((said.output + str(said.exception)).split()), command


@pytest.mark.parametrize("case", ["qwen2", "phi, parallel residual, partial rotary", "gpt_neox, parallel residual"])
def test_what_is_taken_thinks_and_answers_as_the_oracle_does(case: str, tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path / "made", *SOUND[case]), device="cpu", dtype="float64")
    prompt = model.prompt("Ben has 26 books .")
    fast = rollout(model, [prompt], [Row(0, (Action(Feed.CLEAN),) * 6)], max_new_tokens=4)
    slow = reference_run(model, prompt, max_new_tokens=4)
    torch.testing.assert_close(fast.fed[0], slow.fed, atol=1e-4, rtol=1e-4)
    assert fast.answers.token_ids[0] == slow.token_ids


# --- rows and tokenizers of such bases


def test_rows_of_a_config_larger_than_the_tokenizer_are_codis(tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path / "made", "qwen2", TWO, vocab=128), device="cpu")
    assert model.prompt("Ben has 26 books .").ids[-1] == 129
    assert not [found for found in model.assumptions if found.what == "base vocabulary"]


def test_rows_of_the_tokenizer_are_coconuts(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "made", "qwen2", TWO, vocab=128, rows=VOCAB + 3, coconut=True)
    model = load_model(path, device="cpu")
    assert model.prompt("Ben has 26 books .").ids[-1] == VOCAB
    [found] = [found for found in model.assumptions if found.what == "base vocabulary"]
    assert found.value == "103 rows"


def test_a_tokenizer_is_what_its_file_says_whatever_the_library_makes_of_the_models_kind(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "made", "qwen2", TWO)
    question = "Ben has 26 books ."
    wanted = PreTrainedTokenizerFast.from_pretrained(TOKENIZER)(question)["input_ids"]
    assert AutoTokenizer.from_pretrained(path)(question)["input_ids"] != wanted  # its class for Qwen2 reads otherwise
    assert load_model(path, device="cpu").question_ids(question)[:-1] == wanted


def test_a_tokenizer_that_the_library_reads_rightly_is_left_as_it_is(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "made", "llama", {})
    literal = PreTrainedTokenizerFast.from_pretrained(path)
    literal.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    literal.save_pretrained(path)
    assert json.loads((path / "tokenizer.json").read_text())["pre_tokenizer"] == {"type": "Whitespace"}
    ids = load_model(path, device="cpu").question_ids("Ben has 26 books .")
    assert ids[:-1] == PreTrainedTokenizerFast.from_pretrained(path)("Ben has 26 books .")["input_ids"]
