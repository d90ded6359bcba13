"""`thoughtgraft problems`: look at a problem set, label its arithmetic, draw from it by class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoughtgraft.cli import checks, options

if TYPE_CHECKING:
    from thoughtgraft.problems import ProblemSet


def problems(
    spec: Annotated[
        str, typer.Argument(callback=checks.problems, help="arithmetic[:split], gsm8k:test|train|all, or a local file.")
    ] = "arithmetic:test",
    n: Annotated[int | None, typer.Option("-n", min=1, help="Only so many.")] = None,
    seed: Annotated[
        int | None, typer.Option(callback=checks.seed, help="Permute first; with --per-class, seed of the draw.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Print so many questions.")] = 3,
    label: Annotated[bool, typer.Option("--label", help="Label operations, and compare the rules for it.")] = False,
    rule: Annotated[
        str | None, typer.Option(callback=checks.RULE, help="With --label: annotations or cot-exploration.")
    ] = None,
    per_class: Annotated[int | None, typer.Option(min=1, help="With --label: draw so many of each class.")] = None,
    draw: Annotated[
        str,
        typer.Option(
            callback=checks.one_of("draw", "problems.classes:DRAWS"),
            help="With --per-class: auto, test, train, all, or cot-exploration (the origin's).",
        ),
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            callback=checks.labels_file,
            help="With --label: write problems and labels, .json or .parquet.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Describe a problem set: how many, which operations, how many steps, and a few of its questions.

    Example: thoughtgraft problems gsm8k:all --label --per-class 200 --draw cot-exploration --out sample.json
    """
    from collections import Counter

    from thoughtgraft.errors import ProblemError
    from thoughtgraft.problems import load_problems

    if not label and (rule or per_class or out):
        raise ProblemError("--rule, --per-class and --out say how to label", fix="add --label")
    chosen = load_problems(spec, n=n, seed=None if per_class else seed)
    if label:
        from thoughtgraft.cli.labels import label_problems

        label_problems(chosen, rule, per_class, draw, seed or 0, show, out, as_json)
        return
    operations = Counter(p.operation for p in chosen)
    steps = Counter(len(p.steps) for p in chosen)
    if as_json:
        facts = {"name": chosen.name, "n": len(chosen), "hash": chosen.content_hash}
        typer.echo(
            json.dumps(facts | {"operations": dict(operations), "steps": {str(k): steps[k] for k in sorted(steps)}})
        )
        return
    typer.echo(f"{chosen.name}: {len(chosen):,} problems, content hash {chosen.content_hash}")
    typer.echo(
        "operations, by steps that form a graph (--label reads every annotation): "
        + ", ".join(f"{name} {count:,}" for name, count in operations.most_common())
    )
    typer.echo("steps: " + ", ".join(f"{k}: {steps[k]:,}" for k in sorted(steps)))
    print_questions(chosen, show)


def print_questions(problems: ProblemSet, n: int) -> None:
    """Print the first questions with their answers."""
    for problem in problems[:n]:
        typer.echo(f"\n{problem.id}: {problem.question}\n  answer {problem.answer}")
