"""Numbers in text: numerals and words, found and replaced."""

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


_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_POWERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_UNITS = {
    **{word: value for value, word in enumerate(_SMALL)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()

# Each word's values: what a solution may write for it. Words of the same stem share a line.
_WORDS: dict[str, str] = {
    "half halves halved halfway": "1 2 1/2 3/2",
    "third thirds": "1 2 3 1/3 2/3",
    "quarter quarters": "1 3 4 1/4 3/4 25",
    "fourth fourths": "1 3 4 1/4 3/4",
    "fifth fifths": "1 2 3 4 5 1/5 2/5 3/5 4/5",
    "twice double doubles doubled doubling pair pairs couple both twin twins each-other": "2",
    "thrice triple triples tripled tripling triplets": "3",
    "quadruple quadruples quadrupled": "4",
    "once single alone himself herself": "1",
    "dozen dozens": "12",
    "score": "20",
    "percent percentage percents": "100 1/100",
    "second seconds": "60 3600",
    "minute minutes": "60 1/60",
    "hour hours hourly": "60 24",
    "day days daily": "24 7 30 31 365",
    "week weeks weekly": "7 4 52 5",
    "weekend weekends": "2 4 5 52",
    "weekday weekdays": "5 2",
    "month months monthly": "12 4 30 31 28",
    "year years yearly annual annually": "12 52 365 366 10 100",
    "decade decades": "10",
    "century centuries": "100",
    "cent cents penny pennies": "100 1/100",
    "nickel nickels": "5 1/20 20",
    "dime dimes": "10 1/10",
    "inch inches": "12 1/12",
    "foot feet": "12 3 5280",
    "yard yards": "3 36",
    "mile miles": "5280",
    "ounce ounces oz": "16 1/16",
    "pound pounds": "16",
    "ton tons": "2000",
    "cup cups": "2 4 8 16",
    "pint pints quart quarts": "2 4 8",
    "gallon gallons": "4 8 16 128",
    "gram grams kilogram kilograms kg kilometer kilometers km meter meters liter liters ml": "100 1000",
    "centimeter centimeters cm": "10 100",
    "square squares": "4",
    "triangle triangles tricycle": "3",
    "january march may july august october december": "31",
    "april june september november": "30",
    "february": "28 29",
    "noon midnight": "12",
}
_IMPLIED = {
    word: frozenset(map(Fraction, values.split())) for words, values in _WORDS.items() for word in words.split()
}
_WORD = re.compile(r"[a-z]+")
_RUN = re.compile(
    rf"\b(?:{'|'.join([*_UNITS, *_POWERS])})(?:(?:[\s-]+|[\s-]+and[\s-]+)(?:{'|'.join([*_UNITS, *_POWERS])}))*\b"
)


def spelled_numbers(text: str) -> list[int]:
    """The numbers that a text spells (`twenty-five`, `two hundred`), in order; `one` and `zero` are left out."""
    values = [_spelled(run[0]) for run in _RUN.finditer(text.lower())]
    return [value for value in values if value > 1]


def implied_values(text: str) -> frozenset[Fraction]:
    """Every value that arithmetic may take from the text's words rather than from its numerals.

    Spelled numbers, shares and multiples (`half`: 2 or 1/2), and what a unit has of the next (`week`: 7, `dozen`: 12,
    `percent`: 100). More than a reader would take, never knowingly less: a value is the question's own only if it is
    not among them.
    """
    found = {Fraction(value) for value in spelled_numbers(text)}
    for word in _WORD.findall(text.lower()):
        found |= _IMPLIED.get(word, frozenset())
        if word in _UNITS or word in _POWERS:
            found.add(Fraction(_UNITS.get(word) or _POWERS.get(word, 0)))
        elif word in _ORDINALS:
            found.add(Fraction(_ORDINALS.index(word) + 1))
    if "%" in text:
        found.add(Fraction(100))
    return frozenset(found)


def _spelled(run: str) -> int:
    total = part = 0
    for word in _WORD.findall(run):
        if word in _UNITS:
            part += _UNITS[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in _POWERS:
            total, part = total + max(part, 1) * _POWERS[word], 0
    return total + part
