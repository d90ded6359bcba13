"""The command line: its commands, and how errors end them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from thoughtgraft.cli import models, problems, read, studies, train
from thoughtgraft.errors import ThoughtgraftError, plainer
from thoughtgraft.signals import listening

# What a repeated command continues; the others begin anew.
CONTINUED = ("demo", "run", "train")
_UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""The parser's own error, wherever the installed typer keeps it."""
MAY_BE_EMPTY = ("--prompt-suffix",)


class ErrorGroup(TyperGroup):
    """A group of commands that turns errors and signals into messages and exit codes, however it is called."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Parse the options before the command."""
        self._typed = list(args)  # the parser empties the list that it is given
        with _told(self._typed):
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with listening() as interruption, _told(self._typed):
            _refuse_unusable(self._typed)
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as error:
                typer.echo(f"\ninterrupted.{continuation(ctx.invoked_subcommand)}", err=True)
                raise typer.Exit(interruption.exit_code) from error


@contextmanager
def _told(typed: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except ThoughtgraftError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except _UsageError as error:
        if error.ctx and error.format_message() == error.ctx.get_help():  # shown where nothing was asked for
            raise
        typer.echo(f"error: {_usage(error, typed)}", err=True)
        raise typer.Exit(2) from error


def _usage(error: Any, typed: Sequence[str]) -> ThoughtgraftError:
    """What the parser refuses, said as everything else that is refused here."""
    message = error.format_message()
    path = error.ctx.command_path if error.ctx else "thoughtgraft"
    fix = f"`{path} --help` says what there is"
    if "unexpected extra argument" in message:
        fix = f"put a text of several words in quotes; {fix}"
    names = [name for name in getattr(getattr(error, "param", None), "opts", ()) if name.startswith("-")]
    _, _, reason = message.partition(": ")
    if not (names and reason):
        return ThoughtgraftError(message, fix=fix)
    return ThoughtgraftError(f"{names[0]} is not usable", got=_typed(names, typed), expected=plainer(reason), fix=fix)


def _typed(names: Sequence[str], words: Sequence[str]) -> str | None:
    """The value that was typed for an option, as far as it can be seen."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return repr(value) if equals else repr(words[i + 1]) if i + 1 < len(words) else None
    return None


def _refuse_unusable(words: Sequence[str]) -> None:
    """Refuse bytes that are no text, which no file takes, and options that an unset shell variable left empty."""
    for word in words:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise ThoughtgraftError("a word of the command cannot be read", got=ascii(word), expected="text in UTF-8")
    for name, value in [*(word.split("=", 1) for word in words if "=" in word), *pairwise(words)]:
        if name.startswith("-") and not value and name not in MAY_BE_EMPTY:
            fix = f"leave {name} out, or look whether a shell's variable is set"
            raise ThoughtgraftError(f"{name} is empty", got="''", fix=fix)


def continuation(verb: str | None) -> str:
    """How the interrupted command is continued, if it can be."""
    if verb not in CONTINUED:
        return ""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return f" What is finished is stored. To continue, run the same command again:\n  {command}"


app = typer.Typer(
    name="thoughtgraft",
    cls=ErrorGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes cut long option names off in a terminal of 80 columns
)
app.command(short_help="Run a resampling study on the embedded model.")(studies.demo)
app.command(short_help="What each thought of one problem decodes to, and the answer.")(models.think)
app.add_typer(studies.app, name="run", short_help="Run a study into a folder.")
app.command(short_help="How far a run is, from any process.")(read.status)
app.command(short_help="Estimate and test a run's effects anew.")(read.analyze)
app.command(short_help="Write a run's report and figures anew.")(read.report)
app.command(short_help="Export a run's records, one row per generation.")(read.records)
app.command(short_help="Two runs side by side.")(read.compare)
app.command("drift", short_help="The same swaps under several protocols, known mistakes among them.")(studies.drift)
app.command(short_help="Check that model, protocol and engine do what they say.")(models.verify)
app.command(short_help="What a checkpoint is, and whether it loads.")(models.doctor)
app.command("import", short_help="Convert a file of another codebase.")(problems.import_file)
app.command(short_help="A model's accuracy, with and without its thoughts.")(models.evaluate)
app.command("zoo", short_help="Models that think beside controls that do not.")(studies.zoo)
app.command(short_help="Describe, label and draw problems.")(problems.problems)
app.command(short_help="Teach a language model to think, or train a control.")(train.train)
app.command(short_help="An adapter as one file in CODI's official layout.")(train.export)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"thoughtgraft {version('thoughtgraft')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Causal experiments on the continuous thoughts of latent-reasoning language models.

    Start with `thoughtgraft demo`: a resampling study on an embedded model, in about a minute on a laptop.
    Every command has its own --help.
    """


def main() -> None:
    """Run the command line."""
    _wait_politely()
    app()


def _wait_politely() -> None:
    """Have OpenMP's threads give their processor up soon when they wait, unless the user has said how they should.

    libgomp's own choice is to spin for milliseconds. Where another program wants the processor, the thread that
    everybody waits for then does not get it: the demo took six times as long beside one busy process.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"
