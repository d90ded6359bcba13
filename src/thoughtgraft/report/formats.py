"""Numbers and texts as people read them: points, intervals, p-values, counts; undefined is a word, never a blank."""

from __future__ import annotations

import math
from typing import Any

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


def bounded(value: Any, low: Any, high: Any, zero_bound: Any) -> str:
    """An estimate in pp; where every difference is 0, the exact upper bound instead of an interval."""
    if is_number(zero_bound):
        return f"{number(value)} (exact bound {number(zero_bound)})"
    return estimate(value, low, high)


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
