"""`thoughtgraft status`, `analyze`, `report` and `records`: runs on disk, read without torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoughtgraft.cli import checks, options

if TYPE_CHECKING:
    from thoughtgraft.records import Status
    from thoughtgraft.report import ReportPaths

FORMATS = ("csv", "parquet", "jsonl")
OPERATIONS, ERASURE = "operations", "erasure"
WATCH_S = 2.0


def status(
    run: Annotated[Path, typer.Argument(callback=checks.home, help="A run's folder; with --watch it may come yet.")],
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 2 seconds until the run ends.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Every arm, not single slots and all slots only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --watch, one line each time.")] = False,
) -> None:
    """How far a run is, arm by arm; works while it is running, from any process."""
    from thoughtgraft.records import read_status

    if watch:
        _wait_for(run)
    now = read_status(run)
    if as_json:
        typer.echo(now.to_json(indent=None if watch else 1))
        while watch and now.state == "alive":
            time.sleep(WATCH_S)
            now = read_status(run)
            typer.echo(now.to_json(indent=None))
        return
    from rich.console import Console, Group
    from rich.text import Text

    from thoughtgraft.cli.tables import status_lines, status_table

    def view(now: Status) -> Group:
        # The lines first: a live view is cut off at the bottom.
        return Group(*map(Text, status_lines(now)), *([status_table(now, every=every)] if now.arms else []))

    if not watch:
        Console().print(view(now))
        return
    from rich.live import Live

    with Live(view(now), auto_refresh=False) as live:
        while now.state == "alive":
            time.sleep(WATCH_S)
            now = read_status(run)
            live.update(view(now), refresh=True)


def _wait_for(run: Path) -> None:
    """Until there is a run in this folder, which a file in its place could never be."""
    from thoughtgraft.records.layout import SPEC_FILE

    if not (run / SPEC_FILE).exists() and (run.is_dir() or not run.exists()):
        typer.echo(f"waiting for a run in {run}; Ctrl-C ends this", err=True)
        while not (run / SPEC_FILE).exists():
            time.sleep(WATCH_S)


def analyze(run: options.Run, seed: options.AnalysisSeed = 0, rule: options.Rule = None) -> None:
    """Estimate and test a run's effects, and print the main table. Rewrites analysis/, figures/ and the report."""
    from rich.console import Console

    from thoughtgraft.cli.tables import run_summary

    study = _study(run, rule)
    if study == OPERATIONS:
        from thoughtgraft.analysis.probing.stratum import Settings
        from thoughtgraft.cli.feature_job import read_features
        from thoughtgraft.report.operations.data import analysed_targets

        read_features(run, run, None, analysed_targets(run), Console(), Settings(seed=seed))
        return
    if study == ERASURE:
        from thoughtgraft.errors import AnalysisError

        raise AnalysisError(
            "an erasure study is analysed with its model, which has to fit the probes",
            fix="run its command again; `thoughtgraft report` writes the pages anew from the table that is there",
        )
    rewrite(run, seed, rule=rule)
    Console().print(run_summary(run))


def report(
    run: options.Run,
    seed: options.AnalysisSeed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Show effects although a check or gate failed; every page says so.")
    ] = False,
    rule: options.Rule = None,
) -> None:
    """Write report.md and report.html of a run, with figures."""
    typer.echo(str(rewrite(run, seed, force=force, rule=rule).html.resolve()))


def rewrite(run: Path, seed: int, *, force: bool = False, rule: int | None = None) -> ReportPaths:
    """Write a run's analysis, figures and report anew, from what lies in its folder.

    An operations study takes minutes to analyse: its report is written from the analysis that is there.
    """
    study = _study(run, rule)
    if study == OPERATIONS:
        from thoughtgraft.report.operations.write import write_operations_report

        return write_operations_report(run, force=force)
    if study == ERASURE:
        from thoughtgraft.report.erasure import write_erasure_report

        return write_erasure_report(run, force=force)
    from thoughtgraft.records.layout import PROBLEMS_FILE
    from thoughtgraft.report import write_report
    from thoughtgraft.runs import load_run

    opened = load_run(run)
    known = opened.problem_set() if (opened.path / PROBLEMS_FILE).is_file() else None
    return write_report(run, seed=seed, force=force, problems=known, largest=opened.largest_number, rule=rule)


def _study(run: Path, rule: int | None) -> str:
    """What study a run is of; an error where a rule is asked for and the study has none."""
    from thoughtgraft.errors import AnalysisError
    from thoughtgraft.records.spec import read_spec

    study = read_spec(Path(run)).study
    if rule is not None and study in (OPERATIONS, ERASURE):
        fix = "leave --rule out"
        raise AnalysisError(f"{run} is an {study} run, which no rule of questions judges", got=f"rule {rule}", fix=fix)
    return study


def records(
    run: options.Run,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", callback=checks.home, help="The file to write; default: RUN/records.FORMAT."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            callback=checks.one_of("export format", FORMATS),
            help="csv, parquet or jsonl; default: as the file's name ends, else csv.",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Keep some rows, for example: 'method == \"swap\" and slots == [3]'.")
    ] = None,
) -> None:
    """Export a run's records, one row per generation."""
    from thoughtgraft.errors import RunError
    from thoughtgraft.records import RunStore, export_records

    named = out.suffix[1:].lower() if out else ""
    chosen = format or {"": "csv", "txt": "csv"}.get(named, named)
    if named in FORMATS and named != chosen:
        raise RunError(f"{out} is named otherwise than --format {format}", fix="leave --format out, or rename the file")
    path = out or run / f"records.{chosen}"
    store = RunStore.open(run)
    if store.spec.study == OPERATIONS:
        raise RunError(
            f"{run} is an operations run: it keeps what layers held, not generations",
            fix="thoughtgraft.load_run(RUN).features() in Python; its tables lie in analysis/ as parquet",
        )
    n_rows = store.table(["cell"], where).num_rows
    export_records(run, path, chosen, where)  # type: ignore[arg-type]
    typer.echo(str(path))
    typer.echo(f"{n_rows:,} generations" if n_rows else "warning: the file holds no generation", err=True)
