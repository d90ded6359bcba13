"""Options as typer reads them, made from what studies are asked: each is explained and checked in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from thoughtgraft.studies import checks
from thoughtgraft.studies import options as asked


def parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field of a study's options as a parameter that typer reads: its type, default, limits, check and words."""
    kind, several = _kind(field.annotation)
    default = None if field.is_required() or field.default == () else field.default
    flag = name.replace("_", "-")
    made = _info(field, f"--{flag}/--no-{flag}" if kind is bool and field.default is True else f"--{flag}")
    typed_as: Any = list.__class_getitem__(kind) if several else kind
    hint: Any = Annotated[typed_as if default is not None else typed_as | None, made]
    default = list(default) if isinstance(default, tuple) else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def of(option: Any, *flags: str) -> Any:
    """An option of studies for a verb that is none.

    Args:
        option: Its type in `studies.options`.
        flags: How it is typed where the verb's own parameter is called otherwise.
    """
    return _info(FieldInfo.from_annotation(option), *flags)


def _info(field: FieldInfo, *flags: str) -> Any:
    """What typer is told of a field: its flags, its words, its limit and its check."""
    found: dict[str, Any] = {"help": field.description}
    for part in field.metadata:
        if isinstance(part, BeforeValidator):
            found["callback"] = _check(part.func)
        elif isinstance(part, Ge):
            found["min"] = part.ge
        elif isinstance(part, asked.Flags):
            if not part.names:
                return typer.Argument(**found)
            flags = part.names
    return typer.Option(*flags, **found)


def _kind(annotation: Any) -> tuple[Any, bool]:
    """What is typed for a field: text, a number, a path or yes; and whether it may be repeated."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    if get_origin(annotation) is tuple:
        return kinds[0], True
    return (str if len(kinds) > 1 or get_origin(kinds[0]) is Literal else kinds[0]), False


def _check(check: Callable[..., Any]) -> Callable[[Any], Any]:
    """A field's check as typer calls it: by place, whatever its parameter is called."""

    def callback(value: Any) -> Any:
        return check(value)

    return callback


# ---- shared with studies ------------------------------------------------------------------------------------------

Model = Annotated[str, of(asked.Model)]
Base = Annotated[str | None, of(asked.Base)]
Tokenizer = Annotated[str | None, of(asked.Tokenizer)]
Device = Annotated[str, of(asked.Device)]
Dtype = Annotated[str | None, of(asked.Dtype)]
Protocol = Annotated[str, of(asked.Protocol)]
NumThoughts = Annotated[int | None, of(asked.NumThoughts, "--num-latents")]
LoraAlpha = Annotated[float | None, of(asked.LoraAlpha)]
PromptSuffix = Annotated[str | None, of(asked.PromptSuffix)]
Problems = Annotated[str, of(asked.Problems)]
BatchSize = Annotated[str, of(asked.BatchSize)]
Seed = Annotated[int, of(asked.Seed)]
Certify = Annotated[str, of(asked.Certify)]
Tracker = Annotated[str, of(asked.Tracker)]
Engine = Annotated[str, of(asked.Engine)]
Workers = Annotated[int | None, of(asked.Workers)]
MaxNewTokens = Annotated[int | None, of(asked.MaxNewTokens)]

# ---- of verbs that are no studies ---------------------------------------------------------------------------------

NumLatents = Annotated[
    int | None, typer.Option(callback=checks.num_latents, help="How many thoughts to feed; default: as trained.")
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        callback=checks.writable_folder,
        help="The run's folder. Running the same command again continues it.",
    ),
]
Rule = Annotated[
    int | None,
    typer.Option(help="Judge the records by this rule instead of the run's own: 2, for a run that was begun under 1."),
]
Run = Annotated[Path, typer.Argument(callback=checks.run, help="A run's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many generations, how long and what they could find, and stop.")
]
AnalysisSeed = Annotated[
    int | None, typer.Option(callback=checks.seed, help="Seeds every resampling; default: as the study was, mostly 0.")
]
