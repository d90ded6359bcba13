"""`thoughtgraft run erasure`: from reading to causing, over the features of an operations run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoughtgraft.cli import checks, options

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


def erasure(
    run: Annotated[
        Path,
        typer.Argument(callback=checks.run, help="The folder of a `run operations`: its features, problems and model."),
    ],
    out: options.Out,
    target: Annotated[
        str, typer.Option(help="Label column of that run to erase, a class for each problem.")
    ] = "operation",
    layers: Annotated[
        str | None,
        typer.Option(
            callback=checks.LAYERS,
            help="all, early,middle,late or numbers, of the run's layers; default: all it holds.",
        ),
    ] = None,
    slots: Annotated[
        str | None, typer.Option(callback=checks.SLOTS, help="each, or numbers such as 0,2; also edited together.")
    ] = None,
    draws: Annotated[int, typer.Option(min=19, help="Random erasures; fewer than 19 can never reach 5%.")] = 20,
    hosts: Annotated[int | None, typer.Option(min=2, help="Only so many of the held-out problems are edited.")] = None,
    seed: options.Seed = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", callback=checks.model, help="The run's model, where it does not lie at the recorded place."
        ),
    ] = None,
    base: options.Base = None,
    tokenizer: options.Tokenizer = None,
    lora_alpha: options.LoraAlpha = None,
    prompt_suffix: options.PromptSuffix = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = "auto",
    max_new_tokens: options.MaxNewTokens = None,
    beside: options.Beside = None,
    certify: options.Certify = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which edits on which problems, and stop.")] = False,
) -> None:
    """Erase what a label can be read by (LEACE) from the residual stream: do answers change more than by chance?

    Fitted on half of the problems, done on the other half, beside random directions of the same rank and size.

    Example: thoughtgraft run erasure runs/operations --out runs/erasure
    """
    from rich.console import Console
    from rich.markup import escape

    from thoughtgraft.errors import PlanError
    from thoughtgraft.records import RunStore, check_folder
    from thoughtgraft.runs import load_run
    from thoughtgraft.studies.erasure import slot_sets

    check_folder(out)
    console = Console()
    before = load_run(run)
    spec, known = before.spec, before.features().labels
    if target not in known:
        raise PlanError(f"{run} has no label {target!r}", expected=", ".join(map(str, known.columns)))
    slot_sets(slots, spec.num_latents)
    if edit := (spec.model_identity or {}).get("edit"):
        got, fix = f"a loaded model, edited: {edit['name']}", "run operations on a model as it was loaded"
        raise PlanError(f"no file holds the model of {run}", got=got, fix=fix)

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.cli.certify import certified, start_facts
    from thoughtgraft.cli.erasure_job import prepare
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.engine.run import run as run_plan
    from thoughtgraft.report.erasure import TABLE_FILE, sentences, write_erasure_report

    made = spec.model_identity or {}  # as the features' own model was loaded
    reasoner = open_model(
        model or spec.model,
        base=base,
        tokenizer=tokenizer,
        protocol=spec.protocol,
        device=device,
        dtype=spec.dtype,
        num_latents=spec.num_latents,
        lora_alpha=_number(made.get("lora_alpha")) if lora_alpha is None else lora_alpha,
        prompt_suffix=(made.get("prompt") or {}).get("suffix") if prompt_suffix is None else prompt_suffix,
    )
    job = prepare(before, reasoner, target, layers=layers, slots=slots, draws=draws, hosts=hosts, seed=seed)
    for line in job.lines():
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if dry_run:
        return
    certificate = certified(reasoner, job.problems, out, certify, console, job.design.plan)
    records = run_plan(
        reasoner,
        job.problems,
        job.design.plan,
        out,
        study="erasure",
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        design=job.facts(),
        facts=start_facts(certify),
        certificate=certificate,
        beside=beside or (),
    )
    table = job.table(records)
    RunStore.open(out).write_table(TABLE_FILE, table)
    paths = write_erasure_report(out)
    console.print(shown(table, target))
    for line in sentences(table, target):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(f"\nThe report: [bold]{escape(str(paths.html.resolve()))}[/bold]", soft_wrap=True)


def _number(alpha: str | None) -> float | None:
    """An alpha that holds for every module, as a run keeps it; others are in the file that says them."""
    try:
        return None if alpha is None else float(alpha)
    except ValueError:
        return None


def shown(table: pd.DataFrame, target: str) -> Table:
    """The main columns for a terminal; the page has them all."""
    from thoughtgraft.cli.tables import narrow_table
    from thoughtgraft.report.erasure import short_rows

    out = narrow_table(f"Accuracy lost when {target} is erased, pp; 95% intervals")
    header, *rows = short_rows(table)
    for i, name in enumerate(header):
        out.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        out.add_row(*row)
    return out
