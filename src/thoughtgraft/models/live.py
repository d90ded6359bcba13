"""A loaded model against what it was when it was made: hooks, edits in place and replaced parts change its answers.

Records and thoughts are kept under the identity of the model that was loaded. Whoever edits that model, by a hook or in
place, has another model, which must not be given the first one's records. So everything that runs asks `admitted`,
which reads all numbers again: an edit in place leaves no other trace.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import chain
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.parametrize import is_parametrized
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from thoughtgraft.arguments import shown
from thoughtgraft.errors import ModelError, differences
from thoughtgraft.models.identity import effective_config, tokenizer_content, tokenizer_glance

if TYPE_CHECKING:
    from thoughtgraft.models.reasoner import LatentReasoner

_Model = TypeVar("_Model", bound="LatentReasoner")

_SHOWN = 3
_LONGEST_NAME = 100
# Hooks that change nothing: the engine's own, for as long as a block lasts, and those by which the library keeps what
# it is asked to return.
_OUR_HOOKS = ("thoughtgraft.", "transformers.utils.output_capturing")
_HOOKS = {"_forward_pre_hooks": "forward pre-hook", "_forward_hooks": "forward hook"}


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
        return cls(effective_config(config), content, glance, _numbers(parts), _build(parts))


def admitted(model: _Model, identity: str | None = None) -> _Model:
    """The model as it may run: as it was made, or with its edits named.

    Args:
        model: The model.
        identity: What the user calls the edits of the loaded model. The name and a checksum over what was found enter
            the model's identity, so that another edit under the same name is another model.

    Raises:
        ModelError: It is not as it was made and no name is given, or the name is no name.
    """
    if identity is not None and not _is_name(identity):
        raise ModelError(
            "an edit of a loaded model needs a name that people can read",
            got=shown(identity),
            expected=f"1 to {_LONGEST_NAME} printable characters",
            fix='identity="my edit"',
        )
    found = changes(model)
    seen = _seen(found)
    if identity is not None:
        named = copy(model)
        named.edit = LiveEdit(identity, seen)
        return named
    if (seen == model.edit.checksum) if model.edit else not found:
        return model
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ModelError(
        f"{model.name} is not as it was " + ("when its edit was named" if model.edit else "loaded"),
        got=(", ".join(list(found)[:_SHOWN]) or "no edit") + more,
        expected="the model that its identity names, since stored answers are kept under it",
        fix='take the change back; or name it with identity="...", which enters every record and page',
    )


@contextmanager
def as_it_is(model: LatentReasoner) -> Iterator[None]:
    """Take a model for unchanged while the block runs, whatever it is now; for who changed it and will change it back.

    What it is called and edits that were named stay.
    """
    made, edit = model.made, model.edit
    model.remember()
    if edit is not None:
        model.edit = LiveEdit(edit.name, _seen(changes(model)))
    try:
        yield
    finally:
        model.made, model.edit = made, edit


def changes(model: LatentReasoner) -> dict[str, str]:
    """What of a model is not as it was made: in words, each with a text or checksum of what is there now."""
    made, parts = model.made, model.parts
    found = dict(_hooks(parts))
    for name, value in vars(model).items():
        if callable(value) and callable(getattr(type(model), name, None)):
            found[f"another {name}() of the adapter"] = _code(value)
    numbers, build = _numbers(parts), _build(parts)
    for name in dict.fromkeys([*made.numbers, *numbers]):
        if (now := numbers.get(name)) != made.numbers.get(name):
            words = "is gone" if now is None else "is new" if name not in made.numbers else "has other numbers"
            found[f"{name} {words}"] = now or ""
    for name in dict.fromkeys([*made.build, *build]):
        if (now := build.get(name)) != made.build.get(name):
            words = "is gone" if now is None else "is new" if name not in made.build else "is another module"
            found[f"{name or 'the model itself'} {words}"] = now or ""
    for line in differences("config", made.config, effective_config(model.lm.config)):
        found[line] = ""
    if tokenizer_glance(model.tokenizer) != made.glance:
        for line in differences("tokenizer", made.tokenizer, tokenizer_content(model.tokenizer)):
            found[line] = ""
    return found


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= _LONGEST_NAME and value.isprintable()


def _seen(found: Mapping[str, str]) -> str:
    """One checksum over changes."""
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()[:16]


def _hooks(parts: Sequence[nn.Module]) -> Iterator[tuple[str, str]]:
    """Hooks and parametrizations, in words, with the code of each."""
    for kind, words in _HOOKS.items():
        for hook in vars(torch_module)[f"_global{kind}"].values():
            if not _is_ours(hook):
                yield f"a global module {words} ({_name(hook)})", _code(hook)
    for name, module in _modules(parts):
        for kind, words in _HOOKS.items():
            for i, hook in enumerate(h for h in getattr(module, kind).values() if not _is_ours(h)):
                again = f" {i + 1}" if i else ""
                yield f"a {words}{again} on {name} ({_name(hook)})", _code(hook)
        if is_parametrized(module):
            yield f"a parametrization of {name}", ""


def _modules(parts: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Every module by name; the second part's and later ones' names begin with its number."""
    for i, part in enumerate(parts):
        for name, module in part.named_modules():
            yield ".".join(filter(None, (f"part{i}" if i else "", name))), module


def _numbers(parts: Sequence[nn.Module]) -> dict[str, str]:
    """A checksum of every parameter, buffer and plain tensor, by name, over its bytes in their order."""
    named: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        for name, value in chain(part.named_parameters(), part.named_buffers()):
            named[f"part{i}.{name}" if i else name] = value
    for name, module in _modules(parts):
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


def _build(parts: Sequence[nn.Module]) -> dict[str, str]:
    """Of every module by name: its class, the plain values among its attributes, what runs in its forward pass."""
    codes: dict[type, str] = {}
    found = {}
    for name, module in _modules(parts):
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
    found = [_code(kind.forward)]
    inner: Any = inspect.unwrap(kind.forward)
    used = getattr(inner, "__globals__", {})
    for name in getattr(getattr(inner, "__code__", None), "co_names", ()):
        if isinstance(used.get(name), FunctionType):
            found.append(_code(used[name]))
    return ", ".join(dict.fromkeys([*found, _code(inner)]))


def _text(value: Any) -> str:
    """A plain value, or a function, as text; empty for what is neither."""
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.Size):
        return repr(value)
    if isinstance(value, tuple | list):
        return repr([_text(item) for item in value])
    return _code(value) if callable(value) and not isinstance(value, nn.Module) else ""


def _is_ours(hook: Callable[..., Any]) -> bool:
    return str(getattr(hook, "__module__", "")).startswith(_OUR_HOOKS)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _code(function: Any) -> str:
    """A function's name and bytecode, as one text; an object's class where it is no function."""
    inner = getattr(function, "__func__", function)
    inner = getattr(inner, "func", inner)  # of a partial
    code = getattr(inner, "__code__", None)
    digest = "" if code is None else f" {zlib.crc32(code.co_code + repr(code.co_names).encode()):08x}"
    return f"{getattr(inner, '__module__', '')}.{_name(inner)}{digest}"
