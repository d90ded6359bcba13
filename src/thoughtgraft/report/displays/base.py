"""What every figure is: something computed beforehand that can draw itself on given axes; or a reason why it is not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from thoughtgraft.analysis.estimate import TOO_SMALL


@dataclass(frozen=True)
class Skipped:
    """A figure that this run cannot have, and why."""

    name: str
    title: str
    reason: str


class Display(Protocol):
    """A figure: computed by a `from_*` classmethod, drawn by `plot`, which computes nothing.

    Attributes:
        name: File name without suffix.
        title: The quantity shown, with its unit.
        caption: How to read it, with n and the kind of interval.
        panels: Axes wanted, side by side (four: two by two).
        sharey: Whether the panels have one vertical scale.
        size: Inches (width, height) of the whole figure.
    """

    @property
    def name(self) -> str:
        """File name without suffix."""
        ...

    @property
    def title(self) -> str:
        """The quantity, with its unit."""
        ...

    @property
    def caption(self) -> str:
        """How to read it."""
        ...

    @property
    def panels(self) -> int:
        """Number of axes."""
        ...

    @property
    def sharey(self) -> bool:
        """One vertical scale for all panels."""
        ...

    @property
    def size(self) -> tuple[float, float]:
        """Inches (width, height)."""
        ...

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw panel `panel` on matplotlib axes."""
        ...


@dataclass(frozen=True)
class Point:
    """An estimate at a place, with its interval alone and the one that holds together with its family's; NaN: none."""

    x: float
    value: float
    low: float = math.nan
    high: float = math.nan
    sim_low: float = math.nan
    sim_high: float = math.nan

    @classmethod
    def of(cls, x: float, row: Mapping[str, Any], value: str, ends: str = "", scale: float = 1.0) -> Self:
        """From a row of a table.

        Args:
            x: Where it stands.
            row: The row.
            value: The column of the estimate.
            ends: What its columns of intervals begin with: `{ends}ci_low`, `{ends}sim_high` ...
            scale: What all of them are multiplied by.
        """
        names = (f"{ends}{end}" for end in ("ci_low", "ci_high", "sim_low", "sim_high"))
        return cls(x, scale * row[value], *(scale * row.get(name, math.nan) for name in names))


def too_small(rows: Iterable[Mapping[str, Any]], about: str) -> str:
    """A caption's last sentence where a design is too small for a verdict; `about` is what notes on it begin with."""
    return f" No verdict is made: {TOO_SMALL}." if any(about + TOO_SMALL in row["note"] for row in rows) else ""
