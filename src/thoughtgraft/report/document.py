"""What a report is made of: sections of blocks, once; Markdown and HTML are two renderings of the same blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from thoughtgraft.analysis.verdicts import INVALID, Agreement, Verdict
from thoughtgraft.records.provenance import package_versions
from thoughtgraft.report.formats import UNDEFINED, is_number


@dataclass(frozen=True)
class Prose:
    """A paragraph of plain text. `tone` sets its weight: "" plain, "note" small, "warn" a warning, "lead" large."""

    text: str
    tone: str = ""
    kind: str = field(default="prose", init=False)


@dataclass(frozen=True)
class Code:
    """Text to copy, such as a command."""

    text: str
    kind: str = field(default="code", init=False)


@dataclass(frozen=True)
class Bullets:
    """A list of plain texts."""

    items: tuple[str, ...]
    kind: str = field(default="bullets", init=False)


@dataclass(frozen=True)
class Table:
    """A table. `reading` is a sentence on how to read it, with its n and kind of interval.

    Attributes:
        header: Column titles.
        rows: Cells as text, as many as the header in each row.
        reading: How to read it.
        numeric: Columns aligned to the right, by place.
        tones: Column whose words are coloured by `tone_of` (a verdict), by place; -1 for none.
        footnotes: (mark, text) pairs, referred to in the last column.
        title: A heading over the table.
        folded: Whether HTML shows it only on demand.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    reading: str
    numeric: frozenset[int] = frozenset()
    tones: int = -1
    footnotes: tuple[tuple[str, str], ...] = ()
    title: str = ""
    folded: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Picture:
    """A figure on disk. `png` and `svg` are paths relative to the run folder; `data` is the PNG for embedding."""

    name: str
    title: str
    caption: str
    png: str
    svg: str
    data: bytes = field(repr=False)
    kind: str = field(default="picture", init=False)


Block = Prose | Code | Bullets | Table | Picture
Figures = Mapping[str, Picture | Prose]
"""Figures by name; a sentence stands for one that cannot be."""


@dataclass(frozen=True)
class Section:
    """A heading with blocks; `anchor` is its name in links."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Banner:
    """A warning that every page carries; `level` is "bad" or "warn", `word` its short form for page heads."""

    level: str
    word: str
    text: str


def _made_by() -> str:
    version = package_versions().get("thoughtgraft")
    return f"thoughtgraft {version}" if version else "thoughtgraft"


@dataclass(frozen=True)
class Report:
    """The whole: title, facts under it, banner if any, certificate badge, sections in order, what it is made from.

    `caveats` are what a reader must know before the first section.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    badge: tuple[str, str]
    banner: Banner | None
    sections: tuple[Section, ...]
    caveats: tuple[str, ...] = ()
    generator: str = field(default_factory=_made_by)
    source: str = "the records of the run alone"


_TONES: dict[str, str] = {word: word.tone for word in (*Verdict, *Agreement)}
_TONES |= {"pass": "good", "passed": "good", "fail": "bad", "failed": "bad", INVALID: "bad"}


def tone_of(word: str) -> str:
    """How a verdict or an outcome is coloured: "found", "none", "open", "good" or "bad"; its word is there too."""
    return _TONES.get(word, "open")


class Notes:
    """Footnotes of one table: equal notes share a mark (a, b, ... z, aa ...)."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, note: Any) -> str:
        """Marks of the notes in a text that joins them with "; "; "" where there is none."""
        parts = [p.strip() for p in str(note).split(";")] if isinstance(note, str) else []
        return " ".join(self._marks.setdefault(p, _letters(len(self._marks))) for p in parts if p)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(mark, text), in order."""
        return tuple((mark, text.replace("nan", UNDEFINED)) for text, mark in self._marks.items())


def _letters(index: int) -> str:
    return chr(97 + index) if index < 26 else _letters(index // 26 - 1) + chr(97 + index % 26)


def key_values(pairs: Iterable[tuple[str, Any]], reading: str, header: Sequence[str] = ("what", "value")) -> Table:
    """A two-column table of facts; absent values say "not recorded"."""
    rows = tuple((name, "not recorded" if value in (None, "") else str(value)) for name, value in pairs)
    return Table(tuple(header), rows, reading)


def records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts with text keys."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def finite(row: Mapping[str, Any], *names: str) -> bool:
    """Whether all these values of a row are numbers."""
    return all(is_number(row[name]) for name in names)
