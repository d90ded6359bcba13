"""States: a named array problem x position x layer x width, on disk and in memory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thoughtgraft.arguments import answers_for_calls, items, need, path_of, shown, whole
from thoughtgraft.errors import RunError
from thoughtgraft.files import StoredTensor, make_folder, tensor_bytes, write_atomic
from thoughtgraft.records.shards import AGAIN_FIX, read_frame
from thoughtgraft.records.spec import FEATURES_FOLDER, PROBLEMS_FILE, SPEC_FILE, UNTRAINED_FOLDER
from thoughtgraft.records.state_files import HIDDEN, LABELS, Block, read_block, read_feature_file, read_labels

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class States:
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

    @classmethod
    @answers_for_calls(RunError)
    def of(
        cls,
        values: np.ndarray | StoredTensor,
        ids: Sequence[str],
        layers: Sequence[int],
        positions: Sequence[str],
        *,
        hidden: np.ndarray | StoredTensor | None = None,
        labels: pd.DataFrame | None = None,
        source: str = "the states in memory",
    ) -> States:
        """States that lie in memory.

        Args:
            values: [n, P, L, d]; kept in their own type.
            ids: n problem ids.
            layers: L layers.
            positions: P names.
            hidden: The final-normed states [n, P, d], where there are any.
            labels: One row per id, in any order, with a column `id`; None knows nothing of the problems.
            source: What errors call them.

        Raises:
            RunError: Shapes and names do not fit, or an id occurs twice.
        """
        import pandas as pd

        resid = _tensor(values, "values")
        last = None if hidden is None else _tensor(hidden, "final states")
        names = tuple(map(str, items(ids, "the ids", RunError, expected="a list of problem ids")))
        numbers = items(layers, "the layers", RunError, expected="a list of layers, 0-based")
        blocks = tuple(whole(layer, "a layer", RunError) for layer in numbers)
        places = tuple(map(str, items(positions, "the positions", RunError, expected="a list of names")))
        block = Block(names, blocks, places, resid, last)
        axes = (len(block.ids), len(block.positions), len(block.layers))
        if len(resid.shape) != 4 or resid.shape[:3] != axes:
            expected = f"{axes} (problems, positions, layers), then the width"
            raise RunError("the states' shape does not fit their names", got=resid.shape, expected=expected)
        if last is not None and last.shape != (*axes[:2], resid.shape[3]):
            expected = f"{(*axes[:2], resid.shape[3])} (problems, positions, width)"
            raise RunError("the final states' shape does not fit their names", got=last.shape, expected=expected)
        if len(set(names)) < len(names):
            raise RunError("ids of states occur twice", got=f"{len(set(names))} different ids of {len(names)}")
        found = _joined([block], pd.DataFrame({"id": list(names)}), source, {})
        if labels is None:
            return found
        need(labels, pd.DataFrame, "the labels", RunError, expected="a DataFrame with a row per id")
        return join_labels(found, labels, "the table of labels")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        """`States(200 problems x 7 positions (BOT, CT0, ...) x 2 layers (4, 8) x 768, of runs/x)`."""
        axes = f"{len(self)} problems x {len(self.positions)} positions ({_listed(self.positions)})"
        return f"States({axes} x {len(self.layers)} layers ({_listed(self.layers)}) x {self.width}, of {self.source})"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, P, L, d)."""
        return len(self), len(self.positions), len(self.layers), self.width

    @property
    def width(self) -> int:
        """D."""
        return self._blocks[0].resid.shape[3]

    @property
    def values(self) -> np.ndarray:
        """All of them in memory, float32 [n, P, L, d]; row i of problem `ids[i]`."""
        out = np.empty(self.shape, np.float32)
        for block, rows, targets in self._rows():
            out[targets] = block.resid.take(rows)
        return out

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
        out = np.empty((len(self.ids), self.width), np.float32)
        for block, rows, targets in self._rows():
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

    def select(self, ids: Sequence[str]) -> States:
        """Some of the problems, in the given order.

        Raises:
            RunError: One of them is not there.
        """
        place = {name: i for i, name in enumerate(self.ids)}
        if unknown := [name for name in ids if name not in place]:
            raise RunError(f"{self.source} has no features of {len(unknown)} problems", got=_listed(unknown))
        labels = self.labels.iloc[[place[name] for name in ids]].reset_index(drop=True)
        return States(tuple(ids), self.layers, self.positions, labels, self.source, self.facts, self._blocks)

    def to_safetensors(self, path: str | Path) -> Path:
        """Write one file that `load_states` reads: `resid` [n, P, L, d], `hidden` [n, P, d], and their names.

        Numbers keep the type that they are held in. The ids, layers, positions and labels are JSON in the file's
        metadata.

        Args:
            path: The file, which ends in `.safetensors`.

        Raises:
            RunError: It has another name, or cannot be written.
        """
        path = path_of(path, "the file of states")
        if path.suffix != ".safetensors":
            raise RunError(f"{path} is no name for states", got=repr(path.suffix), expected="a .safetensors file")
        tensors = {"resid": self._whole("resid")} | ({HIDDEN: self._whole(HIDDEN)} if self.has_hidden else {})
        names = {"ids": self.ids, "layers": self.layers, "positions": self.positions}
        labels = self.labels.to_json(orient="records")
        make_folder(path.parent)
        write_atomic(path, tensor_bytes(tensors, {k: json.dumps(v) for k, v in names.items()} | {LABELS: labels}))
        return path

    def _whole(self, name: str) -> StoredTensor:
        """One tensor of all blocks, in the order of the ids and in its own type."""
        parts = [(getattr(block, name), rows, targets) for block, rows, targets in self._rows()]
        first = parts[0][0]
        out = np.empty((len(self), *first.shape[1:]), first.values.dtype)
        for tensor, rows, targets in parts:
            out[targets] = tensor.values[rows]
        return StoredTensor(out, first.bfloat16)

    def _rows(self) -> Iterator[tuple[Block, np.ndarray, list[int]]]:
        """Each block with its rows that are wanted, and their places among the ids."""
        place = {name: i for i, name in enumerate(self.ids)}
        for block in self._blocks:
            kept = [(row, place[name]) for row, name in enumerate(block.ids) if name in place]
            yield block, np.array([row for row, _ in kept], int), [target for _, target in kept]

    def _position(self, position: int | str) -> int:
        if isinstance(position, str) and position in self.positions:
            return self.positions.index(position)
        if isinstance(position, int) and 0 <= position < len(self.positions):
            return position
        raise RunError(f"{self.source} has no position {position!r}", expected=_listed(self.positions))


