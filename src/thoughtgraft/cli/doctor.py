"""`thoughtgraft doctor`: what a checkpoint is, whether it would load, and the fix if not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoughtgraft.cli import checks, options

if TYPE_CHECKING:
    from rich.console import Console

    from thoughtgraft.models.doctor import Diagnosis

_STYLE = {"error": "bold red", "warning": "yellow", "note": "dim"}


def doctor(
    checkpoint: Annotated[
        str, typer.Argument(callback=checks.model, help="A directory, a weight file, a hub id, or tiny-codi.")
    ],
    base: options.Base = None,
    tokenizer: options.Tokenizer = None,
    num_latents: options.NumLatents = None,
    lora_alpha: options.LoraAlpha = None,
    prompt_suffix: options.PromptSuffix = None,
    as_json: options.AsJson = False,
) -> None:
    """Examine a checkpoint: family, base, rows, prj, LoRA, tokenizer, what a run would assume, what is wrong.

    Exit code 0 if it would load, 1 if not. Every number is read once and none is kept; nothing is executed.
    """
    from rich.console import Console
    from transformers.utils.logging import disable_progress_bar

    from thoughtgraft.models.doctor import diagnose

    disable_progress_bar()  # an adapter's base is loaded to be looked at
    diagnosis = diagnose(
        checkpoint,
        base=base,
        tokenizer=tokenizer,
        num_latents=num_latents,
        lora_alpha=lora_alpha,
        prompt_suffix=prompt_suffix,
    )
    if as_json:
        typer.echo(json.dumps(diagnosis.to_json(), indent=1))
    else:
        show(Console(highlight=False, soft_wrap=True), diagnosis)
    if not diagnosis.loads:
        raise typer.Exit(1)


def show(console: Console, diagnosis: Diagnosis) -> None:
    """The diagnosis for a terminal; what comes from the file is printed as it is, never as markup."""
    from rich.text import Text

    verdict, style = ("would load", "green") if diagnosis.loads else ("would NOT load", "bold red")
    console.print(Text.assemble(f"{diagnosis.name}: {diagnosis.family}, ", (verdict, style)))
    for name, value in diagnosis.facts.items():
        console.print(Text(f"  {name.replace('_', ' ')}: {plain(value)}"))
    for finding in diagnosis.findings:
        console.print(Text.assemble("\n", (f"{finding.level}: ", _STYLE[finding.level]), finding.what))
        for label in ("got", "expected", "fix"):
            if text := getattr(finding, label):
                console.print(Text(f"  {label}: {text}"))
    for assumption in diagnosis.assumptions:
        console.print(Text.assemble("\n", ("assumed: ", "yellow"), str(assumption)))
    for line in diagnosis.published:
        console.print(Text(f"\nto compare with: {line}"))


def plain(value: Any) -> str:
    """A fact as people read it."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')}: {plain(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
