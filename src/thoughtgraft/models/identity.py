"""What a model is beside its weights, and what one was when it was made."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
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


# Hooks that change nothing: the engine's own, for as long as a block lasts, and those by which the library keeps what
# it is asked to return.
_OUR_HOOKS = ("thoughtgraft.", "transformers.utils.output_capturing")


@dataclass(frozen=True)
class LiveEdit:
    """What a user called the edits of a loaded model, and a checksum over all that was seen of them."""

    name: str
    checksum: str


@dataclass(frozen=True)
class Made:
    """What a model was when it was made.

    Attributes:
        config: What its forward pass reads.
        tokenizer: Its tokenizer's content.
        glance: A quick hash of that.
        numbers: A checksum of each parameter and buffer, by name.
        build: Of each module, by name, its class, its plain attributes and the code of its forward pass.
    """

    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    glance: str
    numbers: Mapping[str, str]
    build: Mapping[str, str]

    @classmethod
    def of(cls, parts: Sequence[nn.Module], config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Made:
        """Look at a model as it is now."""
        content, glance = tokenizer_content(tokenizer), tokenizer_glance(tokenizer)
        return cls(effective_config(config), content, glance, numbers_of(parts), build_of(parts))


def modules_of(parts: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Every module by name; the second part's and later ones' names begin with its number."""
    for i, part in enumerate(parts):
        for name, module in part.named_modules():
            yield ".".join(filter(None, (f"part{i}" if i else "", name))), module


def numbers_of(parts: Sequence[nn.Module]) -> dict[str, str]:
    """A checksum of every parameter, buffer and plain tensor, by name, over its bytes in their order."""
    named: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        for name, value in chain(part.named_parameters(), part.named_buffers()):
            named[f"part{i}.{name}" if i else name] = value
    for name, module in modules_of(parts):
        plain = {key: value for key, value in vars(module).items() if isinstance(value, Tensor)}
        named |= {f"{name}.{key}": value for key, value in plain.items()}
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # checksums let other threads run
        return dict(zip(named, pool.map(_checksum, named.values()), strict=True))


def _checksum(value: Tensor) -> str:
    shape = f"{value.dtype} {tuple(value.shape)}"
    if value.is_meta or not value.numel():
        return shape
    flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().view(-1)
    return f"{shape} {zlib.crc32(flat.view(torch.uint8).numpy().data):08x}"


def build_of(parts: Sequence[nn.Module]) -> dict[str, str]:
    """Of every module by name: its class, the plain values among its attributes, what runs in its forward pass."""
    codes: dict[type, str] = {}
    found = {}
    for name, module in modules_of(parts):
        kind = type(module)
        if kind not in codes:
            codes[kind] = _forward_code(kind)
        plain = {key: text for key, value in vars(module).items() if not key.startswith("_") and (text := _text(value))}
        writes = getattr(module, "generation_config", None)
        plain |= {} if writes is None else {"generation_config": repr(writes.to_diff_dict())}
        found[name] = f"{kind.__module__}.{kind.__qualname__} {plain} {codes[kind]}"
    return found


def _forward_code(kind: type[nn.Module]) -> str:
    """What a class runs: its forward pass, and the functions of its module that this calls."""
    found = [code_of(kind.forward)]
    inner: Any = inspect.unwrap(kind.forward)
    used = getattr(inner, "__globals__", {})
    for name in getattr(getattr(inner, "__code__", None), "co_names", ()):
        if isinstance(used.get(name), FunctionType):
            found.append(code_of(used[name]))
    return ", ".join(dict.fromkeys([*found, code_of(inner)]))


def _text(value: Any) -> str:
    """A plain value, or a function, as text; empty for what is neither."""
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.Size):
        return repr(value)
    if isinstance(value, tuple | list):
        return repr([_text(item) for item in value])
    return code_of(value) if callable(value) and not isinstance(value, nn.Module) else ""


def is_ours(hook: Callable[..., Any]) -> bool:
    """Whether a hook is one that changes nothing: the engine's, or the library's that keep outputs."""
    return str(getattr(hook, "__module__", "")).startswith(_OUR_HOOKS)


def name_of(function: Callable[..., Any]) -> str:
    """What a function or a callable object is called in its source."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def code_of(function: Any) -> str:
    """A function's name and bytecode, as one text; an object's class where it is no function."""
    inner = getattr(function, "__func__", function)
    inner = getattr(inner, "func", inner)  # of a partial
    code = getattr(inner, "__code__", None)
    digest = "" if code is None else f" {zlib.crc32(code.co_code + repr(code.co_names).encode()):08x}"
    return f"{getattr(inner, '__module__', '')}.{name_of(inner)}{digest}"
