"""`thoughtgraft import`: files of other codebases in this project's conventions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thoughtgraft.cli import checks


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            callback=checks.existing_file, help="A cache (.pkl), results or thoughts (.json) of CoT_Exploration."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            callback=checks.writable_folder,
            help="Folder to write; default: imported/ and the file's name.",
        ),
    ] = None,
) -> None:
    """Convert a file of another codebase and say how its numbering relates to slots here.

    Pickles are read with an allow-list: nothing in them is executed. Writes problems.parquet (labels) and
    features.safetensors (for the probes), or generations.parquet, beside import.json.
    """
    from thoughtgraft.importing import read_foreign

    found = read_foreign(file)
    written = found.write(Path("imported") / file.stem if out is None else out, file)
    typer.echo(f"{found.kind}: {found.summary}")
    for note in found.notes:
        typer.echo(f"- {note}")
    typer.echo("written: " + ", ".join(map(str, written)))
