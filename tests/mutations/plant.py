"""How a mistake is told and planted: what must catch it, and changes of what functions get and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest import MonkeyPatch

SELF, LOADER, OFFICIAL, TEST, NOTHING = "self-checks", "strict loading", "official cases", "a test", "nothing"


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    Attributes:
        name: What went wrong, in a few words.
        where: What it is planted into.
        plant: Plants it.
        caught_by: The first line that sees it: the certificate's own checks, strict loading, the official cases, a
            test; or nothing.
        checks: Checks that must fail, beside others; or the test.
        words: What the diagnosis must say.
        reload: Whether the model must be loaded with the mistake in place.
        full: Whether only a full certificate sees it.
        trained: Whether it is planted into `tiny-codi`, because the golden networks' final norms are the identity on
            what is normed already.
        load: Options for loading.
        spaced: Whether it is seen only by a model whose tokenizer tells two spaces from one.
    """

    name: str
    where: str
    plant: Callable[[MonkeyPatch], None]
    caught_by: str
    checks: tuple[str, ...] = ()
    words: str = ""
    reload: bool = False
    full: bool = False
    load: tuple[tuple[str, Any], ...] = ()
    trained: bool = False
    spaced: bool = False


def wrap(patch: MonkeyPatch, place: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    patch.setattr(place, name, make(getattr(place, name)))


Plant = Callable[[MonkeyPatch], None]
Function = Callable[..., Any]


def result(place: Any, name: str, change: Function) -> Plant:
    """`change(result, *arguments)` takes the place of what a function gives."""

    def make(honest: Function) -> Function:
        return lambda *args, **more: change(honest(*args, **more), *args)

    return lambda patch: wrap(patch, place, name, make)


def arguments(place: Any, name: str, change: Function) -> Plant:
    """`change(*arguments)` gives the positional arguments that a function gets instead."""

    def make(honest: Function) -> Function:
        return lambda *args, **more: honest(*change(*args), **more)

    return lambda patch: wrap(patch, place, name, make)


def together(*plants: Plant) -> Plant:
    def plant(patch: MonkeyPatch) -> None:
        for one in plants:
            one(patch)

    return plant
