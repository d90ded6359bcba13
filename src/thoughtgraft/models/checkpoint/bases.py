"""The base model behind a checkpoint: its config, from a folder, the hub or the table of known ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from thoughtgraft.errors import CheckpointError, ModelError
from thoughtgraft.models.checkpoint.assumed import Assumption
from thoughtgraft.models.checkpoint.files import find_directory, read_object
from thoughtgraft.models.checkpoint.keys import StateKeys

# Labels of a classifier cost memory by their number; code from elsewhere is never run.
_UNUSED = ("num_labels", "id2label", "label2id", "auto_map")
_MOST, _MOST_LAYERS = 1 << 24, 1 << 12


@dataclass(frozen=True)
class Base:
    """A base model's config and the source of its tokenizer.

    Attributes:
        name: Where the config came from: a folder, a hub id, or the known base that the weights fit.
        config: The Hugging Face config, with the base vocabulary V as `vocab_size`.
        known: Whether the config came from the table of known bases.
        notes: What was passed over on the way, in words.
        assumptions: What nothing says of the base.
    """

    name: str
    config: PretrainedConfig
    known: bool = False
    notes: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()


def find_base(base: str | Path | None, directory: Path, keys: StateKeys) -> Base:
    """Finds the base config: what the user named, else the checkpoint's own config.json, else a known base.

    Args:
        base: `--base`, a folder or a hub id with config.json; None to look further.
        directory: The checkpoint's folder.
        keys: The checkpoint's sorted keys, whose shapes choose among the known bases.

    Raises:
        CheckpointError: The named base has no usable config, or none is found at all.
    """
    if base is not None:
        found = find_directory(base, "base model")
        config, why = _read_config(found / "config.json")
        if config is None:
            raise CheckpointError(
                f"the base model {base} has no usable config.json",
                got=why,
                expected="a Hugging Face config with a model_type",
                fix="pass --base with a folder or hub id of the base language model",
            )
        return Base(str(base), config)
    config, why = _read_config(directory / "config.json")
    if config is not None:
        return Base(str(directory), config)
    notes = () if why == "no such file" else (f"passed over {directory / 'config.json'}: {why}",)
    for name, values in KNOWN_BASES.items():
        config = AutoConfig.for_model(**values)
        if _fits(config, keys):
            why_not = f"config.json beside the weights: {why}; the weights have this model's shapes"
            return Base(name, config, True, notes, (Assumption("base model", name, why_not, "--base"),))
    raise CheckpointError(
        "the checkpoint does not say which base model it was trained on, and its shapes fit none that is known",
        got=f"{keys.num_layers} layers of width {keys.embedding.shape[-1]}; {directory / 'config.json'}: {why}",
        expected=", ".join(KNOWN_BASES),
        fix="pass --base with a folder or hub id that holds the base model's config.json and tokenizer",
    )


def refuse_sliding_window(config: PretrainedConfig, name: str) -> None:
    """Refuse a model with layers that do not attend to everything before them.

    Raises:
        ModelError: It has some.
    """
    layer_types = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if any("full" not in kind for kind in layer_types) or (window is not None and not layer_types):
        raise ModelError(
            f"{name} has layers that do not attend to everything before them",
            got=f"sliding_window={window}, layer_types={sorted(set(layer_types))}",
            expected="full causal attention in every layer",
            fix="take a checkpoint on a base without a sliding window; no option makes this base run",
        )


def _read_config(path: Path) -> tuple[PretrainedConfig | None, str]:
    """Returns the config, or None and why it cannot be used."""
    if not path.is_file():
        return None, "no such file"
    if path.stat().st_size == 0:
        return None, "empty (0 bytes)"
    try:
        values = read_object(path)
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    if values is None:
        return None, "not JSON"
    if "model_type" not in values:
        return None, "no model_type in it"
    if absurd := next((name for name, value in values.items() if _absurd(name, value)), None):
        return None, f"{absurd} = {values[absurd]} is larger than any model's"
    values = {name: value for name, value in values.items() if name not in _UNUSED}
    try:
        config = AutoConfig.for_model(**values)
    except Exception as error:  # config classes validate with many exception types
        return None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
    return config, ""


def _absurd(name: str, value: object) -> bool:
    """Whether a number in a config would make building the empty model slow or large."""
    if not isinstance(value, int | float) or "theta" in name:
        return False
    return not abs(value) <= (_MOST_LAYERS if "layer" in name and isinstance(value, int) else _MOST)


def _fits(config: PretrainedConfig, keys: StateKeys) -> bool:
    """Whether layers, width and a parameter name of this architecture agree; the rows are judged later, by name."""
    marker = "transformer.wte.weight" if config.model_type == "gpt2" else "model.layers.0.self_attn.q_proj.weight"
    sizes = (keys.num_layers, keys.embedding.shape[-1])
    return marker in keys.lm and sizes == (config.num_hidden_layers, config.hidden_size)


def _gpt2(d_model: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": d_model,
        "n_layer": layers,
        "n_head": heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "tie_word_embeddings": True,
    }


def _llama3(d_model: int, layers: int, heads: int, inner: int, *, rope_factor: float, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": d_model // heads,
        "intermediate_size": inner,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "tie_word_embeddings": tied,
    }


# The public config.json values of the bases that published checkpoints were trained on.
KNOWN_BASES: Mapping[str, Mapping[str, Any]] = {
    "openai-community/gpt2": _gpt2(768, 12, 12),
    "openai-community/gpt2-medium": _gpt2(1024, 24, 16),
    "meta-llama/Llama-3.2-1B-Instruct": _llama3(2048, 16, 32, 8192, rope_factor=32.0, tied=True),
    "meta-llama/Llama-3.2-3B-Instruct": _llama3(3072, 28, 24, 8192, rope_factor=32.0, tied=True),
    "meta-llama/Llama-3.1-8B-Instruct": _llama3(4096, 32, 32, 14336, rope_factor=8.0, tied=False),
}
