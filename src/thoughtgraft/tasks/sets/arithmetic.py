"""Synthetic word problems in GSM8K's format, each with its causal graph; nothing is downloaded.

Three families: `chain` (one person's store changes step by step), `nest` (bags of things that then change) and `early`
(a chain of which only the first half is asked about). In `early` every text holds as many additive as
multiplicative changes, and only their order decides which of them count: the words do not give the operation away.

Splits are disjoint by construction. A problem's *form* is its (template, operands) pair; the form's
hash assigns it to train, validation or test, and whole templates are set aside as `heldout`.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from thoughtgraft.arguments import choice
from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.problem import Problem, ProblemSet, Ref, Step
from thoughtgraft.tasks.steps import solution_text
from thoughtgraft.tasks.task import Task

LARGEST = 30
"""Every number in a problem, given or computed, is a whole number in 1..LARGEST."""

SPLIT_SIZES = {"train": 20_000, "validation": 1_000, "test": 2_000, "heldout": 1_000}

NAMES = "Tom Ann Ben Eva Sam Lily Max Mia Leo Zoe Jack Rosa Omar Ines Paul Nora".split()
THINGS = "apples books pens coins stamps cards shells eggs cups toys beads stones keys rings nuts kites".split()

_ADDITIVE, _MULTIPLICATIVE = "+-", "*/"

_OPENINGS = ("{n} has {b} {t}.", "{n} starts with {b} {t}.", "{n} counts {b} {t} at home.")
_EVENTS = {
    "+": ("{n} buys {b} {t}.", "{n} finds {b} more {t}.", "A friend gives {n} {b} {t}."),
    "-": ("{n} sells {b} {t}.", "{n} loses {b} {t}.", "{n} gives a friend {b} {t}."),
    "*": ("Then {n} has {b} times as many {t}.", "The number of {t} grows {b} times."),
    "/": ("{n} packs the {t} equally into {b} bags and keeps one bag.", "{n} keeps one of {b} equal parts."),
}
_QUESTIONS = ("How many {t} does {n} have?", "How many {t} does {n} have now?")
_NEST_OPENINGS = ("{n} has {a} bags of {b} {t}.", "{n} has {a} bags. Each bag holds {b} {t}.")
_EARLY = {
    1: "How many {t} did {n} have before the last change?",
    2: "How many {t} did {n} have before the last two changes?",
}


def vocabulary() -> list[str]:
    """Every word and number a problem or its solution can hold, lower-cased, in a fixed order."""
    frames = [*_OPENINGS, *_QUESTIONS, *_NEST_OPENINGS, *_EARLY.values(), *sum(_EVENTS.values(), ())]
    text = re.sub(r"{\w}", " ", " ".join([*frames, *NAMES, *THINGS])).lower()
    return list(dict.fromkeys([*(str(n) for n in range(LARGEST + 1)), *re.findall(r"[a-z]+|[^\sa-z]", text)]))


def _value(left: int, op: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[op]


@dataclass
class _Draft:
    """A problem under construction: `frames` name the template, `operands` are the numbers in the text."""

    rng: random.Random
    frames: list[str] = field(default_factory=list)
    operands: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def frame(self, name: str, options: tuple[str, ...]) -> str:
        index = self.rng.randrange(len(options))
        self.frames.append(f"{name}{index}")
        return options[index]

    def number(self, low: int, high: int) -> int:
        value = self.rng.randint(low, high)
        self.operands.append(value)
        return value

    def apply(self, left: int, op: str, right: int, source: int | None) -> int:
        """Append the step `left op right`; `source` is the step that made `left`, None if given."""
        value = _value(left, op, right)
        operand = Fraction(left) if source is None else Ref(source)
        self.steps.append(Step(operand, op, Fraction(right), Fraction(value)))
        return value


class _Dead(Exception):
    """The draw ran into a number from which the wanted operation leads out of range; draw again."""


def _operand(draft: _Draft, value: int, op: str) -> int:
    """A second operand that keeps `value op operand` whole and in 1..LARGEST."""
    if op == "/":
        divisors = [d for d in range(2, 11) if value % d == 0]
        if not divisors:
            raise _Dead
        chosen = draft.rng.choice(divisors)
        draft.operands.append(chosen)
        return chosen
    low, high = {"+": (1, LARGEST - value), "-": (1, value - 1), "*": (2, min(10, LARGEST // value))}[op]
    if high < low:
        raise _Dead
    return draft.number(low, high)


def _pick_ops(rng: random.Random, n: int) -> list[str]:
    kinds = rng.choices((_ADDITIVE, _MULTIPLICATIVE, _ADDITIVE + _MULTIPLICATIVE), weights=(3, 3, 4))[0]
    return [rng.choice(kinds) for _ in range(n)]


def _event(draft: _Draft, value: int, op: str, words: dict[str, str]) -> int:
    """One change in words; returns its operand."""
    b = _operand(draft, value, op)
    draft.text.append(draft.frame(op, _EVENTS[op]).format(b=b, **words))
    return b


def _events(draft: _Draft, value: int, ops: list[str], words: dict[str, str]) -> int:
    """Changes that count, each a step on the last one's value; returns the final value."""
    for op in ops:
        source = len(draft.steps) - 1 if draft.steps else None
        value = draft.apply(value, op, _event(draft, value, op, words), source)
    return value


