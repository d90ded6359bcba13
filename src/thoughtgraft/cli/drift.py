"""`thoughtgraft drift`: one plan under several protocols, and how far each is from the right one."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoughtgraft.cli import options
from thoughtgraft.studies import checks

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from thoughtgraft.studies.drift.report import Side
    from thoughtgraft.studies.run import Run

FROM_CERTIFICATE = ("certificate", "transplant")
"""Gates whose evidence is the certificate, which is shown itself."""


def drift(
    model: options.Model = "tiny-codi",
    problems: options.Problems = "arithmetic:test",
    out: options.Out = Path("runs/drift"),
    protocols: Annotated[
        str | None,
        typer.Option(
            callback=checks.each_of("protocol", "models.protocols:PROTOCOLS"),
            help="Names with commas between; default: official and CoT_Exploration's two. official is added.",
        ),
    ] = None,
    hosts: Annotated[int, typer.Option(min=2, help="Problems; each is a host and may donate.")] = 100,
    donors: Annotated[int, typer.Option(min=1, help="Donors of each host.")] = 10,
    seed: options.Seed = 0,
    base: options.Base = None,
    tokenizer: options.Tokenizer = None,
    num_latents: options.NumThoughts = None,
    lora_alpha: options.LoraAlpha = None,
    prompt_suffix: options.PromptSuffix = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = "auto",
    max_new_tokens: options.MaxNewTokens = None,
    as_json: options.AsJson = False,
) -> None:
    """Run the same swaps under several protocols: what would each procedure have reported, and what is true?

    Each protocol's run is an ordinary one, in its own folder under --out. A problem's own thought is put back too: a
    procedure that this moves does not measure what it says.

    Example: thoughtgraft drift --model zen-E/CODI-gpt2 --problems gsm8k:test --out runs/drift
    """
    from rich.console import Console
    from rich.markup import escape

    from thoughtgraft.edits.donors import check_donors
    from thoughtgraft.records.store import RunStore, check_folder
    from thoughtgraft.studies.drift.design import PROTOCOLS, STANDARD, drift_plan
    from thoughtgraft.studies.sample import draw_sample

    asked = PROTOCOLS if protocols is None else [name.strip() for name in protocols.split(",")]
    names = list(dict.fromkeys([STANDARD, *asked]))
    for name in names:
        check_folder(out / name)
    check_donors(donors, hosts)
    console = Console(stderr=as_json)
    sample = draw_sample(problems, first=0, n=hosts, seed=seed)

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.cli.console import Terminal
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.cli.studies import door
    from thoughtgraft.effects.gates import RULE
    from thoughtgraft.files import to_json
    from thoughtgraft.models.reasoner import require_thoughts
    from thoughtgraft.readouts.lens import largest_number
    from thoughtgraft.records.certificate import read_certificate
    from thoughtgraft.studies.comparison import failed_gates
    from thoughtgraft.studies.drift.analysis import drift_table
    from thoughtgraft.studies.drift.report import Side, drift_facts, write_drift
    from thoughtgraft.studies.options import RunOptions
    from thoughtgraft.studies.registry import load_run
    from thoughtgraft.studies.resampling.design import decode
    from thoughtgraft.studies.study import Design, make, start

    loaded = open_model(
        model,
        base=base,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        num_latents=num_latents,
        lora_alpha=lora_alpha,
        prompt_suffix=prompt_suffix,
    )
    require_thoughts(loaded)
    plan = drift_plan(loaded.num_latents, donors, seed)
    # All of them before the first run: a protocol that does not fit this model is refused at once.
    reasoners = [loaded.under(name) for name in names]
    runs: dict[str, Run] = {}
    sides = []
    for reasoner in reasoners:
        protocol = reasoner.protocol
        facts = {"preset": "drift", "available_hosts": sample.left, "largest_number": largest_number(reasoner)}
        design = Design(sample.problems, plan, facts, RULE.to_json())
        place = replace(door(out / protocol.name, False), said=Terminal(console))
        options_of_run = RunOptions.of({"seed": seed, "batch_size": batch_size, "max_new_tokens": max_new_tokens})
        make(reasoner, design, start("resampling", reasoner, design, options_of_run, place), place)
        run = runs[protocol.name] = load_run(place.out)
        decode(reasoner, run)
        sides.append(
            Side(
                name=protocol.name,
                about=protocol.about,
                flaw=protocol.flaw,
                thoughts_fed=reasoner.loop.thoughts_fed(reasoner.num_latents),
                folder=protocol.name,
                certificate=read_certificate(RunStore.open(run.path)),
                failed_gates=tuple(name for name in failed_gates(run) if name not in FROM_CERTIFICATE),
            )
        )
    with console.status("analysing and drawing"):
        table = drift_table(
            {name: run.records() for name, run in runs.items()},
            seed=seed,
            dead_slots={side.name: side.certificate.dead_slots for side in sides},
            shared_slots={side.name: side.certificate.shared_slots for side in sides},
        )
        page = write_drift(out, table, sides, runs[STANDARD].spec)
    if as_json:
        facts = drift_facts(table, sides, runs[STANDARD].spec)
        typer.echo(to_json(facts, "the table").decode(), nl=False)
        return
    show(console, table, sides)
    console.print(f"The table, with a figure: [bold]{escape(str(page.resolve()))}[/bold]", soft_wrap=True)


def show(console: Console, table: pd.DataFrame, sides: list[Side]) -> None:
    """The protocols, then what each reports slot by slot."""
    letters = {side.name: chr(ord("A") + i) for i, side in enumerate(sides)}
    for side in sides:
        good = "[green]valid[/green]" if not side.broken else f"[bold red]INVALID[/bold red]: {', '.join(side.broken)}"
        base = table[(table.protocol == side.name) & (table.method == "baseline")].iloc[0]
        fed = f"{side.thoughts_fed} thoughts fed, {100 * base.acc:.1f}% right unedited"
        console.print(f"[bold]{letters[side.name]} {side.name}[/bold]: {fed}; {good}", soft_wrap=True, highlight=False)
    for method in ("swap", "self"):
        console.print(shown(table[table.method == method], method, letters))


def shown(part: pd.DataFrame, method: str, letters: dict[str, str]) -> Table:
    """One method's rows for a terminal; protocols by their letters, the first the standard."""
    from thoughtgraft.effects.gates import RULE
    from thoughtgraft.effects.positions import OF_IMPACT
    from thoughtgraft.report.document import judged, records_of
    from thoughtgraft.report.terminal import narrow_table
    from thoughtgraft.stats.intervals import TOO_SMALL
    from thoughtgraft.studies.drift.report import METHODS, difference, divergence, reported

    standard, first = next(iter(letters.items()))
    level = RULE.level
    out = narrow_table(
        f"{METHODS[method]}: accuracy lost, pp\n{level} together: for all thoughts of a protocol at once"
    )
    out.padding = (0, 0)
    last = f"minus {first}" if method == "swap" else "KL, nats"
    for name in ("thought", "", f"impact [{level} alone]", f"{level} together", "verdict", last):
        out.add_column(name, justify="left" if name in ("thought", "", "verdict") else "right", no_wrap=True)
    for label in dict.fromkeys(part.label):
        for i, row in enumerate(records_of(part[part.label == label])):
            more = difference(row, standard) if method == "swap" else divergence(row)
            together = judged(row["sim_low"], row["sim_high"], RULE.margin_pp) if isfinite(row["sim_low"]) else ""
            verdict = f"{row['verdict']}{' *' if OF_IMPACT + TOO_SMALL in row['note'] else ''}"
            out.add_row("" if i else label, letters[row["protocol"]], reported(row), together, verdict, more)
        out.add_section()
    if part.note.str.contains(OF_IMPACT + TOO_SMALL, regex=False).any():
        out.caption = f"* {TOO_SMALL}"
    return out
