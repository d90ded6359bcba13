"""`thoughtgraft run operations`: draw problems by class, keep what the layers held, and ask what can be read there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thoughtgraft.cli import checks, options

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
        typer.Option(callback=checks.one_of("mode", "studies.operations:MODES", ANALYSIS_ONLY), help=MODE_HELP),
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
    draw: Annotated[
        str, typer.Option(callback=checks.one_of("draw", "problems.classes:DRAWS"), help=DRAW_HELP)
    ] = "auto",
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
        from thoughtgraft.analysis.probing.stratum import Settings
        from thoughtgraft.cli.feature_job import read_features

        settings = Settings(seed=seed, probes=_probes(probes), n_jobs=jobs)
        checks.existing_place(data or out)
        read_features(data or out, out, labels, targets, console, settings)
        return
    if data is not None or labels is not None:
        raise PlanError("--data and --labels are for existing features", fix="--mode analysis_only, or leave them out")
    from thoughtgraft.problems import load_problems
    from thoughtgraft.problems.classes import draw_classes
    from thoughtgraft.problems.operations import label_table
    from thoughtgraft.records import check_folder
    from thoughtgraft.studies.operations import MODES

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
    from thoughtgraft.analysis.operations import never_judged
    from thoughtgraft.analysis.probing.stratum import Settings
    from thoughtgraft.cli.feature_job import FeatureJob, read_features
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.models.reasoner import require_thoughts
    from thoughtgraft.readouts.vocabulary import warn_of_unseen
    from thoughtgraft.tracking import open_tracking

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
