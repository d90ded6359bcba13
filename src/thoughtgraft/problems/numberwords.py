"""What a question's words may stand for in arithmetic: numbers in words, and what the world knows of a unit."""

from __future__ import annotations

import re
from fractions import Fraction

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
