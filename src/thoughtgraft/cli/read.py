"""Commands that read runs: status, analyze, report, records, compare."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoughtgraft.cli import options
from thoughtgraft.studies import checks

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from thoughtgraft.records.status import Status
    from thoughtgraft.studies.comparison import Comparison

FORMATS = ("csv", "parquet", "jsonl")
WATCH_S = 2.0


def status(
    run: Annotated[Path, typer.Argument(callback=checks.home, help="A run's folder; with --watch it may come yet.")],
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 2 seconds until the run ends.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Every arm, not single slots and all slots only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --watch, one line each time.")] = False,
) -> None:
    """How far a run is, arm by arm; works while it is running, from any process."""
    from thoughtgraft.records.status import read_status

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

    from thoughtgraft.cli.console import status_lines, status_table

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
    from thoughtgraft.records.spec import SPEC_FILE

    if not (run / SPEC_FILE).exists() and (run.is_dir() or not run.exists()):
        typer.echo(f"waiting for a run in {run}; Ctrl-C ends this", err=True)
        while not (run / SPEC_FILE).exists():
            time.sleep(WATCH_S)


def analyze(run: options.Run, seed: options.AnalysisSeed = None, rule: options.Rule = None) -> None:
    """Estimate and test a run's effects, and print the main table. Rewrites analysis/, figures/ and the report."""
    from thoughtgraft.cli.console import Terminal
    from thoughtgraft.errors import AnalysisError
    from thoughtgraft.studies.registry import load_run

    opened = load_run(run, seed=seed, rule=rule)
    if opened.study.where:
        fix = "run its command again; `thoughtgraft report` writes the pages anew from the table that is there"
        raise AnalysisError(opened.study.where, fix=fix)
    opened.study.conclude(opened, Terminal())


def report(
    run: options.Run,
    seed: options.AnalysisSeed = None,
    force: Annotated[
        bool, typer.Option("--force", help="Show effects although a check or gate failed; every page says so.")
    ] = False,
    rule: options.Rule = None,
) -> None:
    """Write report.md and report.html of a run, with figures, from what lies in its folder."""
    from thoughtgraft.studies.registry import load_run

    typer.echo(str(load_run(run, seed=seed, rule=rule).report(force=force).page.resolve()))


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
        str | None,
        typer.Option(
            help="Keep some rows: a condition on columns in the language of pandas' DataFrame.query, for example "
            '\'method == "swap" and slots == "[3]"\'. Lists and answers are text, as in the CSV; isna(), notna() and '
            "str.contains() may be called."
        ),
    ] = None,
) -> None:
    """Export a run's records, one row per generation."""
    from thoughtgraft.errors import RunError
    from thoughtgraft.records.export import export_records

    named = out.suffix[1:].lower() if out else ""
    chosen = format or {"": "csv", "txt": "csv"}.get(named, named)
    if named in FORMATS and named != chosen:
        raise RunError(f"{out} is named otherwise than --format {format}", fix="leave --format out, or rename the file")
    written = export_records(run, out or run / f"records.{chosen}", chosen, where)  # type: ignore[arg-type]
    typer.echo(str(written.files[0]))
    told = f"{written.rows:,} generations" if written.rows else "warning: the file holds no generation"
    typer.echo(told, err=True)


def compare(
    run_a: options.Run,
    run_b: Annotated[Path, typer.Argument(callback=checks.run, help="Another's.")],
    every: Annotated[bool, typer.Option("--all", help="Print every arm, not single slots and all slots only.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compare although a gate failed in one of them.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Effects of two runs side by side, and B - A: two models, protocols, sets of problems or seeds.

    Intervals are paired where the runs share problems.
    """
    from thoughtgraft.studies.comparison import compare_runs

    found = compare_runs(run_a, run_b, force=force)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
    else:
        _print_comparison(found, found.table if every else found.main)


def _print_comparison(found: Comparison, chosen: pd.DataFrame) -> None:
    """What two runs differ in, what has to be known of them, and the arms that were chosen."""
    from rich.console import Console
    from rich.markup import escape

    from thoughtgraft.records.schema import ArmKey
    from thoughtgraft.report.document import sentence_list

    console = Console()
    for path, failed in found.failed_gates.items():
        console.print(
            f"[bold red]INVALID[/bold red] {escape(path)}: {', '.join(failed)} failed; nothing here may be quoted"
        )
    for run in found.unfinished:
        console.print(
            f"[bold yellow]UNFINISHED[/bold yellow] {escape(str(run.path))}: {run.frame.n_rows:,} of "
            f"{run.spec.n_cells:,} generations"
        )
    console.print("the runs differ in:" if found.differences else "the runs do not differ in model, protocol or plan")
    for name, left, right in found.differences:
        console.print(f"  {name}: {left} | {right}", markup=False, highlight=False)
    console.print(shown(chosen))
    widest = found.table.slots.map(len).max()
    for note in dict.fromkeys(str(note) for note in chosen.note if note):
        same = chosen[chosen.note == note]
        arms = [arm.label(widest) for arm in ArmKey.of_table(same)]
        console.print(f"{sentence_list(arms)}: {note}", soft_wrap=True, markup=False, highlight=False)


def shown(table: pd.DataFrame) -> Table:
    """The comparison for a terminal."""
    from thoughtgraft.report.document import p_value
    from thoughtgraft.report.terminal import narrow_table

    sizes = [int(max(table[name].fillna(0), default=0)) for name in ("n_hosts_a", "n_hosts_b", "n_shared")]
    title = "accuracy, and impact of edits, pp\n95% intervals over hosts and donors\n"
    title += "hosts: {} in A, {} in B, {} shared".format(*sizes)
    out = narrow_table(title)
    for name in ("edit", "slot", "A", "B", "B - A", "95% interval", "p (Holm)"):
        out.add_column(name, justify="left" if name in ("edit", "slot") else "right")
    last = None
    for row in table.to_dict("records"):
        if last is not None and row["method"] != last:
            out.add_section()
        last = row["method"]
        tail = [x for x in (row["downstream"], row["donor_stratum"]) if x not in ("", "recompute", "random")]
        low, high = row["ci_low"], row["ci_high"]
        out.add_row(
            " ".join([row["method"], *tail]),
            row["label"],
            *(number(row[name], name != "a_pp" and name != "b_pp") for name in ("a_pp", "b_pp", "difference_pp")),
            f"[{low:+.1f}, {high:+.1f}]" if math.isfinite(low) else "",
            p_value(row["p_holm"]) if math.isfinite(row["p_holm"]) else "",
        )
    return out


def number(value: float, sign: bool) -> str:
    """One decimal; empty if undefined."""
    return (f"{value:+.1f}" if sign else f"{value:.1f}") if math.isfinite(value) else ""
