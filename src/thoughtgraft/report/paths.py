"""What a report's writer gives back: where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportPaths:
    """Where the report lies; `figures` holds the PNGs, each with an SVG of the same name beside it."""

    md: Path
    html: Path
    figures: tuple[Path, ...]
