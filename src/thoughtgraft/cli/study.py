"""`thoughtgraft run ...`: one subcommand per study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thoughtgraft.cli import checks, erasure, operations, options

app = typer.Typer(help="Run a study into a folder; the same command continues it.", no_args_is_help=True)


@app.callback()
def studies() -> None:
    """Run a study into a folder; the same command continues it."""


@app.command(short_help="Swap each thought for other problems', beside every ablation.")
def resampling(
    out: options.Out,
    model: options.Model = "tiny-codi",
    problems: options.Problems = "arithmetic:test",
    preset: Annotated[
        str,
        typer.Option(
            callback=checks.one_of("preset", "studies.resampling:PRESETS"),
            help="pilot (20 problems x 5 donors), full (the next 100 x 10), or demo.",
        ),
    ] = "pilot",
    hosts: options.Hosts = None,
    donors: Annotated[int | None, typer.Option(min=1, help="Donors of each host, instead of the preset's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many of them are hosts.")] = None,
    only_correct: Annotated[
        bool, typer.Option("--only-correct", help="Only problems that the unedited model answers right are hosts.")
    ] = False,
    pilot: Annotated[
        Path | None,
        typer.Option(
            callback=checks.run,
            help="A pilot's folder: its problems are left out, and with --hosts auto it sizes the run.",
        ),
    ] = None,
    margin: options.Margin = None,
    alpha: options.Alpha = None,
    seed: options.Seed = 0,
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
    engine: options.Engine = "local",
    ray_address: options.RayAddress = None,
    workers: options.Workers = None,
    cpus_per_worker: options.CpusPerWorker = None,
    gpus_per_worker: options.GpusPerWorker = None,
    dry_run: options.DryRun = False,
) -> None:
    """Swap each continuous thought for other problems', beside every ablation: which thoughts matter, and how.

    Example: thoughtgraft run resampling --model zen-E/CODI-gpt2 --problems gsm8k:test --out runs/gpt2-pilot
    """
    from dataclasses import replace

    from thoughtgraft.analysis.rule import Rule
    from thoughtgraft.engine.executors import check_engine
    from thoughtgraft.errors import PlanError
    from thoughtgraft.interventions.donors import check_donors
    from thoughtgraft.records import check_folder
    from thoughtgraft.studies.resampling import PRESETS, resampling_plan
    from thoughtgraft.studies.sample import draw_sample

    check_folder(out)
    check_engine(engine, ray_address, workers, cpus_per_worker, gpus_per_worker)
    rule = Rule.of(margin, alpha)
    size = PRESETS[preset]
    n_donors = donors or size.n_donors
    if hosts != "auto":
        check_donors(n_donors, int(hosts or size.n_hosts))
    elif pilot is None:
        raise PlanError("--hosts auto takes what a pilot asks for", fix="add --pilot RUN, or give --hosts a number")
    before = None
    if pilot is not None:
        from thoughtgraft.studies.sizing import Pilot

        before = Pilot.open(pilot, problems, rule)
    n_hosts = before.hosts(n_donors) if before is not None and hosts == "auto" else int(hosts or size.n_hosts)
    used = before.used if before else ()
    sample = draw_sample(problems, first=size.first, n=n_hosts, seed=seed, used=used, at_most=hosts == "auto")
    check_donors(n_donors, len(sample.problems))

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.cli import pipeline
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.engine.executors import make_executor
    from thoughtgraft.models.reasoner import require_thoughts
    from thoughtgraft.readouts.vocabulary import warn_of_unseen
    from thoughtgraft.tracking import open_tracking

    executor = make_executor(
        engine, address=ray_address, workers=workers, cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker
    )
    tracking = open_tracking(tracker, out, study="resampling", group=preset)
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
    if before is not None:
        before.check_model(reasoner.identity)
    require_thoughts(reasoner)
    if warning := warn_of_unseen(reasoner, sample.problems):
        typer.echo(f"warning: {warning}", err=True)
    plan = resampling_plan(reasoner.num_latents, n_donors, seed, full=size.full, hosts=limit)
    plan = replace(plan, only_correct=only_correct)
    job = pipeline.Job(reasoner, sample, plan, preset, before, batch_size, max_new_tokens, tuple(beside or ()), rule)
    if dry_run:
        pipeline.dry_run(job, out)
        return
    with tracking:
        pipeline.resampling(job, out, certify=certify, executor=executor, watch=tracking.watch)


app.command(short_help="What of a problem's arithmetic can be read from its thoughts.")(operations.operations)
app.command(short_help="Erase what can be read: does the answer depend on it?")(erasure.erasure)
