"""A page as blocks, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from thoughtgraft.records.spec import package_versions
from thoughtgraft.stats.verdicts import INVALID, Agreement, Verdict


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
    """Rows as dicts with text keys; pandas' NA is None."""
    return [{str(k): None if v is pd.NA else v for k, v in row.items()} for row in table.to_dict("records")]


def finite(row: Mapping[str, Any], *names: str) -> bool:
    """Whether all these values of a row are numbers."""
    return all(is_number(row[name]) for name in names)


UNDEFINED = "undefined"
# What cannot be seen, made visible: tokens are often a space or a line break.
_VISIBLE = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
_MD_SPECIAL = "\\`*_{}[]|#~$"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number (null, NaN and infinity are not)."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def number(value: Any, digits: int = 1) -> str:
    """A number with fixed digits and a real minus sign; never "-0.0"."""
    if not is_number(value):
        return UNDEFINED
    rounded = round(float(value), digits) + 0.0
    return f"{rounded:,.{digits}f}".replace("-", "−")


def percent(value: Any, digits: int = 1) -> str:
    """A fraction 0..1 as a percentage."""
    return f"{number(100 * float(value), digits)}%" if is_number(value) else UNDEFINED


def interval(low: Any, high: Any, digits: int = 1) -> str:
    """An interval in brackets; undefined if a bound is."""
    if not (is_number(low) and is_number(high)):
        return UNDEFINED
    return f"[{number(low, digits)}, {number(high, digits)}]"


def judged(low: Any, high: Any, margin: float, digits: int = 1) -> str:
    """An interval in brackets, with as many digits as it takes to see where its ends lie beside 0 and +-margin.

    So a verdict made from the interval is the one that its printed ends give.
    """
    if not (is_number(low) and is_number(high)):
        return UNDEFINED
    ends = float(low), float(high)
    while digits < 9 and any(_sides(round(end, digits), margin) != _sides(end, margin) for end in ends):
        digits += 1
    return interval(*ends, digits)


def _sides(value: float, margin: float) -> tuple[bool, ...]:
    return tuple(side for bound in (-margin, 0.0, margin) for side in (value < bound, value > bound))


def estimate(value: Any, low: Any, high: Any, digits: int = 1) -> str:
    """A value with its interval, "12.3 [8.1, 16.5]"; an undefined interval is said."""
    if not is_number(value):
        return UNDEFINED
    shown = interval(low, high, digits)
    return f"{number(value, digits)} {shown if shown != UNDEFINED else f'[{UNDEFINED}]'}"


def p_value(value: Any) -> str:
    """A p-value to three digits; below that "<.001"."""
    if not is_number(value):
        return UNDEFINED
    p = float(value)
    return "<.001" if p < 0.0005 else "1" if p > 0.9995 else f"{p:.3f}".lstrip("0")


def count(value: Any) -> str:
    """A whole number with thousands separators."""
    return f"{round(float(value)):,}" if is_number(value) else UNDEFINED


def sample(hosts: Any, donors: Any = None, cells: Any = None) -> str:
    """What an estimate rests on: "100 hosts × 37 donors, 1,000 generations"."""
    text = plural(hosts, "host")
    if is_number(donors) and float(donors) > 0:
        text += f" × {plural(donors, 'donor')}"
    if is_number(cells):
        text += f", {plural(cells, 'generation')}"
    return text


def size(hosts: Any, donors: Any = None, cells: Any = None) -> str:
    """The same in a table's cell: "100 × 37 (1,000)", hosts × distinct donors (generations)."""
    text = count(hosts)
    if is_number(donors) and float(donors) > 0:
        text += f" × {count(donors)}"
    return f"{text} ({count(cells)})" if is_number(cells) else text


def plural(n: Any, word: str) -> str:
    """A count with its noun."""
    return f"{count(n)} {word}" if count(n) == "1" else f"{count(n)} {word}s"


def shorten(text: str, limit: int = 200) -> str:
    """Text on one line, cut at a word with an ellipsis."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    return (cut.rpartition(" ")[0] or cut).rstrip() + "…"


def visible(token: str) -> str:
    """A token with its white space and control characters made visible."""
    shown = "".join(_VISIBLE.get(c, c if c.isprintable() else f"\\x{ord(c):02x}") for c in token)
    inner = shown.strip(" ")
    lead = len(shown) - len(shown.lstrip(" "))
    return "␣" * lead + inner + ("␣" * (len(shown) - lead - len(inner)) if inner else "") if shown else "∅"


def markdown(text: Any) -> str:
    """Text as Markdown that shows exactly this text: nothing in it is markup, a table break, or HTML."""
    line = " ".join(str(text).split())
    line = "".join("\\" + c if c in _MD_SPECIAL else c for c in line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def sentence_list(items: list[str]) -> str:
    """Items as words: "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def assumed(found: Any) -> str:
    """What was taken for granted of a model, as run.json keeps it, with the reasons; empty where nothing was."""
    listed = [f"{x.get('what')}: {x.get('value')} ({x.get('why')})" for x in found or () if isinstance(x, dict)]
    return f"Assumed of the model, since no file or option says it: {'; '.join(listed)}." if listed else ""
