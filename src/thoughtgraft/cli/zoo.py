"""`thoughtgraft zoo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from thoughtgraft.cli import options
from thoughtgraft.studies import checks

_SET = "arithmetic:test"


def zoo(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            callback=checks.carded, help="Embedded models or folders with a card; default: the embedded five."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            callback=checks.writable_folder,
            help="Measure everything, and write zoo.md, figures and tables here.",
        ),
    ] = None,
    problems: options.Problems = _SET,
    limit: Annotated[int | None, typer.Option(min=10, help="Only the first so many problems.")] = None,
    hosts: Annotated[int, typer.Option(min=2, help="Problems of the resampling study.")] = 100,
    donors: Annotated[int, typer.Option(min=1, help="Donors of each of them.")] = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    batch_size: options.BatchSize = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Put models that think beside controls of the same base, data, steps and seed that do not.

    Without --out: what their cards say, at once. With --out DIR every model answers the same problems: accuracies with
    paired tests, fewer and spoiled thoughts, the resampling study, lens and probes, and a page that says which findings
    the controls show too.
    """
    from thoughtgraft.models.names import EMBEDDED

    names = models or list(EMBEDDED)
    if out is not None:
        from thoughtgraft.edits.donors import check_donors
        from thoughtgraft.studies.sample import draw_sample
        from thoughtgraft.tasks.load import load_problems

        check_donors(donors, hosts)
        sample = draw_sample(problems, first=0, n=hosts, seed=seed)
        asked = load_problems(problems, n=limit)

        # What needs torch comes after everything that can be refused without it.
        from thoughtgraft.studies.zoo.design import Job, measure_zoo

        job = Job(asked, sample.problems, donors, seed, device, batch_size)
        page = measure_zoo(names, out, job)
        typer.echo(f"The page: {page.resolve()}")
        return
    rows = [card_row(name, problems) for name in names]
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    _print(rows, problems)


def card_row(name: str, problems: str = _SET) -> dict[str, Any]:
    """What a model's card says, with the accuracies on one problem set; what it does not say is None.

    Raises:
        CheckpointError: There is no such model, or it has no card.
    """
    from thoughtgraft.models.names import EMBEDDED, model_folder
    from thoughtgraft.training.card import read_card

    card = read_card(model_folder(name))
    measured = card.get("accuracy", {}).get(problems, [])
    rows = {row["condition"]: row for row in measured}
    main = "answer" if "answer" in rows else "thoughts"
    method = card.get("method") or EMBEDDED.get(name)
    # A model that always writes its reasoning has no second way to do it.
    explicit = rows.get("explicit reasoning", rows.get(main) if method == "cot" else None)
    return {
        "model": name,
        "method": method,
        "parameters": card.get("parameters"),
        "steps": card.get("steps"),
        "seed": card.get("seed", card.get("recipe", {}).get("seed")),
        "accuracy": rows.get(main),
        "explicit": explicit,
        "by_steps": [
            row | {"condition": condition.removeprefix(f"{main}, ")}
            for condition, row in rows.items()
            if condition.startswith(f"{main}, ") and condition.split()[-1] in ("step", "steps")
        ],
    }


def _print(rows: Sequence[Mapping[str, Any]], problems: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    groups = list(dict.fromkeys(group["condition"] for row in rows for group in row["by_steps"]))
    table = Table(
        title=f"accuracy on {escape(problems)}, 95% interval (Wilson); from the models' cards", title_style="dim"
    )
    for column in ("model", "method"):
        table.add_column(column, overflow="fold")
    counted = ["/".join(group.split()[0] for group in groups) + " steps"] if groups else []
    for column in ("accuracy", "explicit", *counted):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        found = {group["condition"]: group for group in row["by_steps"]}
        accuracy = row["accuracy"]
        interval = f" [{100 * accuracy['ci_low']:.1f}, {100 * accuracy['ci_high']:.1f}]" if accuracy else ""
        shares = ["/".join(_share(found.get(group), 0).rstrip("%") for group in groups)] if groups else []
        table.add_row(
            escape(row["model"]), row["method"] or "-", _share(accuracy) + interval, _share(row["explicit"]), *shares
        )
    console = Console()
    console.print(table)
    for row in rows:
        if not row["accuracy"]:
            console.print(
                f"{row['model']} was not measured on {problems}: thoughtgraft evaluate --model {row['model']} "
                f"--problems {problems} --card",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _share(row: Mapping[str, Any] | None, digits: int = 1) -> str:
    return f"{row['accuracy']:.{digits}%}" if row else "-"
