"""The `thoughtgraft` command: verbs are registered here, nothing heavy is imported here."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from thoughtgraft.cli import certify, compare, data, demo, doctor, drift, importing, models, runs, study, train, zoo
from thoughtgraft.cli.errors import ErrorGroup

app = typer.Typer(
    name="thoughtgraft",
    cls=ErrorGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes cut long option names off in a terminal of 80 columns
)
app.command(short_help="Run a resampling study on the embedded model.")(demo.demo)
app.command(short_help="What each thought of one problem decodes to, and the answer.")(models.think)
app.add_typer(study.app, name="run", short_help="Run a study: resampling, operations or erasure.")
app.command(short_help="How far a run is, from any process.")(runs.status)
app.command(short_help="Estimate and test a run's effects anew.")(runs.analyze)
app.command(short_help="Write a run's report and figures anew.")(runs.report)
app.command(short_help="Export a run's records, one row per generation.")(runs.records)
app.command(short_help="Two runs side by side.")(compare.compare)
app.command(short_help="The same swaps under several protocols, known mistakes among them.")(drift.drift)
app.command(short_help="Check that model, protocol and engine do what they say.")(certify.verify)
app.command(short_help="What a checkpoint is, and whether it loads.")(doctor.doctor)
app.command("import", short_help="Convert a file of another codebase.")(importing.import_file)
app.command(short_help="A model's accuracy, with and without its thoughts.")(models.evaluate)
app.command(short_help="Models that think beside controls that do not.")(zoo.zoo)
app.command(short_help="Describe, label and draw problems.")(data.problems)
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
