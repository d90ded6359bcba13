"""Problems drawn by class of operation: so many of each, with a seed, from a stratum; and the origin's own draw."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thoughtgraft.errors import ProblemError
from thoughtgraft.problems.load import COT_EXPLORATION_SEED
from thoughtgraft.problems.operations import CLASSES, RULES, Rule, label_table
from thoughtgraft.problems.problem import ProblemSet

DRAWS = ("auto", "test", "train", "all", "cot-exploration")
"""`test` and `train` take one split's problems, `all` every problem. `auto` is `test` where several splits are mixed:
the public models were trained on GSM8K's train split, so what they hold of it is not what they would compute."""

# The origin's full draw takes 200 of each class; its prototype draws 20 of those anew.
_ORIGIN_DRAWN = 200


@dataclass(frozen=True)
class ClassSample:
    """Problems of each class, drawn.

    Attributes:
        problems: Class after class, in the order drawn.
        operations: The class of each problem.
        rule: The rule that labelled them.
        draw: The draw's name; never `auto`.
        asked: How many of each class were wanted.
        available: How many of each class the stratum holds.
    """

    problems: ProblemSet
    operations: tuple[str, ...]
    rule: Rule
    draw: str
    asked: int
    available: Mapping[str, int]

    @property
    def drawn(self) -> dict[str, int]:
        """How many of each class there are."""
        return {name: self.operations.count(name) for name in CLASSES}

    @property
    def short(self) -> dict[str, int]:
        """The classes that hold fewer than were wanted, with what they hold."""
        return {name: n for name, n in self.drawn.items() if n < self.asked}


def draw_classes(
    problems: ProblemSet, per_class: int, *, seed: int = 0, draw: str = "auto", rule: Rule | None = None
) -> ClassSample:
    """So many problems of each class; all of a class that holds fewer, which is never filled up.

    Draws with one seed are nested: a smaller one is the beginning of a larger one, class by class. `cot-exploration`
    is the CoT_Exploration draw: its own seed 42, one `random.sample` of 200 per class in the order of `CLASSES` over
    test-then-train; fewer than 200 are drawn from those by a fresh generator of the same seed.

    Args:
        problems: What is drawn from.
        per_class: How many of each class.
        seed: Permutes each class; has no part in `cot-exploration`.
        draw: One of `DRAWS`.
        rule: The rule of the labels; None takes the draw's own (`annotations`, or `cot-exploration`).

    Raises:
        ProblemError: The draw is unknown or does not fit the problems, or fewer than two classes have problems.
    """
    if draw not in DRAWS:
        raise ProblemError("unknown draw", got=repr(draw), expected=" or ".join(DRAWS))
    origin = draw == "cot-exploration"
    rule = (RULES[1] if origin else RULES[0]) if rule is None else rule
    splits = list(dict.fromkeys(problem.split for problem in problems))
    if draw == "auto":
        draw = "test" if len(splits) > 1 and "test" in splits else "all"
    table = label_table(problems, rule)
    if draw in ("test", "train"):
        table = table[table["split"] == draw]
    members = {name: [str(i) for i in table["id"][table["operation"] == name]] for name in CLASSES}
    if origin:
        if splits != ["test", "train"]:
            got = ", then ".join(splits)
            fix = "use --problems gsm8k:all, or another draw"
            raise ProblemError("the draw cot-exploration is over test, then train", got=got, fix=fix)
        chosen = _origin(members, per_class)
    else:
        chosen = {name: _permuted(ids, seed, name)[:per_class] for name, ids in members.items()}
    if sum(bool(ids) for ids in chosen.values()) < 2:
        raise ProblemError(
            f"{problems.name} does not hold problems of two classes",
            got=", ".join(f"{len(ids)} {name}" for name, ids in members.items()) + f" (draw {draw}, rule {rule})",
            fix="use another --draw, or more problems",
        )
    by_id = {problem.id: problem for problem in problems}
    return ClassSample(
        ProblemSet(tuple(by_id[i] for ids in chosen.values() for i in ids), problems.name),
        tuple(name for name, ids in chosen.items() for _ in ids),
        rule,
        draw,
        per_class,
        {name: len(ids) for name, ids in members.items()},
    )


def _permuted(ids: Sequence[str], seed: int, name: str) -> list[str]:
    """The class in its own seeded order, so that what is drawn of one does not hang on the others."""
    key = int.from_bytes(hashlib.sha256(f"operations {seed} {name}".encode()).digest()[:8], "big")
    order = list(ids)
    random.Random(key).shuffle(order)
    return order


def _origin(members: Mapping[str, Sequence[str]], per_class: int) -> dict[str, list[str]]:
    if short := {name: len(ids) for name, ids in members.items() if len(ids) < _ORIGIN_DRAWN}:
        raise ProblemError(
            "the draw cot-exploration needs 200 problems of each class", got=short, fix="use another --draw"
        )
    if per_class > _ORIGIN_DRAWN:
        raise ProblemError("the draw cot-exploration has 200 problems of each class", got=per_class)
    generator = random.Random(COT_EXPLORATION_SEED)
    drawn = {name: generator.sample(list(ids), _ORIGIN_DRAWN) for name, ids in members.items()}
    if per_class == _ORIGIN_DRAWN:
        return drawn
    generator = random.Random(COT_EXPLORATION_SEED)
    return {name: generator.sample(ids, per_class) for name, ids in drawn.items()}
