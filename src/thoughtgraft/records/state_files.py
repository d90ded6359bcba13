"""Files of states: those that a run or `to_safetensors` writes, a user's own arrays, and tables of labels."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import RunError, first_line
from thoughtgraft.files import StoredTensor, map_tensors

if TYPE_CHECKING:
    import pandas as pd

HIDDEN = "hidden"
"""In the place of a layer: the final-normed state at a position, `hidden[p]`."""

AXES_KEYS = ("ids", "layers", "positions")
MADE_FROM, LABELS = "made_from", "labels"


@dataclass(frozen=True)
class Block:
    """States of some problems, as they lie in one file or in memory.

    Attributes:
        ids: n problem ids.
        layers: L blocks of the model, 0-based.
        positions: Names of P latent positions.
        resid: [n, P, L, d].
        hidden: [n, P, d], where it was kept.
        made_from: Hash of model, protocol and problems; empty in a user's file.
    """

    ids: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    resid: StoredTensor
    hidden: StoredTensor | None = None
    made_from: str = ""


def read_block(path: Path) -> Block:
    """One file that a run wrote.

    Raises:
        RunError: It is damaged or not of this kind.
    """
    tensors, metadata = map_tensors(path)
    try:
        ids, layers, positions = (parse_json(metadata[name]) for name in AXES_KEYS)
        resid, hidden = tensors["resid"], tensors.get(HIDDEN)
        fits = resid.shape[:3] == (len(ids), len(positions), len(layers))
        if not fits or (hidden is not None and hidden.shape[:2] != resid.shape[:2]):
            raise ValueError(f"resid {resid.shape}, {len(ids)} ids, {len(positions)} positions, {len(layers)} layers")
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} is not a file of features", got=f"{type(error).__name__}: {error}", fix="delete it and run again"
        ) from error
    return Block(tuple(ids), tuple(layers), tuple(positions), resid, hidden, metadata.get(MADE_FROM, ""))


ARRAY_NAMES = ("resid", "features")
LAYOUTS = "[n, d], [n, P, d] or [n, P, L, d] (n problems, P positions, L layers, width d)"


def read_feature_file(path: Path) -> tuple[Block, pd.DataFrame]:
    """The features of a file, and the label columns in it (`id` always among them).

    Raises:
        RunError: It is unreadable, or has another layout (see `load_states`).
    """
    import pandas as pd

    readers = {".npz": _npz, ".safetensors": _safetensors}
    if path.suffix not in readers:
        expected = "a run's folder, a .npz or a .safetensors file"
        raise RunError(f"{path} is no file of features", got=repr(path.suffix), expected=expected)
    arrays, axes, columns = readers[path.suffix](path)
    tensor = _chosen(path, arrays)
    n, shape = tensor.shape[0], tensor.shape
    if len(shape) not in (2, 3, 4) or 0 in shape:
        raise RunError(f"{path} has features of another layout", got=f"shape {list(shape)}", expected=LAYOUTS)
    positions = shape[1] if len(shape) > 2 else 1
    layers = shape[2] if len(shape) > 3 else 1
    values = tensor.values.reshape(n, positions, layers, shape[-1])
    ids = [str(name) for name in _axis(path, axes, "ids", n, range(n))]
    if len(set(ids)) != n:
        raise RunError(
            f"{path}: ids occur twice", got=f"{len(set(ids))} different ids of {n} rows", fix="make them one each"
        )
    names = [str(name) for name in _axis(path, axes, "positions", positions, [f"P{p}" for p in range(positions)])]
    try:
        numbers = [int(layer) for layer in _axis(path, axes, "layers", layers, range(layers))]
    except (TypeError, ValueError):
        raise RunError(f"{path}: layers are not whole numbers", got=repr(axes["layers"])[:80]) from None
    hidden = arrays.get(HIDDEN)
    if hidden is tensor or hidden is None or hidden.shape != (n, positions, shape[-1]):
        hidden = None
    block = Block(tuple(ids), tuple(numbers), tuple(names), StoredTensor(values, tensor.bfloat16), hidden)
    labels = {name: column for name, column in columns.items() if column.shape == (n,) and name not in AXES_KEYS}
    return block, pd.DataFrame({"id": ids} | labels)


def _npz(path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is not a readable .npz file",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="arrays of numbers or text, without pickled objects",
            fix="write it with numpy.savez(path, features=..., ids=..., layers=..., positions=...)",
        ) from error
    wide = {k: StoredTensor(v) for k, v in arrays.items() if v.dtype.kind == "f" and v.ndim > 1}
    axes = {name: arrays[name].tolist() for name in AXES_KEYS if name in arrays}
    return wide, axes, {k: v for k, v in arrays.items() if v.ndim == 1}


def _safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any], dict[str, np.ndarray]]:
    tensors, metadata = map_tensors(path)
    axes: dict[str, Any] = {}
    for name in AXES_KEYS:
        if name in metadata:
            try:
                axes[name] = parse_json(metadata[name])
            except ValueError:
                got = repr(metadata[name][:60])
                raise RunError(f"{path}: {name} in its metadata is no list", got=got, expected="a JSON list") from None
    columns = {} if LABELS not in metadata else _label_columns(path, metadata[LABELS])
    return {k: v for k, v in tensors.items() if len(v.shape) > 1}, axes, columns


def _label_columns(path: Path, text: str) -> dict[str, np.ndarray]:
    import pandas as pd

    try:
        table = pd.DataFrame(parse_json(text))
    except ValueError as error:
        raise RunError(f"{path}: the labels in its metadata are no table", got=first_line(error)) from None
    return {str(name): table[name].to_numpy() for name in table.columns if name not in AXES_KEYS}


def _chosen(path: Path, arrays: Mapping[str, StoredTensor]) -> StoredTensor:
    for name in ARRAY_NAMES:
        if name in arrays:
            return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise RunError(
        f"{path} does not say which array holds the features",
        got=", ".join(arrays) or "no floating-point array of two or more dimensions",
        expected=f"one of them named features, of shape {LAYOUTS}",
    )


def _axis(path: Path, axes: Mapping[str, Any], name: str, size: int, default: Sequence[Any]) -> Sequence[Any]:
    found = axes.get(name)
    if found is None:
        return default
    if not isinstance(found, list) or len(found) != size:
        got = f"{len(found)} of them" if isinstance(found, list) else repr(found)
        raise RunError(f"{path}: {name} do not fit the features", got=got, expected=f"a list of {size}")
    return found


def read_labels(path: Path) -> pd.DataFrame:
    """A table of labels from `.csv`, `.parquet` or `.json` (a list of objects, or an object of lists).

    Raises:
        RunError: It is missing, unreadable, or of another kind.
    """
    import pandas as pd

    readers: dict[str, Callable[[Path], Any]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".json": _json_table}
    if path.suffix not in readers:
        raise RunError(f"{path} is no table of labels", got=repr(path.suffix), expected=" or ".join(readers))
    if not path.is_file():
        raise RunError(f"there is no file {path}", fix="check the path; it is read from the current directory")
    try:
        table: pd.DataFrame = readers[path.suffix](path)
    except Exception as error:  # each reader has its own classes; all of them mean that the table cannot be read
        raise RunError(f"{path} cannot be read as a table", got=(str(error).splitlines() or ["?"])[0][:200]) from error
    return table


def _json_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(parse_json(path.read_text(encoding="utf-8")))
