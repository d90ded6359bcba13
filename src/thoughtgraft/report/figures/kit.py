"""What every figure shares: compute then draw, colours and markers, saving."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self

from matplotlib.font_manager import FontProperties, findfont, get_font

from thoughtgraft.edits.edit import change_of
from thoughtgraft.files import make_folder, write_atomic
from thoughtgraft.report.document import Picture, Prose, visible
from thoughtgraft.stats.intervals import TOO_SMALL


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


BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, GREY, INK = "#56B4E9", "#CC79A7", "#7A7A7A", "#222222"

COLUMN_INCHES = 2.7
"""What a column of a legend takes, the longest label's with others beside it."""

# An interval alone lies upon the one that holds together with its family's, which is never the shorter.
THIN: dict[str, Any] = {"linewidth": 1.3, "solid_capstyle": "butt", "zorder": 3}
THICK: dict[str, Any] = {"linewidth": 5.0, "alpha": 0.3, "solid_capstyle": "butt", "zorder": 2}

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "thoughtgraft",
    # Texts hold tokens and questions: a dollar sign in them is a dollar sign.
    "text.parse_math": False,
}


def look(method: str) -> tuple[str, str]:
    """Colour and marker of an edit, the same in every figure; readable without colour."""
    found = change_of(method).look
    return found.colour, found.marker


SPARE = ("*", "p", "h", "<", ">", "d", "H")
"""Markers of lines that would look like an earlier one: edits of one's own, and one edit at several layers."""


def looks(edits: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each line of a figure, no two alike while there are markers.

    Args:
        edits: By the line's name, the name of its edit.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, method in edits.items():
        colour, marker = look(method)
        free = (one for one in (marker, *SPARE) if (colour, one) not in found.values())
        found[name] = colour, next(free, marker)
    return found


@cache
def _drawable(char: str) -> bool:
    return bool(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_char_index(ord(char)))


def drawable(text: str) -> str:
    """Text with white space made visible, and characters that the font lacks as their code point."""
    return "".join(c if _drawable(c) else f"<{ord(c):X}>" for c in visible(text))


def zero_line(ax: Any) -> None:
    """The line of no effect."""
    ax.axhline(0, color="#555555", linewidth=0.8, zorder=1)


def light_grid(ax: Any, axis: str = "y") -> None:
    """A grid that stays behind the data."""
    ax.grid(axis=axis, color="#E3E3E3", linewidth=0.7)
    ax.set_axisbelow(True)


def errorbars(ax: Any, points: Sequence[Point], colour: str, marker: str, label: str) -> None:
    """Points with their intervals, alone thin and together with their family's thick; hollow where there is none."""
    ax.plot([], [], marker, color=colour, markersize=6, label=label)
    for point in points:
        _bar(ax, point, colour)
        face = colour if math.isfinite(point.low) and math.isfinite(point.high) else "white"
        ax.plot([point.x], [point.value], marker, color=colour, markerfacecolor=face, markersize=6, zorder=4)


def _bar(ax: Any, point: Point, colour: str, *, across: bool = False) -> None:
    for low, high, look in ((point.sim_low, point.sim_high, THICK), (point.low, point.high, THIN)):
        if math.isfinite(low) and math.isfinite(high):
            ends, place = [low, high], [point.x] * 2
            ax.plot(*((ends, place) if across else (place, ends)), color=colour, **look)


def forest(ax: Any, points: Sequence[Point], colour: str) -> None:
    """The same lying down: estimates along x, each in the row that its `x` names."""
    for point in points:
        _bar(ax, point, colour, across=True)
        ax.plot([point.value], [point.x], "o", color=colour, markersize=6, zorder=4)


def interval_key(ax: Any, level: str, family: str) -> None:
    """Legend entries for the two intervals.

    Args:
        ax: The axes.
        level: Their level in words, "95%".
        family: What the thick ones hold together over, "the single slots of a method".
    """
    ax.plot([], [], color=GREY, label=f"thin: {level} interval alone", **THIN)
    ax.plot([], [], color=GREY, label=f"thick: {level} together over {family}", **THICK)


def margin_line(ax: Any, margin_pp: float) -> None:
    """The rule's margin, which verdicts hold an interval against beside 0."""
    dotted, label = (0, (1, 2)), f"margin, {margin_pp:g} pp"
    ax.axhline(margin_pp, color="#555555", linewidth=0.8, linestyle=dotted, zorder=1, label=label)


def shared_legend(ax: Any) -> None:
    """One legend below all panels of the figure, with what any of them shows, in as many columns as have room."""
    handles: dict[str, Any] = {}
    for other in ax.figure.axes:
        for handle, label in zip(*other.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        # The pad keeps it off the foot line.
        where = {"loc": "outside lower left", "borderaxespad": 2.4}
        columns = max(1, int(ax.figure.get_figwidth() // COLUMN_INCHES))
        ax.figure.legend(handles.values(), handles.keys(), ncols=columns, **where)


def slot_ticks(ax: Any, labels: tuple[str, ...], *, apart: bool = False) -> None:
    """Slot names on the x axis; with a line before the last, where that is several slots at once."""
    if apart and len(labels) > 1:
        ax.axvline(len(labels) - 1.5, color="#BBBBBB", linewidth=0.8)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.tick_params(axis="x", length=0)


DPI = 200
FOLDER = "figures"


def draw(display: Display, foot: str) -> Any:
    """The display as a matplotlib Figure, independent of pyplot's state and of the user's style."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with rc_context(RC):
        # The lowest strip is the foot line's.
        layout = ConstrainedLayoutEngine(rect=(0, 0.035, 1, 0.965))
        figure = Figure(figsize=display.size, layout=layout)
        columns = 2 if display.panels == 4 else display.panels
        axes = figure.subplots(-(-display.panels // columns), columns, squeeze=False, sharey=display.sharey)
        if display.panels > 1:
            figure.suptitle(display.title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        for panel, ax in enumerate(axes.ravel()):
            display.plot(ax, panel)
        figure.text(0.008, 0.008, foot, fontsize=6.5, color=GREY, ha="left", va="bottom")
        # Laid out once, not anew for each file written.
        layout.execute(figure)
        figure.set_layout_engine("none")
    return figure


def encode(figure: Any, kind: str) -> bytes:
    """A figure as the bytes of a PNG or SVG file, the same for the same figure."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(RC):
        metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def save(display: Display | Skipped, path: Path, foot: str) -> Picture | Prose:
    """Write a display into the figures of a run's folder; a skipped one becomes the sentence that says why."""
    if isinstance(display, Skipped):
        return Prose(f"Not shown: {display.title}. {display.reason}", "note")
    return write_files(display, path, foot)


def write_files(display: Display, path: Path, foot: str) -> Picture:
    """Write a display as PNG and SVG into the folder of figures of `path`."""
    figure = draw(display, foot)
    folder = path / FOLDER
    make_folder(folder)
    files = {kind: encode(figure, kind) for kind in ("png", "svg")}
    for kind, data in files.items():
        write_atomic(folder / f"{display.name}.{kind}", data, sync=False)
    name = f"{FOLDER}/{display.name}"
    return Picture(display.name, display.title, display.caption, f"{name}.png", f"{name}.svg", files["png"])
