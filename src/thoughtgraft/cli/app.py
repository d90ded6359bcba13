"""The `thoughtgraft` command: verbs are registered here, nothing heavy is imported here."""

from __future__ import annotations

import typer

from thoughtgraft.cli import certify, compare, data, demo, doctor, drift, importing, models, runs, study, train, zoo
from thoughtgraft.cli.errors import ErrorGroup

app = typer.Typer(
    name="thoughtgraft",
    cls=ErrorGroup,
    help="""Causal experiments on the continuous thoughts of latent-reasoning language models.

    Start with `thoughtgraft demo`: a resampling study on an embedded model, in about a minute on a laptop.
    Every command has its own --help.""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(demo.demo)
app.command()(models.think)
app.add_typer(study.app, name="run")
app.command()(runs.status)
app.command()(runs.analyze)
app.command()(runs.report)
app.command()(runs.records)
app.command()(compare.compare)
app.command()(drift.drift)
app.command()(certify.verify)
app.command()(doctor.doctor)
app.command("import")(importing.import_file)
app.command()(models.evaluate)
app.command()(zoo.zoo)
app.command()(data.problems)
app.command()(train.train)
app.command()(train.export)


def main() -> None:
    """Run the command line."""
    app()