@answers_for_calls(RunError)
def load_states(path: str | Path, labels: str | Path | None = None, *, folder: str = FEATURES_FOLDER) -> States:
    """Open the states of a run, of a file that `States.to_safetensors` wrote, or of a user's own file.

    A user's file is a `.npz` or a `.safetensors`. Its array is called `resid` or `features`, unless there is only one,
    and has the shape [n, d], [n, P, d] or [n, P, L, d]: n problems, P positions, L layers, width d. The names of
    these axes may stand beside it as `ids` (n), `layers` (L) and `positions` (P): arrays in an `.npz`, JSON lists in
    the metadata of a `.safetensors`. Other arrays of n values in an `.npz` are label columns.

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


def _of_run(path: Path, folder: str) -> States:
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


def _joined(blocks: Sequence[Block], labels: pd.DataFrame, source: str, facts: Mapping[str, Any]) -> States:
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
    return States(ids, first.layers, first.positions, labels.reset_index(drop=True), source, facts, tuple(blocks))


def _listed(names: Sequence[object], most: int = 12) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _tensor(given: Any, what: str) -> StoredTensor:
    """An array of floating-point numbers as it is; whole numbers become float32."""
    if isinstance(given, StoredTensor):
        return given
    try:
        values = np.asarray(given)
    except ValueError:  # lists of unequal lengths
        values = np.empty(0, object)
    if values.dtype.kind in "iu":
        values = values.astype(np.float32)
    if values.dtype.kind != "f":
        raise RunError(f"the {what} of states are not usable", got=shown(given), expected="an array of numbers")
    return StoredTensor(values)


def join_labels(states: States, table: pd.DataFrame, name: str) -> States:
    """States with the columns of a table added; a column of the same name is replaced.

    Raises:
        RunError: The table has no row for a problem, two rows for one, or, without ids, another number of rows.
    """
    own = states.labels
    if "id" in table:
        table = table.assign(id=table["id"].astype(str))
        if table["id"].duplicated().any():
            twice = table["id"][table["id"].duplicated()].iloc[0]
            raise RunError(f"{name} has two rows for one problem", got=f"id {twice}", expected="one row per id")
        lacking = [one for one in states.ids if one not in set(table["id"])]
        if lacking:
            raise RunError(
                f"{name} has no row for {len(lacking)} of {len(states)} problems",
                got=f"no id {lacking[0]!r}",
                expected="a row for every id of the features",
                fix="complete the table, or leave its column id out to match row by row",
            )
        table = table.set_index("id").loc[list(states.ids)].reset_index()
    elif len(table) != len(states):
        raise RunError(
            f"{name} does not fit the features",
            got=f"{len(table)} rows and no column id",
            expected=f"{len(states)} rows, or a column id",
        )
    new = {str(column): table[column].to_numpy() for column in table.columns if column != "id"}
    return replace(states, labels=own.assign(**new))
