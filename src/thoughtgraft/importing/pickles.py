"""Reads a pickled cache of tensors without executing anything in it.

Three names may be called, and each is replaced by a version of ours. `torch.storage._load_from_bytes` in particular
would itself unpickle whatever its bytes hold: here they go through torch's own allow-list (`weights_only=True`).
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thoughtgraft.errors import ForeignFileError

_MOST_BYTES = 1 << 30
_MOST_STEPS = 1_000_000  # about 50 a problem
_STORAGE_STEPS = 2_000  # torch pickles one storage in about 60
_STORAGE_PICKLES = 5
# What plain data and calls of the three names need. Left out on purpose: whatever builds objects or sets their state.
_PLAIN = set(
    """PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET NONE NEWTRUE NEWFALSE BININT BININT1
    BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 EMPTY_DICT
    SETITEM SETITEMS EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL
    REDUCE""".split()
)
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_FIX = "export the data as .npz or .safetensors where it was made, and use that"


def read_pickle(path: Path) -> Any:
    """The content of a pickle that holds plain data and tensors; tensors come as float32 arrays.

    Raises:
        ForeignFileError: It is too large, damaged, or holds anything else; nothing in it was executed.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ForeignFileError(f"{path} is larger than any cache", got=f"{path.stat().st_size:,} bytes", fix=_FIX)
        data = path.read_bytes()
    except OSError as error:
        raise ForeignFileError(f"{path} cannot be read", got=error.strerror) from error
    try:
        _scan(data, 1, _MOST_STEPS, plain=True)
        return _Unpickler(io.BytesIO(data)).load()
    except _RefusedError as error:
        raise ForeignFileError(
            f"{path} was refused and nothing in it was executed",
            got=str(error)[:160],
            expected="plain data and torch tensors, as CoT_Exploration's caches hold",
            fix=_FIX,
        ) from error
    except Exception as error:  # a damaged pickle fails in any step of its machine, with that step's error
        raise ForeignFileError(
            f"{path} is damaged or no pickle",
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}",
            fix="copy it again; it may have been cut off",
        ) from error


class _RefusedError(Exception):
    """A pickle asks for something that data does not need."""


def _scan(data: bytes, pickles: int, most: int, *, plain: bool) -> None:
    """Walks the steps of some pickles, executing none: refuses too many, and those that plain data do not need."""
    file, steps = io.BytesIO(data), 0
    for _ in range(pickles):
        for step, argument, _place in pickletools.genops(file):
            steps += 1
            if steps > most:
                raise _RefusedError(f"more than {most:,} steps")
            if plain and step.name not in _PLAIN:
                raise _RefusedError(f"the step {step.name}, which builds objects")
            # A number far past the last one would make the reader clear gigabytes for its notes.
            if step.name in _PUT and int(argument or 0) > steps:
                raise _RefusedError("a memory place far outside")


class _Unpickler(pickle.Unpickler):
    """Plain data, and three calls of our own."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _CALLS:
            raise _RefusedError(f"{module}.{name}"[:120])
        return _CALLS[module, name]


def _storage(data: object) -> torch.TypedStorage:
    """A tensor's numbers from their bytes, in the place of `torch.storage._load_from_bytes`."""
    if not isinstance(data, bytes):
        raise _RefusedError("a storage that is not bytes")
    _scan(data, _STORAGE_PICKLES, _STORAGE_STEPS, plain=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about typed storages, which are what these files hold
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _RefusedError("code inside a tensor's bytes") from error
    if not isinstance(found, torch.TypedStorage):
        raise _RefusedError(f"{type(found).__name__} in the place of a tensor's numbers")
    return found


def _tensor(storage: object, offset: object, size: object, stride: object, *_unused: object) -> np.ndarray:
    """A float32 array, in the place of `torch._utils._rebuild_tensor_v2`; only whole contiguous tensors."""
    if not isinstance(storage, torch.TypedStorage) or not isinstance(offset, int) or offset < 0:
        raise _RefusedError("a tensor without numbers")
    if not all(isinstance(axis, tuple) and all(isinstance(n, int) and n >= 0 for n in axis) for axis in (size, stride)):
        raise _RefusedError("a tensor without a shape")
    assert isinstance(size, tuple)
    # Strides of 0 can claim any size; what torch writes for a contiguous tensor is the only layout that is read.
    if stride != tuple(prod(size[axis + 1 :]) for axis in range(len(size))):
        raise _RefusedError(f"a tensor with strides {stride} for {size}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = storage.nbytes() // storage.element_size()
        if offset + prod(size) > held:
            raise _RefusedError(f"a tensor {size} of {held:,} numbers")
        values = torch.empty(0, dtype=storage.dtype).set_(storage.untyped(), offset, size, stride)
    return values.float().numpy().copy()


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): OrderedDict,
}
