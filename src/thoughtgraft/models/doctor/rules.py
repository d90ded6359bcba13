"""Known mistakes, each recognised from facts and said with its exact fix."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from thoughtgraft.models.doctor.diagnosis import Finding
from thoughtgraft.models.doctor.facts import Facts
from thoughtgraft.models.families import CODI, SPECIAL_ROWS
from thoughtgraft.models.known_bases import KNOWN_BASES

_LLAMA3_VOCAB, _BASE_EOS, _INSTRUCT_EOS = 128256, "<|end_of_text|>", "<|eot_id|>"
# prj without its Dropout counts one less: Linear, GELU, Linear (, LayerNorm).
_SHIFTED = {"0": "1", "2": "3"}
_NORM_NAMES = ("3", "4", "norm")
_SHOWN = 4


def known_base(facts: Facts) -> str | None:
    """The known base whose width, layers and kind of names the weights have; None if there is none."""
    for name, values in KNOWN_BASES.items():
        llama = values["model_type"] == "llama"
        sizes = (values["hidden_size"], values["num_hidden_layers"]) if llama else (values["n_embd"], values["n_layer"])
        if (llama, sizes) == (facts.llama, facts.sizes):
            return name
    return None


def projection_rules(facts: Facts, weights: Path) -> Iterator[Finding]:
    """Prj whose keys are counted from another start."""
    have = set(facts.projection) if facts.layout is CODI else set()
    if "0.weight" in have and "1.weight" not in have:
        renamed = dict(_SHIFTED)
        norm = next((name for name in _NORM_NAMES if f"{name}.weight" in have), None)
        if norm is not None and "ln.weight" not in have:
            renamed[norm] = "ln"
        yield Finding(
            "error",
            "the keys of prj are shifted: they count from its first Linear, and the official ones from the Dropout "
            "before it",
            got=", ".join(sorted(f"prj.{name}" for name in have)),
            expected="prj.1.*, prj.3.*, prj.ln.*",
            fix=_rename(weights, {f"prj.{old}.": f"prj.{new}." for old, new in renamed.items()}),
        )


def _rename(weights: Path, renamed: Mapping[str, str]) -> str:
    """A command that writes the weights under other key prefixes into a new folder."""
    safe = weights.suffix == ".safetensors"
    code = "; ".join(
        (
            "import os, torch",
            "from safetensors.torch import load_file",
            f"old = {f'load_file({str(weights)!r})' if safe else f'torch.load({str(weights)!r}, weights_only=True)'}",
            f"names = {dict(renamed)}",
            "new = lambda k: next((names[a] + k[len(a):] for a in names if k.startswith(a)), k)",
            "os.makedirs('renamed', exist_ok=True)",
            "torch.save({new(k): v for k, v in old.items()}, 'renamed/pytorch_model.bin')",
        )
    )
    return f"python -c {shlex.quote(code)}, then copy config and tokenizer files into the folder `renamed` and use it"


def lora_rules(facts: Facts) -> Iterator[Finding]:
    """LoRA of which one side is missing."""
    if facts.halves and facts.layout:
        shown = ", ".join(facts.halves[:_SHOWN]) + (", ..." if len(facts.halves) > _SHOWN else "")
        yield Finding(
            "error",
            f"{len(facts.halves)} LoRA pairs are halves: one of lora_A and lora_B is missing",
            got=shown,
            expected="both, or neither after a merge",
            fix="download the checkpoint again, or save it again with both",
        )


def row_rules(facts: Facts, vocab: int | None) -> Iterator[Finding]:
    """An embedding whose rows are not V + 3, where V is known."""
    if facts.layout is None or facts.rows is None or vocab is None or facts.rows == vocab + SPECIAL_ROWS:
        return
    extra = facts.rows - vocab
    names = ", ".join(facts.layout.rows)
    if extra == 0:
        what = f"the rows of {names} are missing: the embedding has the base vocabulary and nothing more"
    elif 0 < extra < SPECIAL_ROWS:
        what = f"{SPECIAL_ROWS - extra} of the rows of {names} are missing"
    else:
        what = "the embedding is another vocabulary's, or was padded to a round number of rows"
    yield Finding(
        "error",
        what,
        got=f"{facts.rows:,} rows",
        expected=f"{vocab:,} + {SPECIAL_ROWS}",
        fix="save the embedding as it was trained, without resize_token_embeddings or pad_to_multiple_of; or name the "
        "right base with --base",
    )


def base_rules(facts: Facts, base: str | None) -> Iterator[Finding]:
    """Weights that are another base's than the one in use, and fit a known one."""
    fits = known_base(facts)
    if base is not None and fits is not None:
        yield Finding(
            "note",
            f"the weights have the shapes of {fits}",
            got=f"compared with {base}",
            fix=f"--base {fits}, where {base} does not fit",
        )


def extra_rules(facts: Facts) -> Iterator[Finding]:
    """SIM-CoT's training-only parts."""
    if facts.extras:
        listed = ", ".join(f"{name}.* ({count})" for name, count in facts.extras.items())
        yield Finding(
            "note",
            f"SIM-CoT's auxiliary decoder is in the file and is ignored: {listed}",
            got=f"{facts.extra_bytes / 1e9:.2f} GB that inference never reads",
        )


def stop_rules(tokenizer: PreTrainedTokenizerBase | None, config_eos: object, vocab: int | None) -> Iterator[Finding]:
    """A tokenizer that ends answers with another token than the model was trained to write."""
    if tokenizer is None:
        return
    token, number = tokenizer.eos_token, tokenizer.eos_token_id
    listed = config_eos if isinstance(config_eos, list) else [config_eos]
    if vocab == _LLAMA3_VOCAB and token == _BASE_EOS:
        yield Finding(
            "warning",
            "the tokenizer ends answers as Llama's base model does, and the published checkpoints were trained on the "
            "Instruct one: every answer would run to the token limit",
            got=f"{token} ({number})",
            expected=f"{_INSTRUCT_EOS} (128009)",
            fix="--tokenizer unsloth/Llama-3.2-1B-Instruct, unless it was trained on the base model",
        )
    elif config_eos is not None and number not in listed:
        yield Finding(
            "warning",
            "the tokenizer and the base config disagree about the end of an answer",
            got=f"the tokenizer's {token} ({number}); the config's {', '.join(map(str, listed))}",
            expected="the token that ended the training answers",
            fix="check with `thoughtgraft evaluate --limit 20` that answers stop, or pass --tokenizer or --base",
        )
