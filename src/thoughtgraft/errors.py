"""Every error that a user can cause: what happened, what was got, what was expected, and the fix."""

from __future__ import annotations

from collections.abc import Mapping

_SHOWN = 80


class ThoughtgraftError(Exception):
    """A user's mistake or an unusable input, said in one message without a traceback.

    Args:
        what: What went wrong, naming the file, row or argument.
        got: What was found.
        expected: What would have been right.
        fix: What to do about it.
    """

    def __init__(self, what: str, *, got: object = None, expected: object = None, fix: str | None = None) -> None:
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        parts = [what.rstrip(".")]
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        sentences = ["; ".join(parts), *([] if fix is None else [f"Fix: {fix.rstrip('.')}"])]
        super().__init__(" ".join(text if text.endswith("?") else f"{text}." for text in sentences))


class ProblemError(ThoughtgraftError):
    """A problem file, a problem set or a problem's steps cannot be used."""


class CheckpointError(ThoughtgraftError):
    """A model's files are missing, damaged, or do not fit the architecture."""


class ModelError(ThoughtgraftError):
    """A loaded model cannot do what was asked (length, protocol, device)."""


class PlanError(ThoughtgraftError):
    """An experiment plan asks for something impossible (slot, donor count, arm)."""


class RunError(ThoughtgraftError):
    """A run folder cannot be read, written or continued."""


class AnalysisError(ThoughtgraftError):
    """Records do not hold what an estimate needs."""


class ForeignFileError(ThoughtgraftError):
    """A file of another codebase is hostile, damaged, or in a layout that is not known."""


class MissingExtraError(ThoughtgraftError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the optional package '{package}' is not installed",
            fix=f"pip install 'thoughtgraft[{extra}]'",
        )


_PLAINER = {
    "Input should be ": "",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    ", unable to parse string as an integer": "",
    ", unable to parse string as a number": "",
}


def plainer(reason: str) -> str:
    """What pydantic expected of a value, in the words of this project's errors."""
    for long, short in _PLAINER.items():
        reason = reason.replace(long, short)
    return reason


def first_line(error: BaseException) -> str:
    """What another library's error says first; its kind where it says nothing.

    Of pydantic's errors that is the first field with what is wrong there, not the count of them.
    """
    if callable(fields := getattr(error, "errors", None)):
        first = fields()[0]
        return ": ".join(part for part in (".".join(map(str, first["loc"])), first["msg"]) if part)
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def differences(name: str, old: object, new: object, words: tuple[str, str] = ("there", "now")) -> list[str]:
    """What differs between two values, a line for each place: `config.rope_theta: 10000.0 there, 500000.0 now`.

    Args:
        name: What the value is called; its parts are called after it. Empty for mappings whose keys are names enough.
        old: The value that is stored.
        new: The value of now.
        words: Where the first and the second are.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        dot = f"{name}." if name else ""
        keys = dict.fromkeys([*old, *new])
        return [line for key in keys for line in differences(f"{dot}{key}", old.get(key), new.get(key), words)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, pair in pairs for line in differences(f"{name}[{i}]", *pair, words)]
    return [] if old == new else [f"{name}: {_short(old)} {words[0]}, {_short(new)} {words[1]}"]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
