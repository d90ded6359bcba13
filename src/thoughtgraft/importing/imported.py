"""What an import gives: problems with labels, features, tables, and what must be known to read them."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from thoughtgraft.errors import ForeignFileError
from thoughtgraft.records.atomic import make_folder, write_atomic
from thoughtgraft.records.jsonfile import read_json, to_json

if TYPE_CHECKING:
    import pandas as pd

IMPORT_FILE, FEATURES_FILE = "import.json", "features.safetensors"


@dataclass(frozen=True)
class Imported:
    """A foreign file in this project's conventions.

    Attributes:
        kind: What the file is, in words.
        summary: What was read, in one sentence.
        notes: How its numbering and content relate to this project's; for people.
        tables: Name -> table, each written as `{name}.parquet`. `problems` has a row per problem and its labels.
        features: float32 [n, P, d] or [n, P, L, d] (problems, positions, layers, width); None where there are none.
        name: What the array is called: `hidden` (final-normed states) or `resid` (residual stream).
        positions: Names of the P latent positions: BOT, then CTk, the position that consumes `fed[k]`.
        layers: The L blocks after which the residual stream was taken, 0-based; empty for `hidden`.
    """

    kind: str
    summary: str
    notes: tuple[str, ...]
    tables: dict[str, pd.DataFrame]
    features: np.ndarray | None = None
    name: str = "hidden"
    positions: tuple[str, ...] = ()
    layers: tuple[int, ...] = field(default=())

    def write(self, folder: Path, source: Path) -> list[Path]:
        """Write everything into a folder: tables, features for the probes, and where they came from.

        Args:
            folder: Made if it does not exist.
            source: The foreign file; its name and hash are kept.

        Returns:
            The files written.

        Raises:
            ForeignFileError: The folder holds something else.
            RunError: It cannot be written.
        """
        facts = {"source": source.name, "sha256": _hash(source), "kind": self.kind, "notes": list(self.notes)}
        _check_free(folder, facts)
        make_folder(folder)
        files: dict[str, bytes] = {}
        for name, table in self.tables.items():
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            files[f"{name}.parquet"] = buffer.getvalue()
        if self.features is not None:
            files[FEATURES_FILE] = save({self.name: np.ascontiguousarray(self.features)}, self._metadata())
        files[IMPORT_FILE] = to_json(facts, IMPORT_FILE)  # last: it says that the rest is whole
        for name, data in files.items():
            write_atomic(folder / name, data)
        return [folder / name for name in files]

    def _metadata(self) -> dict[str, str]:
        ids = [str(one) for one in self.tables["problems"]["id"]]
        axes: dict[str, Any] = {"ids": ids, "positions": list(self.positions)}
        if self.layers:
            axes["layers"] = list(self.layers)
        return {name: json.dumps(value) for name, value in axes.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_free(folder: Path, facts: dict[str, Any]) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    earlier = read_json(folder / IMPORT_FILE) if (folder / IMPORT_FILE).is_file() else {}
    if not isinstance(earlier, dict) or earlier.get("sha256") != facts["sha256"]:
        raise ForeignFileError(
            f"{folder} holds something else", expected="a new folder", fix="choose another folder with --out"
        )
