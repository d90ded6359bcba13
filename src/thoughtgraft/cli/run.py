"""Two studies as commands: `run operations` and `run erasure`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoughtgraft.cli import options
from thoughtgraft.cli.studies import app
from thoughtgraft.studies import checks

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

ANALYSIS_ONLY = "analysis_only"
MODE_HELP = "prototype (20 problems of each class), full (200), or analysis_only (of --data; needs no model)."
DRAW_HELP = (
    "test or train (that split's problems), all, cot-exploration (the origin's own draw), or auto: test where "
    "the problems mix splits."
)


def operations(
    out: options.Out,
    mode: Annotated[
        str,
        typer.Option(callback=checks.one_of("mode", "studies.operations.design:MODES", ANALYSIS_ONLY), help=MODE_HELP),
    ] = "prototype",
    data: Annotated[
        Path | None,
        typer.Option(
            callback=checks.existing_place,
            help="analysis_only: a run's folder, or a .npz or .safetensors file; default: the --out folder.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            callback=checks.existing_file,
            help="analysis_only: labels of --data, a .csv, .parquet or .json with a column id.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Label column to read; repeat for more. The first is the primary one.")
    ] = None,
    probes: Annotated[
        str,
        typer.Option(
            callback=checks.each_of("probe", checks.PROBES),
            help="Probes, comma-separated: linear (makes the map), logistic, forest, mlp.",
        ),
    ] = "linear,logistic,forest,mlp",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells analysed at once; default: as many as there are processors.")
    ] = None,
    model: options.Model = "tiny-codi",
    problems: options.Problems = "arithmetic:test",
    layers: Annotated[
        str,
        typer.Option(
            callback=checks.LAYERS,
            help="early,middle,late (4, 8, 14 of 16 layers, scaled), all, or numbers such as 4,8,14.",
        ),
    ] = "early,middle,late",
    draw: Annotated[str, typer.Option(callback=checks.one_of("draw", "tasks.labels:DRAWS"), help=DRAW_HELP)] = "auto",
    rule: Annotated[
        str | None,
        typer.Option(
            callback=checks.RULE, help="Labels by annotations or cot-exploration; default: what suits the draw."
        ),
    ] = None,
    per_class: Annotated[int | None, typer.Option(min=2, help="Problems of each class, instead of the mode's.")] = None,
    seed: options.Seed = 0,
    untrained: Annotated[bool, typer.Option(help="Also extract an untrained model's features, as a control.")] = True,
    feature_dtype: Annotated[
        str | None,
        typer.Option(
            callback=checks.one_of("type to keep features in", checks.FEATURE_DTYPES),
            help="Keep features as bfloat16, float16 or float32; default: as the model computes.",
        ),
    ] = None,
    base: options.Base = None,
    tokenizer: options.Tokenizer = None,
    protocol: options.Protocol = "official",
    num_latents: options.NumThoughts = None,
    lora_alpha: options.LoraAlpha = None,
    prompt_suffix: options.PromptSuffix = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = "auto",
    max_new_tokens: options.MaxNewTokens = None,
    beside: options.Beside = None,
    certify: options.Certify = "auto",
    tracker: options.Tracker = "none",
    analyze: Annotated[
        bool, typer.Option(help="Analyse and report at once; else later, or elsewhere, with --mode analysis_only.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which problems and features, and stop.")] = False,
) -> None:
    """Ask whether a problem's arithmetic can be read from its thoughts, at each layer and slot, beside every control.

    Example: thoughtgraft run operations --mode full --model zen-E/CODI-gpt2 --problems gsm8k:all --out runs/operations
    """
    from rich.console import Console

    from thoughtgraft.errors import PlanError

    console, targets = Console(), target or ["operation"]
    if mode == ANALYSIS_ONLY:
        from thoughtgraft.probing.stratum import Settings
        from thoughtgraft.studies.operations.design import read_features

        settings = Settings(seed=seed, probes=_probes(probes), n_jobs=jobs)
        checks.existing_place(data or out)
        read_features(data or out, out, labels, targets, console, settings)
        return
    if data is not None or labels is not None:
        raise PlanError("--data and --labels are for existing features", fix="--mode analysis_only, or leave them out")
    from thoughtgraft.records.store import check_folder
    from thoughtgraft.studies.operations.design import MODES
    from thoughtgraft.tasks.labels import draw_classes, label_table
    from thoughtgraft.tasks.load import load_problems

    check_folder(out)
    sample = draw_classes(
        load_problems(problems),
        per_class or MODES[mode],
        seed=seed,
        draw=draw,
        rule=rule,  # type: ignore[arg-type]
    )
    known = [str(name) for name in label_table(sample.problems)]
    if unknown := [name for name in targets if name not in known]:
        expected = ", ".join(name for name in known if name not in ("id", "split"))
        raise PlanError("no such label to read", got=", ".join(unknown), expected=expected, fix="--target operation")

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.models.reasoner import require_thoughts
    from thoughtgraft.probing.stratum import Settings
    from thoughtgraft.readouts.lens import warn_of_unseen
    from thoughtgraft.studies.operations.analysis import never_judged
    from thoughtgraft.studies.operations.design import FeatureJob, read_features
    from thoughtgraft.tracking.tracking import open_tracking

    settings = Settings(seed=seed, probes=_probes(probes), n_jobs=jobs)
    reasoner = open_model(
        model,
        base=base,
        tokenizer=tokenizer,
        protocol=protocol,
        device=device,
        dtype=dtype,
        num_latents=num_latents,
        lora_alpha=lora_alpha,
        prompt_suffix=prompt_suffix,
    )
    require_thoughts(reasoner)
    if warning := warn_of_unseen(reasoner, sample.problems):
        typer.echo(f"warning: {warning}", err=True)
    job = FeatureJob(reasoner, sample, layers, mode, seed, feature_dtype, untrained, batch_size, max_new_tokens)
    never = {name: never_judged(job.table, name, settings) for name in targets}
    lines = [f"{name}: no claim can come of this design, whatever is read: {why}" for name, why in never.items() if why]
    for line in (*job.lines(), *lines):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if dry_run:
        return
    with open_tracking(tracker, out, study="operations", group=mode):
        job.run(out, certify, console, beside or ())
        if analyze:
            read_features(out, out, None, targets, console, settings)


def _probes(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(","))


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
    from thoughtgraft.records.store import RunStore, check_folder
    from thoughtgraft.studies.erasure.design import slot_sets
    from thoughtgraft.studies.registry import load_run

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
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.engine.run import run as run_plan
    from thoughtgraft.studies.erasure.design import prepare
    from thoughtgraft.studies.erasure.report import TABLE_FILE, sentences, write_erasure_report

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
    from thoughtgraft.report.terminal import narrow_table
    from thoughtgraft.studies.erasure.report import short_rows

    out = narrow_table(f"Accuracy lost when {target} is erased, pp; 95% intervals")
    header, *rows = short_rows(table)
    for i, name in enumerate(header):
        out.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        out.add_row(*row)
    return out


app.command(short_help="What of a problem's arithmetic can be read from its thoughts.")(operations)
app.command(short_help="Erase what can be read: does the answer depend on it?")(erasure)
