"""What every figure is: something computed beforehand that can draw itself on given axes; or a reason why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


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
    """An estimate at a place: value with interval (NaN: undefined) and, if every difference is 0, its exact bound."""

    x: float
    value: float
    low: float
    high: float
    bound: float = float("nan")
