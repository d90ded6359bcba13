"""Numbers in answers, exactly: what a text or a value says, where it says it, and how an answer writes it."""

from __future__ import annotations

import math
import operator
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

_MINUS = "-\u2212"
# Commas only where they group thousands. ASCII digits only: another script's digits are not what a grader reads.
_UNSIGNED = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|(?<![0-9.])\.[0-9]+)"
_GOLD = re.compile(rf"([{_MINUS}]?\$?|\$[{_MINUS}])({_UNSIGNED})(?:/({_UNSIGNED}))?%?")
# A quotient, unless it is part of a longer chain of slashes (a date); otherwise a single number.
_IN_TEXT = re.compile(rf"(?<![0-9/])({_UNSIGNED})/({_UNSIGNED})(?!/?[0-9])|({_UNSIGNED})")
_OFFICIAL = re.compile(r"-?\d+\.?\d*")
# No real answer is longer; the bounds keep every number printable and within a float's range.
_MOST_CHARACTERS = 300
_MOST_BITS = 996  # a whole number of so many has 300 digits at most; longer ones are not written out to be counted


def parse_number(text: str) -> Fraction | None:
    """The number that the whole of a gold-like text is: `4,096`, `$1,430`, `.5`, `3/4`, `12.`, `-4`, `50%` (= 50).

    Args:
        text: A gold answer, with nothing but the number in it; spaces around it do not matter.

    Returns:
        The exact number; None where the text is anything else, or divides by zero.
    """
    match = _GOLD.fullmatch(text.strip())
    if match is None:
        return None
    sign, numerator, denominator = match.groups()
    value = _quotient(numerator, denominator or "1")
    return -value if value is not None and sign.strip("$") else value


def as_number(value: Any) -> Fraction | None:
    """The exact number that a value of a user's own stands for: numbers of any kind, and the text of one.

    Args:
        value: An int, float, Fraction or Decimal, numpy's among them, or text that `parse_number` reads.

    Returns:
        The number, floats through their shortest text (0.1 is one tenth); None where the value is no number, not
        finite, or longer than any answer.
    """
    if type(value) is Fraction and value.denominator == 1 and value.numerator.bit_length() <= _MOST_BITS:
        return value  # what nearly every number is
    match value:
        case bool():
            number = None
        case str():
            number = parse_number(value)
        case Fraction():
            number = value
        case Decimal():
            number = Fraction(value) if value.is_finite() and abs(value.adjusted()) < _MOST_CHARACTERS else None
        case float():
            number = Fraction(repr(float(value))) if math.isfinite(value) else None
        case _:
            number = _of_a_library(value)
    if number is None or max(abs(number.numerator), number.denominator).bit_length() > _MOST_BITS:
        return None
    return number if len(format_number(number)) <= _MOST_CHARACTERS else None


def _of_a_library(value: Any) -> Fraction | None:
    """Numpy's narrower floats by their own text, which is shorter than Python's; ints of any library."""
    kind = str(getattr(value, "dtype", ""))
    if type(value).__module__ == "numpy" and kind.startswith("float") and value.ndim == 0:
        return Fraction(str(value)) if math.isfinite(value) else None
    try:
        return None if "bool" in kind else Fraction(operator.index(value))
    except (TypeError, ValueError, RuntimeError):
        return None


def extract_answer(text: str) -> Fraction | None:
    """The last number of a model's text, exactly.

    A minus counts as a sign only where it cannot be an operator or a hyphen: `= -4` is -4, while `10-5`,
    `10 -5` and `step-5` end in 5. `a/b` written without spaces is one number.

    Args:
        text: What the model generated.

    Returns:
        The exact number; None where the text holds none, or its last one divides by zero.
    """
    last = None
    for last in _IN_TEXT.finditer(text):  # noqa: B007 - only the last match is wanted
        pass
    if last is None:
        return None
    numerator, denominator, single = last.groups()
    value = _quotient(single or numerator, denominator or "1")
    return -value if value is not None and _ends_in_sign(text[: last.start()]) else value


def number_start(text: str) -> int | None:
    """Where the last number of a text begins (0-based character), its minus sign included; None where there is none."""
    starts = [match.start() for match in _IN_TEXT.finditer(text)]
    if not starts:
        return None
    before = text[: starts[-1]]
    return len(before.removesuffix("$")) - 1 if _ends_in_sign(before) else starts[-1]


def _quotient(numerator: str, denominator: str) -> Fraction | None:
    if len(numerator) + len(denominator) > _MOST_CHARACTERS:
        return None
    over, under = (Fraction(part.replace(",", "")) for part in (numerator, denominator))
    return None if under == 0 else over / under


def _ends_in_sign(before: str) -> bool:
    """Whether the text before a number ends in its minus sign, rather than an operator, a hyphen or a dash."""
    before = before.removesuffix("$")
    if not before or before[-1] not in _MINUS:
        return False
    rest = before[:-1]
    left = rest.rstrip(" \t")
    if not left:
        return True
    if left == rest and (left[-1].isalpha() or left[-1] in _MINUS + "."):
        return False
    return not (left[-1].isdigit() or left[-1] in ")]%")


def extract_official(text: str) -> float | None:
    """The last number of a text by CODI's official procedure: no commas, a minus and digits and a point, as a float.

    The official code stands infinity in for a missing number, or stops with an error; here it is None, so that two
    missing numbers never count as agreement. `10-5` reads as -5 and `.5` as 5, as there.

    Args:
        text: What the model generated.

    Returns:
        The number as a float; None where the text holds none.
    """
    found = _OFFICIAL.findall(text.replace(",", ""))
    return float(found[-1]) if found else None


def format_number(value: Fraction) -> str:
    """A number as answers write it: `42`, `0.5` where it terminates, else `1/3`."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = 1
    while (value * 10**digits).denominator != 1:
        digits += 1
    whole = abs(value * 10**digits).numerator
    text = f"{whole // 10**digits}.{whole % 10**digits:0{digits}d}"
    return f"-{text}" if value < 0 else text
