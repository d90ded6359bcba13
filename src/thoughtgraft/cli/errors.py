"""Where errors end: a user's mistake exits 2 with one message, an interruption exits 130."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from thoughtgraft.errors import ThoughtgraftError


class ErrorGroup(TyperGroup):
    """A group of commands that turns errors meant for users into messages, however it is called."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except ThoughtgraftError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo("\ninterrupted; what is finished is stored. Run the same command again to continue.", err=True)
            raise typer.Exit(130) from error
