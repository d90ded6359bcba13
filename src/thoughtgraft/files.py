"""Files on disk: atomic writes, JSON read within bounds, tensors."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import RunError

TMP_PREFIX = ".tmp-"
SWEEP_AGE_S = 60.0

_FIXES = {
    errno.ENOSPC: "free some disk space, then run the same command again: everything stored before is unharmed",
    errno.EDQUOT: "free some of your disk quota, then run the same command again: everything stored before is unharmed",
    errno.EROFS: "choose a folder on a writable disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENOENT: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "choose a path whose parents are folders",
}


def io_error(what: str, error: OSError) -> RunError:
    """The user's version of an operating-system error."""
    fix = _FIXES.get(error.errno or 0, "check the disk, then run the same command again")
    return RunError(what, got=error.strerror or str(error), fix=fix)


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        RunError: It cannot be created, or a file is in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RunError(f"{path} is a file", expected="a folder", fix="choose another folder with --out") from error
    except OSError as error:
        raise io_error(f"the folder {path} cannot be created", error) from error


def sync_folder(path: Path) -> None:
    """Make renames and deletions in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename itself is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes | memoryview, *, sync: bool = True) -> None:
    """Write a file so that any reader, at any moment, sees the old file or the new one, whole.

    Args:
        path: The file; its folder must exist.
        data: The whole content.
        sync: Force it to disk. False only for what may be lost, such as a heartbeat.

    Raises:
        RunError: The disk is full, read-only or broken. Nothing is left behind and `path` is as it was.
    """
    tmp = path.with_name(f"{TMP_PREFIX}{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        with tmp.open("wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        tmp.replace(path)
        if sync:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            tmp.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise io_error(f"{path} cannot be written", error) from error
        raise


def sweep(folder: Path, *, min_age_s: float = SWEEP_AGE_S) -> int:
    """Remove what killed writers left in a folder; how many files that were.

    Args:
        folder: Searched itself, not below.
        min_age_s: Seconds; younger leftovers may belong to a writer at work and stay.
    """
    removed = 0
    for tmp in folder.glob(f"{TMP_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - tmp.stat().st_mtime >= min_age_s:
                tmp.unlink()
                removed += 1
    return removed


DAMAGE_FIX = "restore it from a copy, or start again with --out another folder"


def to_json(obj: Any, name: str) -> bytes:
    """`obj` as JSON text in UTF-8.

    Raises:
        RunError: It holds something that JSON has no word for; `name` says which file it was for.
    """
    try:
        return (json.dumps(obj, indent=1, default=_plain, allow_nan=False, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{name} cannot be written as JSON", got=str(error), fix="use null for what is undefined"
        ) from error


def _plain(value: Any) -> Any:
    """What JSON does not know but this project writes."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        RunError: It is missing, unreadable or damaged.
    """
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{file} is missing") from error
    except OSError as error:
        raise io_error(f"{file} cannot be read", error) from error
    except ValueError as error:
        raise RunError(f"{file} is damaged", got=str(error), expected="JSON", fix=DAMAGE_FIX) from error


# numpy knows no bfloat16: its bits are the upper half of a float32's.
_BFLOAT16 = "BF16"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", _BFLOAT16: "<u2"}
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """A floating-point tensor as it lies in a file or in memory.

    Attributes:
        values: The numbers, or the bits of bfloat16 numbers.
        bfloat16: Whether they are such bits.
    """

    values: np.ndarray
    bfloat16: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.values.shape

    def take(self, index: Any) -> np.ndarray:
        """The part at a numpy index, as float32 in memory."""
        part = np.asarray(self.values[index])
        if self.bfloat16:
            return (part.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):  # What does not fit becomes infinite, which readers refuse by name.
            return part.astype(np.float32)


def map_tensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The floating-point tensors of a safetensors file, and its metadata.

    Tensors of other types are left out.

    Raises:
        RunError: The file is missing, unreadable or damaged.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start, header = _header(file.read(8), file.read, size)
        metadata = {str(k): str(v) for k, v in (header.pop("__metadata__", None) or {}).items()}
        tensors = {}
        for name, entry in header.items():
            if entry["dtype"] in _DTYPES:
                tensors[name] = _mapped(path, entry, start, size)
    except FileNotFoundError as error:
        raise RunError(f"there is no file {path}", fix="check the path") from error
    except OSError as error:
        raise io_error(f"{path} cannot be read", error) from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise RunError(
            f"{path} is not a readable safetensors file",
            got=f"{type(error).__name__}: {error}",
            fix="delete it and make it again",
        ) from error
    return tensors, metadata


def tensor_bytes(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors as the content of a safetensors file, each in its own type, bfloat16 included."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    names = {dtype: name for name, dtype in _DTYPES.items() if name != _BFLOAT16}
    parts, end = [], 0
    for name, tensor in tensors.items():
        kind = _BFLOAT16 if tensor.bfloat16 else names[tensor.values.dtype.newbyteorder("<").str]
        parts.append(np.ascontiguousarray(tensor.values, _DTYPES[kind]).tobytes())
        start, end = end, end + len(parts[-1])
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned, as the format has it
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def _header(length: bytes, read: Any, size: int) -> tuple[int, dict[str, Any]]:
    (n,) = struct.unpack("<Q", length)
    if n > min(size - 8, _LONGEST_HEADER):
        raise ValueError(f"a header of {n} bytes in a file of {size}")
    header = parse_json(read(n))
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    return 8 + n, header


def _mapped(path: Path, entry: Mapping[str, Any], start: int, size: int) -> StoredTensor:
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(int(n) for n in entry["shape"])
    begin, end = (start + int(n) for n in entry["data_offsets"])
    if end > size or end - begin != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"a tensor of shape {shape} ends at byte {end} of {size}: the file is cut off")
    empty = end == begin
    values = np.empty(shape, dtype) if empty else np.memmap(path, dtype, mode="r", offset=begin, shape=shape)
    return StoredTensor(values, entry["dtype"] == _BFLOAT16)
