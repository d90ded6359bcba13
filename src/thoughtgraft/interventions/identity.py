"""What tells two edits of one's own apart: the function's name, its code, and the values that it uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_DEEPEST = 6


def op_identity(op: Callable[..., Any]) -> str:
    """A text that two edits share only if they do the same, as far as can be seen without running them.

    An attribute `identity` speaks for itself. Otherwise it is the name and a hash of the bytecode, the defaults, what
    a closure holds, and the globals that the code names: numbers, texts, containers, tensors, functions of the same
    module. Of other objects only the type is looked at. Bytecode differs between versions of Python.
    """
    given = getattr(op, "identity", None)
    if isinstance(given, str) and given:
        return given
    named = op if hasattr(op, "__qualname__") else type(op)
    text = json.dumps(_content(op, 0), sort_keys=True)
    return f"{named.__module__}.{named.__qualname__} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _content(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if depth > _DEEPEST:
        return _kind(value)
    deeper = depth + 1
    match value:
        case FunctionType():
            return _function(value, deeper)
        case CodeType():
            return [value.co_code.hex(), [_content(c, deeper) for c in value.co_consts], list(value.co_names)]
        case MethodType():
            return [_content(value.__func__, deeper), _content(value.__self__, deeper)]
        case partial():
            return [_content(part, deeper) for part in (value.func, value.args, value.keywords)]
        case ModuleType():
            return value.__name__
        case Mapping():
            return sorted([str(k), _content(v, deeper)] for k, v in value.items())
        case set() | frozenset():
            return sorted(json.dumps(_content(v, deeper), sort_keys=True) for v in value)
        case list() | tuple():
            return [_content(v, deeper) for v in value]
    if hasattr(value, "dtype") and hasattr(value, "shape"):  # numpy's or torch's, without importing either
        array = value.detach().cpu().double().numpy() if hasattr(value, "detach") else value
        return [str(value.dtype), list(value.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if is_dataclass(value) and not isinstance(value, type):
        return [_kind(value), *([f.name, _content(getattr(value, f.name), deeper)] for f in fields(value))]
    return _kind(value)


def _function(function: FunctionType, depth: int) -> Any:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    used = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    # Functions of other modules are their libraries' business.
    own = {
        name: value
        for name, value in used.items()
        if not isinstance(value, FunctionType) or (value.__module__ == function.__module__ and value is not function)
    }
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells, own)
    return [_content(part, depth) for part in parts]


def _names(code: CodeType) -> list[str]:
    """Global names in a function's code and in that of the functions inside it."""
    inner = [name for c in code.co_consts if isinstance(c, CodeType) for name in _names(c)]
    return sorted({*code.co_names, *inner})


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # not assigned yet
        return False


def _kind(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
