"""The numerals of a question: where they stand, what they are worth, which may change, and how another is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Kind = Literal["plain", "money", "percent", "cents"]

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_TOKEN = re.compile(
    rf"(?:(?P<whole>[0-9]+)(?:\s+|-))?(?P<over>{_WHOLE})\s?/\s?(?P<under>[0-9]+)|{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+"
)
_PERCENT = re.compile(r"[\s-]*(?:%|per\s?cent\b)", re.IGNORECASE)
_CENTS = re.compile(r"\s*¢|[\s-]*cents?\b", re.IGNORECASE)
_UNIT = re.compile(r"[\s-]*([a-z]+)", re.IGNORECASE)

# A numeral that touches one of these is part of something else: a range, a time, a code, a size, a power, a ratio.
_TOUCHES_BEFORE = re.compile(r"(?:[^\W_]|[-\u2013\u2212.:/,#^*+=_])$")
_TOUCHES_AFTER = re.compile(r"[^\W_]|[:^*+=_'\u2019\"\u2033\u2032]|[-\u2013\u2212,./][0-9$]")
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_NAMES_BEFORE = re.compile(
    r"\b(?:pages?|grades?|chapters?|rooms?|routes?|highway|interstate|number|no\.?|size|levels?|days?|weeks?|month|"
    r"year|stage|round|section|part|team|group|class|lane|bus|flight|type|step|lap|floor|street|version|"
    rf"{_MONTHS})\s+(?:the\s+)?$",
    re.IGNORECASE,
)
# `the other 3`, `the remaining 20%`, `these 4`: what is left of a whole, or a count of what was named before.
_REFERS_BEFORE = re.compile(
    r"\b(?:other|others|remaining|rest|remainder|final|last|all|both|same|these|those|only|exactly)\s+"
    r"(?:of\s+)?(?:the\s+)?[$£€]?$",
    re.IGNORECASE,
)
_CLOCK_AFTER = re.compile(
    rf"\s*(?:[ap]\.?m\b|o['\u2019]clock)|\s+in\s+the\s+(?:morning|afternoon|evening)|\s+(?:of\s+)?(?:{_MONTHS})\b",
    re.IGNORECASE,
)
_TIME_OF_DAY = re.compile(
    r"[0-9]\s*[ap]\.?m\b|o['\u2019]clock|[0-9]:[0-9]|\bnoon\b|midnight|in the (?:morning|afternoon|evening)",
    re.IGNORECASE,
)
_BEFORE_TIME = re.compile(r"\b(?:at|from|to|until|till|by|between|and|before|after)\s+$", re.IGNORECASE)

_MAGNITUDES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
# How many of a unit make the next one: that number is the world's and stays, and what is below it stays below it.
_LIMITS: dict[str, tuple[int, ...]] = {
    "second": (60,),
    "minute": (60,),
    "hour": (24,),
    "day": (5, 7, 28, 30, 31, 365),
    "week": (4, 52),
    "weekend": (2,),
    "month": (12,),
    "inch": (12,),
    "feet": (3, 5280),
    "ounce": (16,),
    "cent": (100,),
    "quart": (4,),
    "pint": (2, 8),
    "cup": (16,),
    "gram": (1000,),
    "meter": (1000,),
    "centimeter": (100,),
    "degree": (90, 180, 360),
    "card": (52,),
}
_BILL_AFTER = re.compile(r"[\s-]*(?:dollars?[\s-]*)?bills?\b", re.IGNORECASE)
_BILL_BEFORE = re.compile(r"\bbills? of \$?$", re.IGNORECASE)
_YEARS = range(1700, 2101)


@dataclass(frozen=True)
class Numeral:
    """A numeral in a text.

    Attributes:
        start: Its first character, 0-based.
        text: Its characters, without sign of currency or percent.
        value: What they are worth; of a percentage, the number before the sign.
        kind: `money`, `percent` and `cents` by the sign or word beside it, else `plain`.
        movable: Whether another number could stand here. Not for a fraction, a range, a time or date, a year, an
            ordinal, the name of a thing (`page 12`), what is left of a whole (`the other 3`), a fact of the world
            (`7 days`, `a $20 bill`), 0 and 1.
        most: The largest number that may stand here, where its unit has one.
        implied: Other values that arithmetic may make of it: the parts of a fraction, 80 or 0.8 of 20%.
    """

    start: int
    text: str
    value: Fraction
    kind: Kind = "plain"
    movable: bool = False
    most: Fraction | None = None
    implied: frozenset[Fraction] = frozenset()

    @property
    def end(self) -> int:
        """One after its last character."""
        return self.start + len(self.text)

    @property
    def readings(self) -> tuple[Fraction, ...]:
        """The values that arithmetic may write for it: its own, and of percent and cents also a hundredth of it."""
        return (self.value, self.value / 100) if self.kind in ("percent", "cents") else (self.value,)

    @property
    def decimals(self) -> int:
        """Digits after the point."""
        return len(self.text.partition(".")[2])

    def write(self, value: Fraction) -> str:
        """Another number in this numeral's format: as many decimals, commas where it has them."""
        whole, rest = divmod(int(value * 10**self.decimals), 10**self.decimals)
        text = f"{whole:,}" if "," in self.text else str(whole)
        if self.text.startswith(".") and whole == 0:
            text = ""
        return f"{text}.{rest:0{self.decimals}d}" if self.decimals else text


