"""What a tracker must do: a service that keeps what it is told of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd


class Tracker(Protocol):
    """A service that keeps what it is told. A run has phases, each kept under its own name; metrics are by name."""

    def begin(self, phase: str, config: Mapping[str, Any], tags: Sequence[str]) -> None:
        """Open a phase, or go on with it where the same run was tracked before."""

    def log(self, phase: str, metrics: Mapping[str, float]) -> None:
        """Metrics as of now; `cells` among them is the axis of the others."""

    def summary(self, phase: str, metrics: Mapping[str, Any]) -> None:
        """Final metrics."""

    def table(self, phase: str, name: str, table: pd.DataFrame) -> None:
        """A table."""

    def figure(self, phase: str, name: str, png: Path) -> None:
        """A figure."""

    def folder(self, phase: str, name: str, files: Mapping[str, Path]) -> None:
        """The run's files, by their names in its folder."""

    def finish(self, ok: bool) -> None:
        """Close every phase; `ok` says whether the run ended well."""
