"""Commands about problems: describe, label and draw them; import what others stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoughtgraft.cli import options
from thoughtgraft.studies import checks

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from thoughtgraft.tasks.labels import ClassSample
    from thoughtgraft.tasks.problem import ProblemSet


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
            callback=checks.one_of("draw", "tasks.labels:DRAWS"),
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
    from thoughtgraft.tasks.load import load_problems

    if not label and (rule or per_class or out):
        raise ProblemError("--rule, --per-class and --out say how to label", fix="add --label")
    chosen = load_problems(spec, n=n, seed=None if per_class else seed)
    if label:
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
        typer.echo(f"\n{problem.id}: {problem.question}\n  answer {problem.gold}")


def label_problems(
    problems: ProblemSet,
    rule: str | None,
    per_class: int | None,
    draw: str,
    seed: int,
    show: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Label problems, draw from them if asked to, print what was found, and write it if asked to."""
    from thoughtgraft.tasks.labels import compare_rules, draw_classes, label_table

    sample = None
    if per_class is not None:
        sample = draw_classes(problems, per_class, seed=seed, draw=draw, rule=rule)  # type: ignore[arg-type]
        rule = sample.rule
    labels = label_table(problems, rule or "annotations")  # type: ignore[arg-type]
    has_solutions = any(problem.solution for problem in problems)
    rules = compare_rules(problems, examples=show) if has_solutions else None
    if out is not None:
        write_labels(out, sample.problems if sample else problems, labels)
    facts = summary(problems, rule or "annotations", labels, rules, sample)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    from rich.console import Console

    console = Console()
    console.print(
        f"{problems.name}: {len(problems):,} problems, labelled by {facts['rule']}", markup=False, highlight=False
    )
    console.print(counts_table(facts["splits"]))
    if rules is not None:
        console.print(rules_table(rules))
    if sample is not None:
        for line in sample_lines(sample):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    if rules is not None:
        print_disagreements(problems, rules)
    if out is not None:
        console.print(f"\nwritten: {out}", soft_wrap=True, markup=False, highlight=False)


def summary(
    problems: ProblemSet, rule: str, labels: pd.DataFrame, rules: pd.DataFrame | None, sample: ClassSample | None
) -> dict[str, Any]:
    """What was found, for JSON: operations and operators per split, steps, the rules' confusion, the draw."""
    from thoughtgraft.tasks.labels import OPERATORS

    splits = {}
    for split, part in labels.groupby("split", sort=False):
        operators = {name: int(part[name].sum()) for name in OPERATORS.values()}
        known = operators if part[list(operators)].notna().any().any() else None
        steps = {str(k): int(v) for k, v in part["n_steps"].value_counts().sort_index().items()}
        splits[str(split)] = {
            "n": len(part),
            "operations": {str(k): int(v) for k, v in part["operation"].value_counts().items()},
            "operators": known,
            "steps": steps,
        }
    found: dict[str, Any] = {"name": problems.name, "n": len(problems), "hash": problems.content_hash}
    found |= {"rule": rule, "splits": splits, "rules": [] if rules is None else rules.to_dict("records")}
    if sample is not None:
        found["sample"] = {
            "draw": sample.draw,
            "asked": sample.asked,
            "drawn": sample.drawn,
            "available": dict(sample.available),
            "ids": [problem.id for problem in sample.problems],
        }
    return found


def counts_table(splits: dict[str, Any]) -> Table:
    """Classes and operators, one row per split."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from thoughtgraft.tasks.labels import CLASSES, OPERATORS

    classes = (*CLASSES, "unknown")
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for name in ("split", "n", *classes, *OPERATORS):
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, part in splits.items():
        operators = part["operators"] or {}
        counts = [part["n"], *(part["operations"].get(name, 0) for name in classes)]
        signs = [f"{operators[name]:,}" if name in operators else "" for name in OPERATORS.values()]
        table.add_row(escape(split), *(f"{count:,}" for count in counts), *signs)
    return table


def rules_table(rules: pd.DataFrame) -> Table:
    """The confusion of the two rules."""
    from rich import box
    from rich.table import Table

    from thoughtgraft.tasks.labels import CLASSES

    agree = int(rules["n"][rules["agree"]].sum())
    title = f"rows: annotations, columns: cot-exploration; they agree on {agree:,} of {int(rules['n'].sum()):,}"
    table = Table(title=title, title_style="dim", box=box.SIMPLE_HEAD, min_width=len(title))
    for name in ("", *CLASSES):
        table.add_column(name, justify="right" if name else "left")
    counts = {(row["annotations"], row["cot_exploration"]): row["n"] for row in rules.to_dict("records")}
    for name in (*CLASSES, "unknown"):
        table.add_row(name, *(f"{counts.get((name, other), 0):,}" for other in CLASSES))
    return table


def sample_lines(sample: ClassSample) -> list[str]:
    """The draw in words."""
    drawn = ", ".join(f"{n} {name}" for name, n in sample.drawn.items())
    lines = [f"drawn ({sample.draw}): {drawn}; first {', '.join(first_ids(sample))}"]
    return lines + [
        f"{name}: only {n} where {sample.asked} were wanted; none is filled up from elsewhere"
        for name, n in sample.short.items()
    ]


def first_ids(sample: ClassSample) -> list[str]:
    """The first problem of each class."""
    names = [problem.id for problem in sample.problems]
    return [names[sample.operations.index(name)] for name in dict.fromkeys(sample.operations)]


def print_disagreements(problems: ProblemSet, rules: pd.DataFrame) -> None:
    """Print the examples of each disagreement with their solutions."""
    by_id = {problem.id: problem for problem in problems}
    for row in rules[~rules["agree"]].to_dict("records"):
        typer.echo(
            f"\nannotations say {row['annotations']}, cot-exploration says {row['cot_exploration']}: {row['n']:,}"
        )
        for name in row["examples"]:
            text = " ".join(by_id[name].solution.split())
            typer.echo(f"  {name}: {text if len(text) <= 160 else text[:157] + '...'}")


def write_labels(path: Path, problems: ProblemSet, labels: pd.DataFrame) -> None:
    """Write problems with their labels, one row each.

    Raises:
        ProblemError: The file cannot be written.
    """
    from thoughtgraft.errors import ProblemError
    from thoughtgraft.tasks.files import problem_table, with_labels

    # With `answer`, the file is itself a file of problems, which --problems takes.
    table = with_labels(problem_table(problems), labels)
    answers: list[Any] = [p.solution or p.gold for p in problems]
    table = table.assign(answer=answers)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            table.to_json(path, orient="records", indent=1, force_ascii=False)
        else:
            table.to_parquet(path, index=False)
    except OSError as error:
        raise ProblemError(f"{path} cannot be written", got=error.strerror or str(error)) from error


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            callback=checks.existing_file, help="A cache (.pkl), results or thoughts (.json) of CoT_Exploration."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            callback=checks.writable_folder,
            help="Folder to write; default: imported/ and the file's name.",
        ),
    ] = None,
) -> None:
    """Convert a file of another codebase and say how its numbering relates to slots here.

    Pickles are read with an allow-list: nothing in them is executed. Writes problems.parquet (labels) and
    features.safetensors (for the probes), or generations.parquet, beside import.json.
    """
    from thoughtgraft.importing.convert import read_foreign

    found = read_foreign(file)
    written = found.write(Path("imported") / file.stem if out is None else out, file)
    typer.echo(f"{found.kind}: {found.summary}")
    for note in found.notes:
        typer.echo(f"- {note}")
    typer.echo("written: " + ", ".join(map(str, written)))
