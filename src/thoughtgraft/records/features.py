"""Features: a named array problem x position x layer x width, on disk and in memory."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thoughtgraft.arguments import answers_for_calls, parse_json, path_of
from thoughtgraft.errors import RunError
from thoughtgraft.files import StoredTensor, map_tensors
from thoughtgraft.records.shards import AGAIN_FIX, read_frame
from thoughtgraft.records.spec import FEATURES_FOLDER, PROBLEMS_FILE, SPEC_FILE, UNTRAINED_FOLDER

if TYPE_CHECKING:
    import pandas as pd

HIDDEN = "hidden"
"""In the place of a layer: the final-normed state at a position, `hidden[p]`."""

AXES_KEYS = ("ids", "layers", "positions")
MADE_FROM = "made_from"


@dataclass(frozen=True)
class Block:
    """Features of some problems, as they lie in one file.

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


@dataclass(frozen=True)
class Features:
    """What a model's layers held at each latent position, of n problems. Values stay on disk until asked for.

    Attributes:
        ids: n problem ids, in the order of every matrix and of `labels`.
        layers: The layers there are: `resid[p, l]` is the residual stream after block l, 0-based.
        positions: Names of the positions there are: `BOT`, then `CTk`, the position that consumes `fed[k]`.
        labels: One row per id, with a column `id` and whatever is known of the problems.
        source: The folder or file that they came from.
        facts: What the run's plan says of them; empty for a user's file.
    """

    ids: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    labels: pd.DataFrame
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    _blocks: tuple[Block, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        """D."""
        return self._blocks[0].resid.shape[3]

    @property
    def has_hidden(self) -> bool:
        """Whether `matrix("hidden", position)` is there."""
        return all(block.hidden is not None for block in self._blocks)

    def matrix(self, layer: int | str, position: int | str) -> np.ndarray:
        """The features of every problem at one layer and position.

        Args:
            layer: One of `layers`, or `"hidden"`: the final-normed state.
            position: One of `positions`, or its 0-based place among them.

        Returns:
            float32 [n, d], row i of problem `ids[i]`.

        Raises:
            RunError: There is no such layer or position, or a value is not finite.
        """
        at = self._position(position)
        if layer == HIDDEN:
            if not self.has_hidden:
                raise RunError(f"{self.source} holds no hidden states", expected=f"a layer: {_listed(self.layers)}")
        elif layer not in self.layers:
            raise RunError(f"{self.source} has no layer {layer}", expected=_listed(self.layers))
        place = {name: i for i, name in enumerate(self.ids)}
        out = np.empty((len(self.ids), self.width), np.float32)
        for block in self._blocks:
            kept = [(row, place[name]) for row, name in enumerate(block.ids) if name in place]
            rows, targets = np.array([row for row, _ in kept], int), [target for _, target in kept]
            if layer == HIDDEN:
                assert block.hidden is not None
                out[targets] = block.hidden.take((rows, at))
            else:
                out[targets] = block.resid.take((rows, at, self.layers.index(int(layer))))
        if not np.isfinite(out).all():
            bad = self.ids[int(np.flatnonzero(~np.isfinite(out).all(1))[0])]
            raise RunError(
                f"{self.source} holds values that are not finite",
                got=f"problem {bad}, layer {layer}, position {self.positions[at]}",
                fix="drop that problem, or keep the features in a wider type (float32)",
            )
        return out

    def select(self, ids: Sequence[str]) -> Features:
        """Some of the problems, in the given order.

        Raises:
            RunError: One of them is not there.
        """
        place = {name: i for i, name in enumerate(self.ids)}
        if unknown := [name for name in ids if name not in place]:
            raise RunError(f"{self.source} has no features of {len(unknown)} problems", got=_listed(unknown))
        labels = self.labels.iloc[[place[name] for name in ids]].reset_index(drop=True)
        return Features(tuple(ids), self.layers, self.positions, labels, self.source, self.facts, self._blocks)

    def _position(self, position: int | str) -> int:
        if isinstance(position, str) and position in self.positions:
            return self.positions.index(position)
        if isinstance(position, int) and 0 <= position < len(self.positions):
            return position
        raise RunError(f"{self.source} has no position {position!r}", expected=_listed(self.positions))


@answers_for_calls(RunError)
def load_features(path: str | Path, labels: str | Path | None = None, *, folder: str = FEATURES_FOLDER) -> Features:
    """Open the features of a run, or of a user's own file.

    Accepted files are `.npz` and `.safetensors` with one floating-point array `resid` or `features` (or the only one
    in it) of shape [n, d], [n, P, d] or [n, P, L, d]: n problems, P positions, L layers, width d. Beside it may
    stand `ids` (n), `layers` (L) and `positions` (P): arrays in an `.npz`, JSON lists in a `.safetensors`
    file's metadata. Further one-dimensional arrays of n values in an `.npz` are label columns.

    Args:
        path: A run's folder, or a file.
        labels: A `.csv`, `.parquet` or `.json` table, one row per problem: matched by its column `id` where the
            features have ids, else row by row. A run has its own, to which these columns are added.
        folder: Which features of a run: `features`, or `features-untrained`.

    Raises:
        RunError: It cannot be read, has another layout, is unfinished, or labels and features do not fit.
    """
    path = path_of(path, "the run or file of features")
    if not path.exists():
        raise RunError(f"there is no run or file {path}", fix="check the path; it is read from the current directory")
    if path.is_dir():
        found = _of_run(path, folder)
    else:
        block, columns = read_feature_file(path)
        found = _joined([block], columns, str(path), {})
    if labels is None:
        return found
    return join_labels(found, read_labels(path_of(labels, "the file of labels")), str(labels))


def has_features(path: Path, folder: str) -> bool:
    """Whether a run's folder holds such features."""
    return any((path / folder).glob("*.safetensors"))


def count_stored(path: Path, folders: Sequence[str] = (FEATURES_FOLDER, UNTRAINED_FOLDER)) -> int:
    """How many problems' features a run holds in these folders together; those in damaged files do not count."""
    stored = 0
    for folder in folders:
        for file in (path / folder).glob("*.safetensors"):
            with contextlib.suppress(RunError):
                stored += len(read_block(file).ids)
    return stored


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


def _of_run(path: Path, folder: str) -> Features:
    if not (path / SPEC_FILE).is_file() or not has_features(path, folder):
        raise RunError(
            f"{path} holds no features",
            expected=f"a run's folder with {SPEC_FILE} and {folder}/*.safetensors",
            fix="make them with `thoughtgraft run operations`, or give a .npz or .safetensors file",
        )
    blocks = [read_block(file) for file in sorted((path / folder).glob("*.safetensors"))]
    labels = read_frame(path / PROBLEMS_FILE)
    return _joined(blocks, labels, str(path), _facts(path))


def _facts(path: Path) -> dict[str, Any]:
    from thoughtgraft.records.spec import read_spec_file

    spec = read_spec_file(path)
    names = ("study", "model", "model_hash", "protocol", "num_latents", "problems", "problem_hash", "seed", "dtype")
    return {name: spec.get(name) for name in names} | {"plan": spec.get("plan", {})}


def _joined(blocks: Sequence[Block], labels: pd.DataFrame, source: str, facts: Mapping[str, Any]) -> Features:
    """Blocks as one, in the order of the labels."""
    first = blocks[0]
    for block in blocks[1:]:
        axes = (block.layers, block.positions, block.resid.shape[3], block.made_from)
        if axes != (first.layers, first.positions, first.resid.shape[3], first.made_from):
            raise RunError(
                f"{source} holds features that do not belong together",
                got=f"layers {list(block.layers)}, positions {list(block.positions)}, made from {block.made_from}",
                expected=f"layers {list(first.layers)}, positions {list(first.positions)}, from {first.made_from}",
                fix="delete the features that do not belong to this run, and run its command again",
            )
    known = {name for block in blocks for name in block.ids}
    ids = tuple(str(name) for name in labels["id"])
    if missing := [name for name in ids if name not in known]:
        raise RunError(
            f"{source} holds the features of only {len(ids) - len(missing)} of {len(ids)} problems", fix=AGAIN_FIX
        )
    return Features(ids, first.layers, first.positions, labels.reset_index(drop=True), source, facts, tuple(blocks))


def _listed(names: Sequence[object], most: int = 12) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


ARRAY_NAMES = ("resid", "features")
LAYOUTS = "[n, d], [n, P, d] or [n, P, L, d] (n problems, P positions, L layers, width d)"


def read_feature_file(path: Path) -> tuple[Block, pd.DataFrame]:
    """The features of a file, and the label columns in it (`id` always among them).

    Raises:
        RunError: It is unreadable, or has another layout (see `load_features`).
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
    block = Block(tuple(ids), tuple(numbers), tuple(names), StoredTensor(values, tensor.bfloat16))
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
    return {k: v for k, v in tensors.items() if len(v.shape) > 1}, axes, {}


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


def join_labels(features: Features, table: pd.DataFrame, name: str) -> Features:
    """Features with the columns of a table added; a column of the same name is replaced.

    Raises:
        RunError: The table has no row for a problem, two rows for one, or, without ids, another number of rows.
    """
    own = features.labels
    if "id" in table:
        table = table.assign(id=table["id"].astype(str))
        if table["id"].duplicated().any():
            twice = table["id"][table["id"].duplicated()].iloc[0]
            raise RunError(f"{name} has two rows for one problem", got=f"id {twice}", expected="one row per id")
        lacking = [one for one in features.ids if one not in set(table["id"])]
        if lacking:
            raise RunError(
                f"{name} has no row for {len(lacking)} of {len(features)} problems",
                got=f"no id {lacking[0]!r}",
                expected="a row for every id of the features",
                fix="complete the table, or leave its column id out to match row by row",
            )
        table = table.set_index("id").loc[list(features.ids)].reset_index()
    elif len(table) != len(features):
        raise RunError(
            f"{name} does not fit the features",
            got=f"{len(table)} rows and no column id",
            expected=f"{len(features)} rows, or a column id",
        )
    new = {str(column): table[column].to_numpy() for column in table.columns if column != "id"}
    return replace(features, labels=own.assign(**new))
