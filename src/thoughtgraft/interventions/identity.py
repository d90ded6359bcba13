"""What tells two edits of one's own apart: the function's name, its code, and the values that it uses."""

from __future__ import annotations

import dis
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_DEEPEST = 8


def op_identity(op: Callable[..., Any]) -> str:
    """A text that two edits share only if they do the same, as far as can be seen without running them.

    An attribute `identity` speaks for itself. Otherwise it is the name and a hash of the bytecode, the defaults, what
    a closure or an object holds, and the globals that the code names: numbers, texts, containers, arrays, functions of
    the same module. An edit that changes what it reads, a list that it appends to, is another one afterwards; give it
    an `identity`. Bytecode differs between versions of Python.
    """
    given = getattr(op, "identity", None)
    if isinstance(given, str) and given:
        return given
    text = json.dumps(_content(op, 0), sort_keys=True)
    return f"{_kind(op)} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _content(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | slice | range):
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
            return sorted((json.dumps([repr(k), _content(v, deeper)], sort_keys=True) for k, v in value.items()))
        case set() | frozenset():
            return sorted(json.dumps(_content(v, deeper), sort_keys=True) for v in value)
        case list() | tuple():
            return [_content(v, deeper) for v in value]
    found = _array(value, deeper)
    return _object(value, deeper) if found is None else found


def _array(value: Any, depth: int) -> Any:
    """The numbers of numpy's and torch's arrays, without importing either; None for what is neither."""
    library = type(value).__module__.partition(".")[0]
    if library == "pandas" and hasattr(value, "to_numpy"):
        value, library = value.to_numpy(), "numpy"
    if type(value).__name__ == "dtype":
        return repr(value)
    if library == "torch" and hasattr(value, "detach"):
        shape = [str(value.dtype), list(value.shape), str(value.layout)]
        if value.is_meta or str(value.layout) != "torch.strided":
            return shape
        value = value.detach().cpu().resolve_conj().resolve_neg()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return [*shape, hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()]
    if library == "numpy" and hasattr(value, "tobytes"):
        shape = [str(value.dtype), list(value.shape)]
        if value.dtype.hasobject:
            return [*shape, _content(value.tolist(), depth)]
        return [*shape, hashlib.sha256(value.tobytes()).hexdigest()]
    return None


def _object(value: Any, depth: int) -> Any:
    """An object: what it says of itself, else its type, the code that calls it, and its attributes."""
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return _kind(value)
    if isinstance(given := getattr(value, "identity", None), str | Mapping):
        return [_kind(value), _content(given, depth)]
    calls = [getattr(type(value), name, None) for name in ("__call__", "forward")]
    code = [_function(call, depth) for call in calls if isinstance(call, FunctionType)]
    return [_kind(value), code, _content(vars(value), depth)]


def _function(function: FunctionType, depth: int) -> Any:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    used = {name: function.__globals__[name] for name in _globals(function.__code__) if name in function.__globals__}
    # Functions of other modules are their libraries' business.
    own = {
        name: value
        for name, value in used.items()
        if not isinstance(value, FunctionType) or (value.__module__ == function.__module__ and value is not function)
    }
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells, own)
    return [_content(part, depth + 1) for part in parts]


def _globals(code: CodeType) -> list[str]:
    """Names that a function's code, and that of the functions inside it, looks up outside of itself."""
    inner = [name for c in code.co_consts if isinstance(c, CodeType) for name in _globals(c)]
    own = [i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    return sorted({*own, *inner})


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # not assigned yet
        return False


def _kind(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
