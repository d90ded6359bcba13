"""`thoughtgraft problems`: look at a problem set."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from thoughtgraft.cli import options


def problems(
    spec: Annotated[
        str, typer.Argument(help="arithmetic[:split], gsm8k:test|train|all, or a local file.")
    ] = "arithmetic:test",
    n: Annotated[int | None, typer.Option("-n", min=1, help="Only so many.")] = None,
    seed: Annotated[int | None, typer.Option(help="Permute first.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Print so many questions.")] = 3,
    as_json: options.AsJson = False,
) -> None:
    """Describe a problem set: how many, which operations, how many steps, and a few of its questions."""
    from collections import Counter

    from thoughtgraft.problems import load_problems

    chosen = load_problems(spec, n=n, seed=seed)
    operations = Counter(p.operation for p in chosen)
    steps = Counter(len(p.steps) for p in chosen)
    if as_json:
        facts = {"name": chosen.name, "n": len(chosen), "hash": chosen.content_hash}
        typer.echo(
            json.dumps(facts | {"operations": dict(operations), "steps": {str(k): steps[k] for k in sorted(steps)}})
        )
        return
    typer.echo(f"{chosen.name}: {len(chosen):,} problems, content hash {chosen.content_hash}")
    typer.echo("operations: " + ", ".join(f"{name} {count:,}" for name, count in operations.most_common()))
    typer.echo("steps: " + ", ".join(f"{k}: {steps[k]:,}" for k in sorted(steps)))
    for problem in chosen[:show]:
        typer.echo(f"\n{problem.id}: {problem.question}\n  answer {problem.answer}")
