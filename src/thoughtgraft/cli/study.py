"""`thoughtgraft run ...`: one subcommand per study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thoughtgraft.cli import options

app = typer.Typer(help="Run a study into a folder; the same command continues it.", no_args_is_help=True)


@app.callback()
def studies() -> None:
    """Run a study into a folder; the same command continues it."""


@app.command()
def resampling(
    out: options.Out,
    model: options.Model = "tiny-codi",
    problems: options.Problems = "arithmetic:test",
    preset: Annotated[str, typer.Option(help="pilot (20 problems x 5 donors) or full (the next 100 x 10).")] = "pilot",
    hosts: Annotated[int | None, typer.Option(min=2, help="Problems, instead of the preset's number.")] = None,
    donors: Annotated[int | None, typer.Option(min=1, help="Donors of each host, instead of the preset's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems are hosts.")] = None,
    seed: options.Seed = 0,
    base: options.Base = None,
    tokenizer: options.Tokenizer = None,
    protocol: options.Protocol = "official",
    num_latents: options.NumLatents = 6,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = "auto",
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer; default 256.")] = None,
    certify: Annotated[bool, typer.Option(help="Check model, protocol and engine first.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
) -> None:
    """Swap each continuous thought for other problems', beside every ablation: which thoughts matter, and how.

    Example: thoughtgraft run resampling --model zen-E/CODI-gpt2 --problems gsm8k:test --out runs/gpt2-pilot
    """
    from dataclasses import replace

    from thoughtgraft.cli.pipeline import plan_summary
    from thoughtgraft.cli.pipeline import resampling as run_study
    from thoughtgraft.errors import PlanError
    from thoughtgraft.models.load import load_model
    from thoughtgraft.problems import load_problems
    from thoughtgraft.studies.resampling import PRESETS, resampling_plan

    if preset not in PRESETS:
        raise PlanError("unknown preset", got=repr(preset), expected=", ".join(PRESETS))
    size = PRESETS[preset]
    n_hosts, n_donors = hosts or size.n_hosts, donors or size.n_donors
    chosen = load_problems(problems, n=size.first + n_hosts, seed=seed)[size.first :]
    reasoner = load_model(
        model,
        base=base,
        tokenizer=tokenizer,
        protocol=protocol,
        device=device,
        dtype=dtype,
        num_latents=num_latents,
    )
    plan = replace(resampling_plan(num_latents, n_donors, seed, full=size.full), hosts=limit)
    if dry_run:
        typer.echo(plan_summary(reasoner, chosen, plan))
        return
    run_study(reasoner, chosen, plan, Path(out), batch_size=batch_size, certify=certify, max_new_tokens=max_new_tokens)
