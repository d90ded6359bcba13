"""Opens weight files lazily and safely: names and shapes first, bytes only when asked for, never any code."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from thoughtgraft.errors import CheckpointError

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
_AGAIN = "download or copy the file again; it may have been cut off"


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


def open_tensors(paths: Iterable[Path]) -> dict[str, StoredTensor]:
    """Lists the tensors of one file or of all shards without reading their bytes.

    Args:
        paths: `.safetensors` or `torch.save` files, told apart by their content.

    Returns:
        Name -> tensor, over all files.

    Raises:
        CheckpointError: A file is empty, cut off, not a weight file, or holds anything but tensors; or two shards
            hold the same name.
    """
    stored: dict[str, StoredTensor] = {}
    for path in paths:
        for name, tensor in _open_file(path).items():
            if name in stored:
                raise CheckpointError(f"two shards hold {name}", got=str(path), fix="download the checkpoint again")
            stored[name] = tensor
    return stored


def _open_file(path: Path) -> dict[str, StoredTensor]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read", got=error.strerror, fix="check the file's permissions"
        ) from error
    if size == 0:
        raise CheckpointError(f"{path} is empty", got="0 bytes", fix=_AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights",
            got=f"{size} bytes of text",
            fix="run `git lfs pull` in its folder, or use `hf download`",
        )
    if head.startswith(b"PK"):
        return _open_torch(path, size, zipped=True)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return _open_safetensors(path, size)
    return _open_torch(path, size, zipped=False)


def _open_safetensors(path: Path, size: int) -> dict[str, StoredTensor]:
    try:
        # Kept open: every tensor's `read` goes through this one mapping.
        handle = safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file", got=f"{size:,} bytes ({error})", fix=_AGAIN
        ) from error
    stored = {}
    for name in handle.keys():  # noqa: SIM118 - the handle is no mapping
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


def _open_torch(path: Path, size: int, *, zipped: bool) -> dict[str, StoredTensor]:
    if zipped:
        _check_zip(path, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: weights_only decides below
            # A mapped file is read page by page, so memory holds the weights once; the old format cannot be mapped.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds pickled code or is no weight file; it was refused and nothing in it was executed",
            got=_refused(error),
            expected="a plain dict of tensors, as torch.save(model.state_dict(), ...) writes",
            fix="get the checkpoint as .safetensors, or from a source that you trust",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a weight file", got=f"{size:,} bytes ({_first_line(error)})", fix=_AGAIN
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        got = f"a dict with {', '.join(map(str, list(state)[:4]))}" if isinstance(state, Mapping) else type(state)
        raise CheckpointError(
            f"{path} is not a state dict",
            got=got,
            expected="name -> tensor",
            fix="save model.state_dict() alone, not a training state around it",
        )
    return {
        str(name): StoredTensor(str(name), tuple(value.shape), value.dtype, _constant(value))
        for name, value in state.items()
    }


def _constant(value: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: value


def _check_zip(path: Path, size: int) -> None:
    """torch.save stores its entries uncompressed: a compressed one is not its work and may unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated", got=f"{size:,} bytes ({error})", fix=_AGAIN) from error
    if packed:
        raise CheckpointError(
            f"{path} is a compressed archive, not a weight file",
            got=f"compressed entry {packed[0]}",
            expected="a file written by torch.save",
            fix="unpack it and pass the weight file",
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:160] or type(error).__name__


def _refused(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return lines[0].strip()[:160] if lines else _first_line(error)
