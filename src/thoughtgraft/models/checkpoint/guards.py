"""Looks at a weight file before any library parses it: what it claims against the bytes that it has.

The limits stand far above real checkpoints (an 8B model with adapters and decoder has about 1,000 tensors) and far
below what would cost a reader seconds or gigabytes.
"""

from __future__ import annotations

import pickletools
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import torch

from thoughtgraft.errors import CheckpointError

MAX_INDEX = 4 << 20  # bytes: a safetensors header, a zip directory, a JSON index
MAX_PICKLE = 1 << 20  # bytes of pickle beside the tensors' own
MAX_STEPS = 200_000  # of that pickle's little machine: about 35 a tensor, and Python takes a second for 500,000
MAX_NAME = 300  # characters
_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save's older format begins
_LEGACY_PICKLES = 5  # magic, protocol, system, state dict, order of storages
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
AGAIN = "download or copy the file again; it may have been cut off"
TRUST = "get the checkpoint as .safetensors, or from a source that you trust"


def file_size(path: Path) -> int:
    """The size of a regular file in bytes.

    Raises:
        CheckpointError: It cannot be read, or is a pipe, a device or a folder, which could be read without end.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is not a regular file", expected="a weight file", fix="pass the weight file")
    return found.st_size


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file that the system does not let us read."""
    return CheckpointError(f"{path} cannot be read", got=error.strerror, fix="check the file's permissions")


def check_name(path: Path, name: str) -> None:
    """Refuses names that would flood or rewrite the terminal that they are printed on."""
    if len(name) > MAX_NAME or not name.isprintable():
        raise CheckpointError(
            f"{path} names a tensor as no model does",
            got=f"{len(name):,} characters beginning {name[:40]!r}",
            expected=f"printable names of at most {MAX_NAME} characters",
            fix=TRUST,
        )


def check_safetensors(path: Path, size: int) -> None:
    """Refuses a header that claims more than the file, or more than any model needs."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file",
            got=f"{size:,} bytes, whose header claims {length:,}",
            fix=AGAIN,
        )
    if length > MAX_INDEX:
        raise _too_long(path, "a header", length, MAX_INDEX)


def check_zip(path: Path, size: int) -> None:
    """Refuses a zip that torch.save did not write: packed, overlapping, with a comment, or with a huge directory.

    torch.save stores its entries as they are, so a compressed one may unpack to any size.
    """
    with _reading_zip(path, size):
        with path.open("rb") as file:
            length = _directory_length(file, size)
        if length is None:
            raise CheckpointError(f"{path} is truncated", got=f"{size:,} bytes without a zip directory", fix=AGAIN)
        if length > MAX_INDEX:
            raise _too_long(path, "a directory", length, MAX_INDEX)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    claimed = sum(entry.file_size for entry in entries)
    if packed or claimed > size:
        raise CheckpointError(
            f"{path} is a compressed archive, not a weight file",
            got=f"compressed entry {packed[0][:80]!r}" if packed else f"{claimed:,} bytes of entries in {size:,}",
            expected="a file written by torch.save",
            fix="unpack it and pass the weight file",
        )
    for entry in entries:
        if entry.filename.endswith(".pkl"):
            if entry.file_size > MAX_PICKLE:
                raise _too_long(path, "a pickle", entry.file_size, MAX_PICKLE)
            with _reading_zip(path, size), zipfile.ZipFile(path) as archive, archive.open(entry) as file:
                _walk(file, path, pickles=1)


@contextmanager
def _reading_zip(path: Path, size: int) -> Iterator[None]:
    """What the zip reader raises of a damaged file, as one error: names and headers may be any bytes."""
    try:
        yield
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        got = f"{size:,} bytes ({str(error)[:160]})"
        raise CheckpointError(f"{path} is truncated or damaged", got=got, fix=AGAIN) from error


def _directory_length(file: BinaryIO, size: int) -> int | None:
    """Bytes of the zip's directory; None unless the file ends in its end record, as torch.save's do."""
    tail = _bytes_at(file, size - 22, 22)
    if tail[:4] != _END or tail[20:] != b"\0\0":
        return None
    length = int.from_bytes(tail[12:16], "little")
    locator = _bytes_at(file, size - 42, 20)
    if locator[:4] == _LOCATOR64:
        record = _bytes_at(file, int.from_bytes(locator[8:16], "little"), 56)
        return int.from_bytes(record[40:48], "little") if record[:4] == _END64 else None
    return length


def _bytes_at(file: BinaryIO, place: int, count: int) -> bytes:
    if not 0 <= place < 1 << 62:
        return b""
    file.seek(place)
    return file.read(count)


def check_legacy(path: Path) -> int:
    """Walks the pickles of torch.save's older format without executing them.

    Returns:
        Where the tensors' bytes begin, 0-based.

    Raises:
        CheckpointError: It does not begin as torch.save's files do, or its pickles are cut off or huge.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise CheckpointError(
                f"{path} holds pickled code or is no weight file; it was refused and nothing in it was executed",
                got="a file that torch.save did not write",
                expected="a plain dict of tensors, as torch.save(model.state_dict(), ...) writes",
                fix=TRUST,
            )
        file.seek(0)
        _walk(file, path, pickles=_LEGACY_PICKLES)
        return file.tell()