def _words(rng: random.Random) -> dict[str, str]:
    return {"n": rng.choice(NAMES), "t": rng.choice(THINGS)}


def _opening(draft: _Draft, family: str, first: str, words: dict[str, str]) -> int:
    # Products stay in range only from small starts.
    value = draft.number(2, LARGEST if first in "+-/" else LARGEST // 2)
    draft.text.append(draft.frame(family, _OPENINGS).format(b=value, **words))
    return value


def _chain(draft: _Draft) -> None:
    rng, words = draft.rng, _words(draft.rng)
    ops = _pick_ops(rng, rng.choices((1, 2, 3, 4), weights=(5, 25, 35, 35))[0])
    _events(draft, _opening(draft, "chain", ops[0], words), ops, words)
    draft.text.append(draft.frame("?", _QUESTIONS).format(**words))


def _nest(draft: _Draft) -> None:
    rng, words = draft.rng, _words(draft.rng)
    opening = draft.frame("nest", _NEST_OPENINGS)
    a = draft.number(2, 10)
    b = draft.number(2, LARGEST // a)
    draft.text.append(opening.format(a=a, b=b, **words))
    value = draft.apply(a, "*", b, None)
    _events(draft, value, _pick_ops(rng, rng.choices((0, 1, 2), weights=(1, 2, 2))[0]), words)
    draft.text.append(draft.frame("?", _QUESTIONS).format(**words))


def _early(draft: _Draft) -> None:
    """Half of the changes are asked about; additive and multiplicative ones are equally many in every text."""
    rng, words = draft.rng, _words(draft.rng)
    half = rng.choice((1, 2))
    kinds = rng.sample([_ADDITIVE] * half + [_MULTIPLICATIVE] * half, 2 * half)
    ops = [rng.choice(kind) for kind in kinds]
    value = _events(draft, _opening(draft, "early", ops[0], words), ops[:half], words)
    for op in ops[half:]:
        b = _event(draft, value, op, words)
        value = _value(value, op, b)
    draft.text.append(_EARLY[half].format(**words))


_FAMILIES: tuple[Callable[[_Draft], None], ...] = (_chain, _nest, _early)


def _draw(rng: random.Random) -> _Draft:
    while True:
        draft = _Draft(rng)
        try:
            rng.choices(_FAMILIES, weights=(60, 13, 27))[0](draft)
        except _Dead:
            continue
        return draft


def _bucket(text: str, n: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % n


def split_of(template: str, operands: tuple[int, ...]) -> str:
    """The split a (template, operands) form belongs to, by hash alone."""
    if _bucket(template, 12) == 0:
        return "heldout"
    bucket = _bucket(f"{template}|{operands}", 20)
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"


def generate(split: str, seed: int = 0) -> Iterator[Problem]:
    """An endless stream of one split's problems, each form at most once in every split but train.

    Args:
        split: train, validation, test or heldout.
        seed: Seed of the stream; the fixed splits use 0.

    Yields:
        Problems with ids `arithmetic_<split>_<i>`, i 0-based.
    """
    choice(split, "split of 'arithmetic'", SPLIT_SIZES, ProblemError)
    rng = random.Random(f"thoughtgraft-arithmetic-{split}-{seed}")
    seen: set[tuple[str, tuple[int, ...]]] = set()
    count = 0
    while True:
        draft = _draw(rng)
        form = "-".join(draft.frames), tuple(draft.operands)
        if split_of(*form) != split or (split != "train" and form in seen):
            continue
        if split != "train":
            seen.add(form)
        yield Problem(
            id=f"arithmetic_{split}_{count}",
            question=" ".join(draft.text),
            gold=draft.steps[-1].result,
            solution=solution_text(draft.steps),
            steps=tuple(draft.steps),
            split=split,
            template=form[0],
        )
        count += 1


@lru_cache(maxsize=4)
def arithmetic(split: str = "test") -> ProblemSet:
    """The fixed list of one split: train 20,000, validation 1,000, test 2,000, heldout 1,000 problems."""
    stream = generate(split)
    size = SPLIT_SIZES.get(split, 0)
    return ProblemSet(tuple(problem for problem, _ in zip(stream, range(size), strict=False)), f"arithmetic:{split}")


TASK = Task("arithmetic", tuple(SPLIT_SIZES), arithmetic, default="test")
