"""Opens weight files lazily and safely: names and shapes first, bytes only when asked for, never any code."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.format import bare_name, family_of
from thoughtgraft.models.checkpoint.guards import (
    AGAIN,
    TRUST,
    check_legacy,
    check_name,
    check_safetensors,
    check_state,
    check_zip,
    file_size,
    unreadable,
)

_SHOWN = 4
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file: what it is, and how to read it.

    Attributes:
        name: Its key in the file.
        shape: Its shape.
        dtype: Its dtype in the file.
        read: Returns it on the CPU, possibly as a view of the mapped file: copy before keeping.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]


class TensorHasher:
    """sha256 over (name, dtype, shape, bytes) of tensors, whatever file format or order they came in."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Takes in one CPU tensor under its name in the file."""
        digest = hashlib.sha256(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self._digests[name] = digest.hexdigest()

    def hexdigest(self) -> str:
        """The hash over everything taken in, 64 hex digits."""
        lines = "\n".join(f"{name} {digest}" for name, digest in sorted(self._digests.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


class _Inert:
    """Stands where a pickle asks for numpy and the like: whatever it does with it, nothing happens, nothing is kept."""

    def __init__(self, *_: object) -> None:
        """Takes anything."""

    def __setstate__(self, state: object) -> None:
        """Takes anything."""


# A best score that was numpy's, say, or a script's arguments, saved beside the weights. None of their code is run.
_NUMPY = ("core", "_core")
_INERT: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_Inert, f"numpy.{core}.multiarray.{name}") for core in _NUMPY for name in ("scalar", "_reconstruct")),
    *((_Inert, name) for name in ("numpy.dtype", "numpy.ndarray", "_codecs.encode")),
    *((_Inert, name) for name in ("argparse.Namespace", "datetime.datetime", "datetime.timedelta")),
    *((_Inert, f"pathlib.{flavour}Path") for flavour in ("Posix", "PurePosix", "Windows", "PureWindows")),
]
_NESTING = 2  # dicts around a state dict: {"model": ...}, {"checkpoint": {"state_dict": ...}}


def open_tensors(paths: Iterable[Path], notes: list[str] | None = None) -> dict[str, StoredTensor]:
    """Lists the tensors of one file or of all shards without reading their bytes.

    Args:
        paths: `.safetensors` or `torch.save` files, told apart by their content.
        notes: Takes in what was passed over in the files, in words.

    Returns:
        Name -> tensor, over all files.

    Raises:
        CheckpointError: A file is empty, cut off, not a weight file, or holds code or no one state dict; or two shards
            hold the same name.
    """
    stored: dict[str, StoredTensor] = {}
    for path in paths:
        for name, tensor in _open_file(path, [] if notes is None else notes).items():
            if name in stored:
                raise CheckpointError(f"two shards hold {name}", got=str(path), fix="download the checkpoint again")
            stored[name] = tensor
    return stored


def _open_file(path: Path, notes: list[str]) -> dict[str, StoredTensor]:
    size = file_size(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise unreadable(path, error) from error
    if size == 0:
        raise CheckpointError(f"{path} is empty", got="0 bytes", fix=AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights",
            got=f"{size} bytes of text",
            fix="run `git lfs pull` in its folder, or use `hf download`",
        )
    if head.startswith(b"PK"):
        check_zip(path, size)
        return _open_torch(path, size, notes, data_start=None)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        check_safetensors(path, size)
        return _open_safetensors(path, size)
    return _open_torch(path, size, notes, data_start=check_legacy(path))


def _open_safetensors(path: Path, size: int) -> dict[str, StoredTensor]:
    try:
        # Kept open: every tensor's `read` goes through this one mapping.
        handle = safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file", got=f"{size:,} bytes ({_first_line(error)})", fix=AGAIN
        ) from error
    stored = {}
    for name in handle.keys():  # noqa: SIM118 - the handle is no mapping
        check_name(path, name)
        part = handle.get_slice(name)
        if part.get_dtype() not in _DTYPES:
            raise CheckpointError(
                f"{path} holds {name} in a quantised or unknown dtype",
                got=part.get_dtype(),
                expected=", ".join(_DTYPES),
                fix="use the unquantised checkpoint",
            )
        read = _reader(handle, name)
        stored[name] = StoredTensor(name, tuple(part.get_shape()), _DTYPES[part.get_dtype()], read)
    return stored


