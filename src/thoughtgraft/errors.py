"""Every error that a user can cause: what happened, what was got, what was expected, and the fix."""

from __future__ import annotations


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
        message = "; ".join(parts) + "."
        if fix is not None:
            message += f" Fix: {fix.rstrip('.')}" + ("" if fix.endswith("?") else ".")
        super().__init__(message)


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


def first_line(error: BaseException) -> str:
    """What another library's error says first; its kind where it says nothing.

    Of pydantic's errors that is the first field with what is wrong there, not the count of them.
    """
    if callable(fields := getattr(error, "errors", None)):
        first = fields()[0]
        return ": ".join(part for part in (".".join(map(str, first["loc"])), first["msg"]) if part)
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
