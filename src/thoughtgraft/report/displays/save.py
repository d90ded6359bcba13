"""Displays onto disk: PNG at 200 dpi and SVG, each with a foot line that says which run it shows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from thoughtgraft.records.atomic import make_folder, write_atomic
from thoughtgraft.report.displays.base import Display, Skipped
from thoughtgraft.report.document import Picture, Prose

DPI = 200
FOLDER = "figures"


def draw(display: Display, foot: str) -> Any:
    """The display as a matplotlib Figure, independent of pyplot's state and of the user's style."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from thoughtgraft.report.displays.style import GREY, RC

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

    from thoughtgraft.report.displays.style import RC

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