def _walk(file: IO[bytes], path: Path, *, pickles: int) -> None:
    """Reads pickles step by step without executing them; refuses what is cut off or long."""
    reader, steps = _Bounded(file, path), 0
    try:
        for _ in range(pickles):
            for _step in pickletools.genops(reader):  # type: ignore[arg-type]  # read and readline are all it uses
                steps += 1
                if steps > MAX_STEPS:
                    raise _too_long(path, "a pickle", steps, MAX_STEPS, unit="steps")
    except (ValueError, EOFError, IndexError, OverflowError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is truncated or not a weight file", got=f"its pickle cannot be read ({error})"[:160], fix=AGAIN
        ) from error


class _Bounded:
    """A file of which only `MAX_PICKLE` bytes can be read."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._left = file, path, MAX_PICKLE

    def read(self, count: int) -> bytes:
        self._take(count)
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(self._left + 1)
        self._take(len(line))
        return line

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _too_long(self._path, "a pickle", MAX_PICKLE - self._left, MAX_PICKLE)


def check_state(path: Path, state: Mapping[object, object], available: int, overhead: int) -> None:
    """Refuses unpickled tensors that are no plain tensors, or that claim more than the file stores.

    Args:
        path: The file.
        state: Name -> tensor, as unpickled.
        available: Bytes that the file can hold for tensors.
        overhead: Bytes that each stored block of tensors takes beside them.
    """
    storages: dict[int, int] = {}
    for name, value in state.items():
        check_name(path, str(name))
        assert isinstance(value, torch.Tensor)  # the caller has seen to it
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise CheckpointError(
                f"{path} holds {name} as no plain tensor",
                got=f"{value.layout}, {value.device.type}, {value.dtype}",
                expected="dense, unquantised tensors",
                fix="use the unquantised checkpoint",
            )
        storage = value.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
        if value.numel() * value.element_size() > storage.nbytes():
            raise _claims(path, f"{name} {tuple(value.shape)}", storage.nbytes())
    claimed = sum(storages.values()) + overhead * len(storages)
    if claimed > available:
        raise _claims(path, f"{claimed:,} bytes of tensors", available)


def _claims(path: Path, got: str, available: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is truncated or not a weight file: it claims more than it stores",
        got=got,
        expected=f"at most {available:,} bytes",
        fix=AGAIN,
    )


def _too_long(path: Path, what: str, length: int, limit: int, unit: str = "bytes") -> CheckpointError:
    return CheckpointError(
        f"{path} has {what} larger than any model's; it was refused unread",
        got=f"{length:,} {unit} or more",
        expected=f"at most {limit:,}",
        fix=TRUST,
    )
