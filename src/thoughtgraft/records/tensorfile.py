"""Safetensors files read with numpy alone: the header checked, the tensors mapped and not loaded."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import RunError
from thoughtgraft.records.atomic import io_error

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
