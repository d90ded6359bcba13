"""Whether a loaded model still is what it was when it was made; edits of it are named or refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TypeVar

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.parametrize import is_parametrized

from thoughtgraft.arguments import shown
from thoughtgraft.errors import ModelError, differences
from thoughtgraft.models.identity import (
    LiveEdit,
    build_of,
    code_of,
    effective_config,
    is_ours,
    modules_of,
    name_of,
    numbers_of,
    tokenizer_content,
    tokenizer_glance,
)
from thoughtgraft.models.reasoner import LatentReasoner

_Model = TypeVar("_Model", bound="LatentReasoner")


_SHOWN = 3


_LONGEST_NAME = 100


_HOOKS = {"_forward_pre_hooks": "forward pre-hook", "_forward_hooks": "forward hook"}


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
            found[f"another {name}() of the adapter"] = code_of(value)
    numbers, build = numbers_of(parts), build_of(parts)
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
            if not is_ours(hook):
                yield f"a global module {words} ({name_of(hook)})", code_of(hook)
    for name, module in modules_of(parts):
        for kind, words in _HOOKS.items():
            for i, hook in enumerate(h for h in getattr(module, kind).values() if not is_ours(h)):
                again = f" {i + 1}" if i else ""
                yield f"a {words}{again} on {name} ({name_of(hook)})", code_of(hook)
        if is_parametrized(module):
            yield f"a parametrization of {name}", ""
