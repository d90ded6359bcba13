"""Answers read a second time, by rules written anew: what grading and scoring must agree with, they do not make.

A number is read by scanning, not by the graders' expressions: the longest run of digits with commas between groups of
three, a point, or two of those around one slash; the last one of a text counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

from transformers import PreTrainedTokenizerBase

_DIGITS = frozenset("0123456789")
_MINUS = frozenset("-\u2212")
_LONGEST = 300


@dataclass(frozen=True)
class Found:
    """The last number of a text: the 0-based character where it begins, its sign included, and its value, if any."""

    start: int
    value: Fraction | None


def last_number(text: str) -> Found | None:
    """The last number of a text; its value is None where it divides by zero or has more than 300 characters."""
    at, last = 0, None
    while at < len(text):
        spans = _quotient(text, at) or _single(text, at)
        if spans:
            last, at = (at, spans), spans[-1][1]
        else:
            at += 1
    if last is None:
        return None
    start, spans = last
    written = [text[a:b].replace(",", "") for a, b in spans]
    value: Fraction | None = None
    if sum(b - a for a, b in spans) <= _LONGEST:
        over, under = (Fraction(part) for part in (*written, "1")[:2])
        value = over / under if under else None
    signed = _sign(text, start)
    if signed is None:
        return Found(start, value)
    return Found(signed, None if value is None else -value)


Span = tuple[int, int]


def _single(text: str, at: int) -> tuple[Span] | None:
    end = _unsigned(text, at)
    return None if end is None else ((at, end),)


def _quotient(text: str, at: int) -> tuple[Span, Span] | None:
    """Two numbers around one slash, which is no part of a longer chain such as a date."""
    if at and (text[at - 1] in _DIGITS or text[at - 1] == "/"):
        return None
    middle = _unsigned(text, at)
    if middle is None or text[middle : middle + 1] != "/":
        return None
    end = _unsigned(text, middle + 1)
    if end is None:
        return None
    rest = text[end : end + 2].removeprefix("/")
    return None if rest and rest[0] in _DIGITS else ((at, middle), (middle + 1, end))


def _unsigned(text: str, at: int) -> int | None:
    """Where the number that begins at this character ends; None if none does."""

    def digits(start: int) -> int:
        while start < len(text) and text[start] in _DIGITS:
            start += 1
        return start

    end = digits(at)
    if end == at:  # .5, but not the tail of 1.2.5
        point = text[at : at + 1] == "." and not (at and (text[at - 1] in _DIGITS or text[at - 1] == "."))
        return digits(at + 1) if point and digits(at + 1) > at + 1 else None
    if end - at <= 3:
        while text[end : end + 1] == "," and digits(end + 1) == end + 4:
            end += 4
    return digits(end + 1) if text[end : end + 1] == "." else end


def _sign(text: str, start: int) -> int | None:
    """Where the minus sign of the number at `start` stands; None where it has none, or an operator or hyphen."""
    at = start - 1
    if text[at : at + 1] == "$" and at > 0:
        at -= 1
    if at < 0 or text[at] not in _MINUS:
        return None
    left = at
    while left > 0 and text[left - 1] in " \t":
        left -= 1
    if left == 0:
        return at
    before = text[left - 1]
    if left == at and (before.isalpha() or before in _MINUS or before == "."):
        return None
    return None if before.isdigit() or before in ")]%" else at


def written(value: Fraction) -> str:
    """A number as answers write it: `42`, `0.5` where its decimals end, else `1/3`."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = len(str(value.numerator)) + value.denominator.bit_length()
    text = f"{Context(prec=digits).divide(Decimal(value.numerator), Decimal(value.denominator)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class Words:
    """A tokenizer's reading and writing of answers.

    Args:
        tokenizer: The model's.
        eos: The id that ends an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos: int) -> None:
        self.tokenizer, self.eos, self.size = tokenizer, eos, len(tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, spaces kept; special tokens and ids outside the tokenizer say nothing."""
        return str(self.tokenizer.decode([i for i in ids if i < self.size], skip_special_tokens=True))

    def number_at(self, ids: Sequence[int]) -> int | None:
        """The 0-based token in which an answer's last number begins; None without a number."""
        found = last_number(self.decode(ids))
        if found is None:
            return None
        at = 0
        while len(self.decode(ids[: at + 1])) <= found.start:
            at += 1
        return at

    def instead(self, ids: Sequence[int], at: int, number: str) -> tuple[int, ...]:
        """The tokens of another number and the end of the answer, in the place of the number that token `at` begins.

        They are those of the whole text; where it is cut elsewhere, those of the number alone.
        """
        text, words = self.decode(ids), self.decode(ids[:at])
        found = last_number(text)
        assert found is not None
        before = text[: found.start]
        whole = self._encode(before + number)
        alone = whole[:at] != list(ids[:at])
        return (*(self._encode(before[len(words) :] + number) if alone else whole[at:]), self.eos)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
