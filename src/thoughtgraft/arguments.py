"""What a user passes, checked at the door: kinds, whole numbers, choices, paths and calls, refused in one sentence."""

from __future__ import annotations

import inspect
import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Set
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from thoughtgraft.errors import RunError, ThoughtgraftError

P = ParamSpec("P")
R = TypeVar("R")
Kind = TypeVar("Kind")

Error = type[ThoughtgraftError]

_MOST_DIGITS = 18
LARGEST_SEED = 2**63 - 1
"""Records keep the seed in 64 bits."""


def shown(value: object, limit: int = 80) -> str:
    """A value as an error prints it: on one line, cut off where it is long."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # what a number of numpy's or torch's says of itself is longer than the number
    try:
        text = " ".join(line.strip() for line in repr(value).splitlines())
    except Exception:  # a number of 5,000 digits, or an object that cannot say what it is
        text = f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def need(value: Any, kind: type[Kind], what: str, error: Error, *, expected: str, fix: str | None = None) -> Kind:
    """The value, if it is of this kind.

    Args:
        value: What was passed.
        kind: The class that it has to be of.
        what: The argument in words, such as "the plan".
        error: What is raised.
        expected: What would have been right.
        fix: What to do about it.
    """
    if not isinstance(value, kind):
        got = f"{shown(value)} ({type(value).__name__})"
        raise error(f"wrong kind of value for {what}", got=got, expected=expected, fix=fix)
    return value


def whole(
    value: Any, what: str, error: Error, *, least: int | None = None, most: int | None = None, fix: str | None = None
) -> int:
    """A whole number as an int, numpy's and torch's included; True and 2.0 are none.

    Args:
        value: What was passed.
        what: The argument in words.
        error: What is raised.
        least, most: Its bounds, both allowed.
        fix: What to do about it.
    """
    number = None
    if not isinstance(value, bool) and "bool" not in str(getattr(value, "dtype", "")):
        try:
            number = operator.index(value)
        except (TypeError, ValueError, RuntimeError):  # numpy, Python and torch refuse each in their own way
            number = None
    if number is None or (least is not None and number < least) or (most is not None and number > most):
        bounds = f"{least}..{most}" if most is not None and least is not None else None
        bounds = bounds or (f"{least} or more" if least is not None else f"at most {most}" if most is not None else "")
        expected = f"a whole number, {bounds}" if bounds else "a whole number"
        raise error(f"{what} is not usable", got=shown(value), expected=expected, fix=fix)
    return number


def typed_number(text: str) -> int | None:
    """The whole number that was typed, 0 or more; None where it is anything else, or longer than any number here."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def items(value: Any, what: str, error: Error, *, expected: str, fix: str | None = None) -> list[Any]:
    """The members of a list, tuple, array or generator; not those of texts, mappings and sets, which have no order.

    Args:
        value: What was passed.
        what: The argument in words, in the plural.
        error: What is raised.
        expected: What would have been right.
        fix: What to do about it.
    """
    if not isinstance(value, str | bytes | Mapping | Set):
        try:
            members = iter(value)
        except TypeError:  # torch's and numpy's single numbers have an __iter__ that refuses
            pass
        else:
            return list(members)
    raise error(f"{what} are not usable", got=shown(value), expected=expected, fix=fix)


def positive(value: Any, what: str, error: Error) -> float:
    """A finite number above 0 as a float; text and True are none.

    Args:
        value: What was passed.
        what: The argument in words.
        error: What is raised.
    """
    try:
        number = float(value) if not isinstance(value, bool | str | bytes) else math.nan
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not 0 < number < math.inf:
        raise error(f"{what} is not usable", got=shown(value), expected="a number above 0")
    return number


def seed_of(value: Any, error: Error) -> int:
    """A seed; negative ones are refused, since Python's own generator takes -1 and 1 for the same."""
    return whole(value, "the seed", error, least=0, most=LARGEST_SEED)


def choice(value: Any, what: str, names: Iterable[str], error: Error, *, fix: str | None = None) -> str:
    """One of some names; the error says which is meant where one is close.

    Args:
        value: What was passed.
        what: What such names are of, such as "preset".
        names: Those that there are.
        error: What is raised.
        fix: What to do about it where no name is close.
    """
    known = list(names)
    if isinstance(value, str) and value in known:
        return value
    close = closest(value, known)
    raise error(
        f"unknown {what}",
        got=shown(value),
        expected=", ".join(known),
        fix=fix if close is None else f"did you mean {close!r}?",
    )


def closest(value: object, names: Iterable[str]) -> str | None:
    """The name that was probably meant; capitals and a few letters do not matter."""
    lower = {name.lower(): name for name in names}
    found = get_close_matches(value.strip().lower(), lower, 1) if isinstance(value, str) else []
    return lower[found[0]] if found else None


def path_of(value: Any, what: str, error: Error = RunError) -> Path:
    """A path with `~` for the home folder, as shells write it.

    Args:
        value: A text or a path.
        what: The argument in words, such as "the run's folder".
        error: What is raised.
    """
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise error(f"{what} is not usable", got=shown(value), expected="text that is not empty, or a Path")
    try:
        str(value).encode()
        return Path(value).expanduser()
    except UnicodeEncodeError:
        raise error(f"{what} is not usable", got=ascii(str(value)), expected="text in UTF-8") from None
    except RuntimeError as reason:
        raise error(f"{what} begins with a home folder that does not exist", got=shown(str(value))) from reason


def place_of(value: Any, what: str, error: Error) -> str | Path:
    """A name or a path as it was given, `~` expanded; what it stands for is found out elsewhere.

    Args:
        value: A name, a hub id or a path.
        what: The argument in words, such as "the model".
        error: What is raised.
    """
    path = path_of(value, what, error)
    return value if not str(value).startswith("~") else str(path)


def parse_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """JSON from a file that anybody may have written: whatever is wrong with it is a ValueError.

    Args:
        text: The text.
        pairs: Makes an object of its fields, as `object_pairs_hook` of `json.loads`.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("brackets in brackets without end") from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise ValueError("a number of more than 4,300 digits") from None
        raise


def with_fields_of(settings: type[Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Say of a function with `**settings` which they are: the fields of a dataclass, with their types and defaults.

    So that help, notebooks and `answers_for_calls` know them by name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        further = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(settings).parameters.values()
        ]
        function.__signature__ = signature.replace(parameters=[*named, *further])  # type: ignore[attr-defined]
        return function

    return decorate


def answers_for_calls(error: Error) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function, or a class, refuse arguments that it does not have in one sentence.

    Python's own TypeError of a call names the argument but not what there is; errors from inside are left alone.

    Args:
        error: What is raised.
    """

    def decorate(target: Callable[P, R]) -> Callable[P, R]:
        if not isinstance(target, type):
            return _answering(target, inspect.signature(target), target.__name__, error)
        signature = inspect.signature(target.__init__)  # type: ignore[misc]
        target.__init__ = _answering(target.__init__, signature, target.__name__, error)  # type: ignore[misc]
        return target

    return decorate


def _answering(function: Callable[P, R], signature: inspect.Signature, name: str, error: Error) -> Callable[P, R]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as misfit:
                stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
                names = [p.name for p in signature.parameters.values() if p.name != "self" and p.kind not in stars]
                close = next(filter(None, (closest(word, names) for word in kwargs if word not in names)), None)
                raise error(
                    f"{name} was called with other arguments than it has",
                    got=str(misfit).removeprefix("got "),
                    expected=f"{name}({', '.join(names)})",
                    fix=close and f"did you mean {close!r}?",
                ) from None
            raise

    return call
