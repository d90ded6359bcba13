"""`thoughtgraft demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thoughtgraft.cli import options


def demo(
    out: options.Out = Path("runs/demo"),
    hosts: Annotated[int, typer.Option(min=2, help="Problems; each is a host and may donate.")] = 100,
    donors: Annotated[int, typer.Option(min=1, help="Donors of each host.")] = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    tracker: options.Tracker = "none",
    engine: options.Engine = "local",
    workers: options.Workers = None,
    certify: options.Certify = "auto",
    dry_run: options.DryRun = False,
) -> None:
    """Run a real resampling study on the embedded model `tiny-codi` and write its report.

    100 unseen word problems, 10 donors each: at each of 6 slots the problem's continuous thought is replaced by
    the donor's, 6,000 times in all, beside controls and ablations. Needs no download.
    """
    from thoughtgraft.engine.executors import check_engine
    from thoughtgraft.interventions.donors import check_donors
    from thoughtgraft.records import check_folder
    from thoughtgraft.studies.resampling import resampling_plan
    from thoughtgraft.studies.sample import draw_sample

    check_folder(out)
    check_donors(donors, hosts)
    check_engine(engine, workers=workers)
    sample = draw_sample("arithmetic:test", first=0, n=hosts, seed=seed)

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.cli import pipeline
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.engine.executors import make_executor
    from thoughtgraft.tracking import open_tracking

    executor = make_executor(engine, workers=workers)
    tracking = open_tracking(tracker, out, study="resampling", group="demo")
    model = open_model("tiny-codi", device=device)
    job = pipeline.Job(model, sample, resampling_plan(model.num_latents, donors, seed, full=False), "demo")
    if dry_run:
        pipeline.dry_run(job, out)
        return
    with tracking:
        pipeline.resampling(job, out, certify=certify, executor=executor, watch=tracking.watch)
