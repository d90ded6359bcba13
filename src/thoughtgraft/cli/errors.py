"""Where errors end: a user's mistake exits 2 with one message, SIGINT exits 130 and SIGTERM 143."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from thoughtgraft.cli.signals import listening
from thoughtgraft.errors import ThoughtgraftError

# What a repeated command continues; the others begin anew.
CONTINUED = ("demo", "run", "train")


class ErrorGroup(TyperGroup):
    """A group of commands that turns errors and signals into messages and exit codes, however it is called."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with listening() as interruption:
            try:
                return super().invoke(ctx)
            except ThoughtgraftError as error:
                typer.echo(f"error: {error}", err=True)
                raise typer.Exit(2) from error
            except KeyboardInterrupt as error:
                typer.echo(f"\ninterrupted.{continuation(ctx.invoked_subcommand)}", err=True)
                raise typer.Exit(interruption.exit_code) from error


def continuation(verb: str | None) -> str:
    """How the interrupted command is continued, if it can be."""
    if verb not in CONTINUED:
        return ""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return f" What is finished is stored. To continue, run the same command again:\n  {command}"
