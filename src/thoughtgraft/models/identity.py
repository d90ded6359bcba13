"""What a model is beside its weights: the config that its forward pass reads, and its tokenizer's content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

# What a config may hold and no number can hang on: names, versions, how outputs are packed, what only training reads.
# Everything else counts, unknown keys too. The dtype is told apart by itself.
NEVER_READ = frozenset(
    {
        "_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "architectures", "auto_map", "dtype",
        "torch_dtype", "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "use_cache",
        "output_attentions", "output_hidden_states", "return_dict", "torchscript", "initializer_range",
        "gradient_checkpointing", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params",
        "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
        "attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout", "classifier_dropout",
    }
)  # fmt: skip

# Of a tokenizer's file: its format, and what every call sets anew.
_NOT_CONTENT = ("version", "truncation", "padding")


def effective_config(config: PretrainedConfig) -> dict[str, Any]:
    """Everything of a config that can change a number, defaults included, as JSON has it."""
    return _plain(config.to_dict())


def tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What a tokenizer does to text, part by part: hashes of what its files hold, and its special ids.

    A part that two tokenizers share has the same hash, so that what differs can be named: `vocabulary`, `merges` ...
    """
    content: dict[str, Any] = {name: _digest(value) for name, value in _parts(tokenizer).items() if value is not None}
    for name in ("eos_token_id", "bos_token_id", "clean_up_tokenization_spaces", "split_special_tokens"):
        content[name] = _plain(getattr(tokenizer, name, None))
    return content | {"size": len(tokenizer), "special_ids": sorted(tokenizer.all_special_ids)}


def tokenizer_glance(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash that is the same only where the content is; several times as fast to make as `tokenizer_content`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = tokenizer_content(tokenizer) if backend is None else backend.to_str()
    names = ("eos_token_id", "all_special_ids", "clean_up_tokenization_spaces", "split_special_tokens")
    return _digest([content, *(_plain(getattr(tokenizer, name, None)) for name in names)])


def _parts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        model = state.pop("model")
        found = {"vocabulary": model.pop("vocab", None), "merges": model.pop("merges", None), "model": model}
        return found | {name: value for name, value in state.items() if name not in _NOT_CONTENT}
    # One that is written in Python: its class is its rules.
    pieces = getattr(tokenizer, "sp_model", None)
    return {
        "class": type(tokenizer).__name__,
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "merges": sorted(map(str, getattr(tokenizer, "bpe_ranks", {}).items())),
        "pieces": None if pieces is None else pieces.serialized_model_proto().hex(),
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it; mappings without the keys that are never read."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if key not in NEVER_READ}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