def numerals(text: str) -> list[Numeral]:
    """The numerals of a text, in order."""
    has_time = _TIME_OF_DAY.search(text) is not None
    return [_numeral(text, match, has_time) for match in _TOKEN.finditer(text)]


def _numeral(text: str, match: re.Match[str], has_time: bool) -> Numeral:
    start, before, after = match.start(), text[: match.start()], text[match.end() :]
    if match["under"]:
        return _fraction(match)
    value = Fraction(match[0].replace(",", ""))
    unit = _UNIT.match(after)
    word = unit[1].lower() if unit else ""
    if word in _MAGNITUDES:
        return Numeral(start, match[0], value, implied=frozenset({value * _MAGNITUDES[word]}))
    kind = _kind(before, after)
    limits = () if kind in ("money", "percent") else _LIMITS.get("inch" if word == "inches" else word.rstrip("s"), ())
    fixed = (
        value in (0, 1)
        or value in limits
        or (kind == "percent" and value % 100 == 0)
        or (kind == "plain" and value in _YEARS and "," not in match[0])
        or re.match(r"0[0-9]", match[0])
        or _TOUCHES_BEFORE.search(before)
        or _TOUCHES_AFTER.match(after)
        or _REFERS_BEFORE.search(before)
        or _CLOCK_AFTER.match(after)
        or _BILL_AFTER.match(after)
        or _BILL_BEFORE.search(before)
        or (kind == "plain" and (_NAMES_BEFORE.search(before) or (has_time and _BEFORE_TIME.search(before))))
    )
    return Numeral(start, match[0], value, kind, not fixed, _most(value, kind, limits), _implied(value, kind))


def _kind(before: str, after: str) -> Kind:
    if before.rstrip()[-1:] in {"$", "£", "€"}:
        return "money"
    if _PERCENT.match(after):
        return "percent"
    return "cents" if _CENTS.match(after) else "plain"


def _most(value: Fraction, kind: Kind, limits: tuple[int, ...]) -> Fraction | None:
    bounds = [limit for limit in ((100,) if kind == "percent" else limits) if limit > value]
    return Fraction(bounds[0] - 1) if bounds else None


def _implied(value: Fraction, kind: Kind) -> frozenset[Fraction]:
    if kind != "percent":
        return frozenset()
    return frozenset({Fraction(100), 100 - value, 100 + value, 1 - value / 100, 1 + value / 100})


def _fraction(match: re.Match[str]) -> Numeral:
    whole, over, under = (Fraction((match[part] or "0").replace(",", "")) for part in ("whole", "over", "under"))
    implied = {over, under, whole, whole * under + over, under - over}
    if under == 0:
        return Numeral(match.start(), match[0], over, implied=frozenset(implied))
    value = whole + over / under
    return Numeral(match.start(), match[0], value, implied=frozenset({*implied, value, over / under, 1 - value}))