def _reader(handle: safe_open, name: str) -> Callable[[], torch.Tensor]:
    return lambda: handle.get_tensor(name)


def _open_torch(path: Path, size: int, notes: list[str], *, data_start: int | None) -> dict[str, StoredTensor]:
    """Opens a torch.save file: a zip, or, where its tensors' bytes begin at `data_start`, the older format."""
    legacy = data_start is not None
    loaded = _unpickle(path, size, mapped=not legacy, skip=legacy)
    place, others = _state_dict(path, loaded)
    state = {name: value for name, value in _at(loaded, place).items() if isinstance(value, torch.Tensor)}
    if others:
        inside = f" inside {'.'.join(map(str, place))}" if place else ""
        notes.append(f"passed over what lies beside the tensors{inside} in {path.name}: {', '.join(others)}")
    check_state(path, state, size - (data_start or 0), overhead=8 if legacy else 0)  # 8: the length before each block
    # The older format cannot be mapped: everything is read when the first tensor is.
    whole = cache(lambda: _at(_unpickle(path, size, mapped=False, skip=False), place)) if legacy else lambda: state
    return {
        str(name): StoredTensor(str(name), tuple(value.shape), value.dtype, _item(whole, name))
        for name, value in state.items()
    }


def _state_dict(path: Path, loaded: object) -> tuple[tuple[object, ...], list[str]]:
    """Where in a file's dicts the state dict lies, and the names of what is no part of it."""
    found = _holders(loaded, _NESTING) if isinstance(loaded, Mapping) else {}
    chosen = [place for place in found if family_of(bare_name(str(name)) for name in found[place]) is not None] or list(
        found
    )
    if len(chosen) != 1:
        listed = ", ".join(".".join(map(str, place)) or "the outermost dict" for place in chosen[:_SHOWN])
        names = ", ".join(map(str, list(loaded)[:_SHOWN])) if isinstance(loaded, Mapping) else ""
        got = f"tensors in {listed}" if chosen else f"a dict with {names}" if names else type(loaded)
        raise CheckpointError(
            f"{path} is not a state dict" if not chosen else f"{path} holds {len(chosen)} state dicts",
            got=str(got)[:160],
            expected="name -> tensor",
            fix="save model.state_dict() alone, not a training state around it"
            if not chosen
            else f"save one of them alone: torch.save(torch.load({path.name!r})[...], 'pytorch_model.bin')",
        )
    [place] = chosen
    outer = [_at(loaded, place[:depth]) for depth in range(len(place))]
    around = [str(name) for level, step in zip(outer, place, strict=False) for name in level if name != step]
    return place, around + [str(n) for n, v in _at(loaded, place).items() if not isinstance(v, torch.Tensor)]


def _holders(loaded: Mapping[object, object], depth: int) -> dict[tuple[object, ...], list[object]]:
    """Every dict that holds tensors itself: the keys that lead to it -> the names of its tensors."""
    own = [name for name, value in loaded.items() if isinstance(value, torch.Tensor)]
    found: dict[tuple[object, ...], list[object]] = {(): own} if own else {}
    for name, value in loaded.items() if depth else ():
        if isinstance(value, Mapping):
            found |= {(name, *place): names for place, names in _holders(value, depth - 1).items()}
    return found


def _at(loaded: Any, place: Sequence[object]) -> Any:
    for name in place:
        loaded = loaded[name]
    return loaded


def _unpickle(path: Path, size: int, *, mapped: bool, skip: bool) -> Any:
    """torch.load under its own allow-list; `mapped` reads page by page, `skip` leaves the tensors' bytes unread."""
    try:
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # about pickle protocols: weights_only decides below
            stack.enter_context(torch.serialization.safe_globals(_INERT))
            if skip:
                stack.enter_context(torch.serialization.skip_data())
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds pickled code or is no weight file; it was refused and nothing in it was executed",
            got=_refused(error),
            expected="a plain dict of tensors, as torch.save(model.state_dict(), ...) writes",
            fix=TRUST,
        ) from error
    except (RuntimeError, EOFError, LookupError, ValueError, OSError, TypeError, AttributeError, MemoryError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a weight file", got=f"{size:,} bytes ({_first_line(error)})", fix=AGAIN
        ) from error


def _item(whole: Callable[[], Any], name: object) -> Callable[[], torch.Tensor]:
    return lambda: whole()[name]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:160] or type(error).__name__


def _refused(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return lines[0].strip()[:160] if lines else _first_line(error)
