"""The base model behind a checkpoint: its Hugging Face config and where its tokenizer lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.families import Family
from thoughtgraft.models.keys import StateKeys
from thoughtgraft.models.sources import find_directory, read_object

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


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


# Labels of a classifier cost memory by their number; code from elsewhere is never run.
_UNUSED = ("num_labels", "id2label", "label2id", "auto_map")
_MOST, _MOST_LAYERS = 1 << 24, 1 << 12
_MOST_TEXT = 64 << 20  # bytes of a tokenizer's file


@dataclass(frozen=True)
class Base:
    """A base model's config and the source of its tokenizer.

    Attributes:
        name: Where the config came from: a folder, a hub id, or the known base that the weights fit.
        config: The Hugging Face config, with the base vocabulary V as `vocab_size`.
        known: Whether the config came from the table of known bases.
        notes: What was passed over on the way, in words.
    """

    name: str
    config: PretrainedConfig
    known: bool = False
    notes: tuple[str, ...] = ()


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
            return Base(
                name, config, known=True, notes=(*notes, f"base config: {name}, which fits the weights' shapes")
            )
    raise CheckpointError(
        "the checkpoint does not say which base model it was trained on, and its shapes fit none that is known",
        got=f"{keys.num_layers} layers of width {keys.embedding.shape[-1]}; {directory / 'config.json'}: {why}",
        expected=", ".join(KNOWN_BASES),
        fix="pass --base with a folder or hub id that holds the base model's config.json and tokenizer",
    )


def load_tokenizer(
    tokenizer: str | Path | PreTrainedTokenizerBase | None, directory: Path, base: Base, family: Family
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer: what the user gave, else the checkpoint's own, else the base model's.

    Raises:
        CheckpointError: It cannot be found or read, or its ids reach into the rows that the family adds.
    """
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        loaded, origin = tokenizer, type(tokenizer).__name__
    else:
        if tokenizer is not None:
            folder = find_directory(tokenizer, "tokenizer")
        elif any((directory / name).is_file() for name in _TOKENIZER_FILES):
            folder = directory
        else:
            folder = _base_directory(base)
        origin = str(tokenizer or folder)
        loaded = _read_tokenizer(folder, base.config)
    _check_tokenizer(loaded, origin, base, family)
    return loaded


def _read_tokenizer(folder: Path, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(
            f"{folder} holds no tokenizer",
            expected=" or ".join(_TOKENIZER_FILES),
            fix="pass --tokenizer with a folder or hub id of the base model's tokenizer",
        )
    large = [name for name in _TOKENIZER_FILES if (folder / name).is_file() and _bytes(folder / name) > _MOST_TEXT]
    if large:
        raise CheckpointError(
            f"{folder / large[0]} is larger than any tokenizer",
            got=f"{_bytes(folder / large[0]):,} bytes",
            expected=f"at most {_MOST_TEXT:,}",
            fix="pass --tokenizer with the base model's own tokenizer",
        )
    try:
        # The config is handed over because the folder's own config.json may be empty.
        return AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be read",
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}",
            fix="download it again, or pass --tokenizer with another folder or hub id",
        ) from error


def _base_directory(base: Base) -> Path:
    try:
        return find_directory(base.name, "base model")
    except CheckpointError as error:
        mirror = base.name.replace("meta-llama/", "unsloth/")
        open_copy = f", or the ungated copy: --tokenizer {mirror}" if mirror != base.name else ""
        raise CheckpointError(
            f"the tokenizer of {base.name} is needed and cannot be had",
            got=error.what,
            fix=f"run `hf download {base.name} --include '*.json' '*.txt'` where there is a network, "
            f"or pass --tokenizer with a folder{open_copy}",
        ) from error


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, origin: str, base: Base, family: Family) -> None:
    vocab = base.config.vocab_size
    # A family's own token in its own row is no clash. CODI's official code adds [PAD] to the tokenizer, at V.
    own = {name: vocab + row for row, name in enumerate(family.rows)} if family.in_tokenizer else {}
    pad = None if family.pad is None else vocab + family.pad
    ids = {
        i
        for token, i in tokenizer.get_vocab().items()
        if own.get(token) != i and (i != pad or i != tokenizer.pad_token_id)
    }
    size = max(ids, default=-1) + 1
    if size > vocab or (base.known and size != vocab):
        limit = "exactly" if base.known else "at most"
        raise CheckpointError(
            f"the tokenizer {origin} is not that of {base.name}",
            got=f"ids up to {size - 1}",
            expected=f"{limit} {vocab} ids, below the rows of {', '.join(family.rows)}",
            fix="pass --tokenizer with the base model's own tokenizer",
        )


def _read_config(path: Path) -> tuple[PretrainedConfig | None, str]:
    """Returns the config, or None and why it cannot be used."""
    if not path.is_file():
        return None, "no such file"
    if _bytes(path) == 0:
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


def _bytes(path: Path) -> int:
    return path.stat().st_size


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
