"""`thoughtgraft compare`: two runs side by side, read without torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoughtgraft.cli import checks, options

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from thoughtgraft.runs import Run


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
    from thoughtgraft.analysis import compare_runs
    from thoughtgraft.analysis.compare import spec_differences
    from thoughtgraft.cli.runs import OPERATIONS
    from thoughtgraft.errors import AnalysisError
    from thoughtgraft.report.formats import sentence_list
    from thoughtgraft.runs import load_run

    a, b = load_run(run_a), load_run(run_b)
    for run in (a, b):
        if run.spec.study == OPERATIONS:
            raise AnalysisError(
                f"{run.path} is an operations run: it has features, and no effects to compare",
                expected="runs of generations, as `run resampling` makes them",
            )
    broken = {str(run.path): failed for run in (a, b) if (failed := failed_gates(run))}
    if broken and not force:
        refuse(broken)
    table = compare_runs(a.frame, b.frame, same_problems=a.spec.problems == b.spec.problems)
    differences = spec_differences(a.spec, b.spec)
    if as_json:
        rows = [{k: plain(v) for k, v in row.items()} for row in table.to_dict("records")]
        fields = [{"field": name, "a": left, "b": right} for name, left, right in differences]
        found = {"a": str(a.path), "b": str(b.path), "differences": fields, "failed_gates": broken, "rows": rows}
        typer.echo(json.dumps(found, indent=1))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    for path, failed in broken.items():
        console.print(
            f"[bold red]INVALID[/bold red] {escape(str(path))}: {', '.join(failed)} failed; nothing here may be quoted"
        )
    for run in (a, b):
        if run.frame.n_rows < run.spec.n_cells:
            console.print(
                f"[bold yellow]UNFINISHED[/bold yellow] {escape(str(run.path))}: {run.frame.n_rows:,} of "
                f"{run.spec.n_cells:,} generations"
            )
    console.print("the runs differ in:" if differences else "the runs do not differ in model, protocol or plan")
    for name, left, right in differences:
        console.print(f"  {name}: {left} | {right}", markup=False, highlight=False)
    chosen = table if every else main_arms(table)
    console.print(shown(chosen))
    for note in dict.fromkeys(str(note) for note in chosen.note if note):
        same = chosen[chosen.note == note]
        arms = [m if slots == "none" else f"{m} {slots}" for m, slots in zip(same.method, same.slots, strict=True)]
        console.print(f"{sentence_list(arms)}: {note}", soft_wrap=True, markup=False, highlight=False)


def failed_gates(run: Run) -> list[str]:
    """Names of the gates that a run fails."""
    gates = run.gates()
    return [str(name) for name in gates.name[gates.outcome == "fail"]]


def refuse(broken: dict[str, list[str]]) -> None:
    """Raise an error: a run that fails a gate states no effect, so there is nothing to compare."""
    from thoughtgraft.errors import AnalysisError

    failed = "; ".join(f"{path}: {', '.join(names)}" for path, names in broken.items())
    fix = "repair the cause and run again, or look at the figures all the same with --force"
    raise AnalysisError("a run failed its gates, so it states no effect", got=failed, expected="valid runs", fix=fix)


def main_arms(table: pd.DataFrame) -> pd.DataFrame:
    """Baseline, and the main effects: single slots and all, what follows recomputed, random donors."""
    slots = table.slots.astype(str)
    main = (slots == "all") | slots.str.fullmatch(r"CT\d+")
    plain_arm = (table.downstream == "recompute") & table.donor_stratum.isin(["", "random"])
    return table[(table.method == "baseline") | (main & plain_arm & ~table.method.isin(["self", "noop"]))]


def shown(table: pd.DataFrame) -> Table:
    """The comparison for a terminal."""
    from thoughtgraft.cli.tables import narrow_table
    from thoughtgraft.report.formats import p_value

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
            "-" if row["slots"] == "none" else row["slots"],
            *(number(row[name], name != "a_pp" and name != "b_pp") for name in ("a_pp", "b_pp", "difference_pp")),
            f"[{low:+.1f}, {high:+.1f}]" if math.isfinite(low) else "",
            p_value(row["p_holm"]) if math.isfinite(row["p_holm"]) else "",
        )
    return out


def number(value: float, sign: bool) -> str:
    """One decimal; empty if undefined."""
    return (f"{value:+.1f}" if sign else f"{value:.1f}") if math.isfinite(value) else ""


def plain(value: Any) -> Any:
    """A value that JSON knows: null for what is undefined."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
