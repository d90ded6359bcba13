"""Commands about a model: think, evaluate, verify, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoughtgraft.cli import options
from thoughtgraft.errors import ModelError
from thoughtgraft.studies import checks

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from thoughtgraft.models.doctor.rules import Diagnosis
    from thoughtgraft.models.reasoner import LatentReasoner


def think(
    question: Annotated[str, typer.Argument(callback=checks.question, help="A word problem.")],
    model: options.Model = "tiny-codi",
    top: Annotated[int, typer.Option(min=1, help="Tokens shown for each thought.")] = 5,
    layers: Annotated[
        bool, typer.Option("--layers", help="The likeliest token after every layer, at every latent position.")
    ] = False,
    readout: Annotated[
        str,
        typer.Option(callback=checks.one_of("readout", "readouts:NAMES"), help="How tokens are read out of a state."),
    ] = "lens",
    base: options.Base = None,
    tokenizer: options.Tokenizer = None,
    num_latents: options.NumLatents = None,
    lora_alpha: options.LoraAlpha = None,
    prompt_suffix: options.PromptSuffix = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what each continuous thought of one problem decodes to, and the answer.

    Example: thoughtgraft think "Tom has 3 bags of 4 apples. Tom buys 5 apples. How many apples does Tom have?"
    """
    from thoughtgraft.engine.collect import collect_thoughts
    from thoughtgraft.engine.states import collect_states
    from thoughtgraft.readouts.readout import decode_thoughts, find_readout
    from thoughtgraft.readouts.vocabulary import unseen_words
    from thoughtgraft.tasks.problem import Problem, ProblemSet

    reasoner = open_model(
        model,
        base=base,
        tokenizer=tokenizer,
        num_latents=num_latents,
        lora_alpha=lora_alpha,
        prompt_suffix=prompt_suffix,
        device=device,
        dtype=dtype,
    )
    unseen = unseen_words(reasoner, question)
    if unseen:
        typer.echo(
            f"warning: {reasoner.name} has never seen {', '.join(map(repr, unseen))}, so its answer means little. "
            'This works: "Tom has 3 bags of 4 apples. Tom buys 5 apples. How many apples does Tom have?"',
            err=True,
        )
    problems = ProblemSet((Problem("asked", question, None),), "asked")
    thoughts = collect_thoughts(reasoner, problems, progress=False)
    found = collect_states(reasoner, problems, progress=False) if layers else thoughts
    decoded = decode_thoughts(reasoner, found, top, readout=readout)
    note = "" if reasoner.num_latents else f"{reasoner.name} is fed no thoughts: {reasoner.without_thoughts}"
    if as_json:
        answer = {"thoughts": _tokens(decoded), "text": thoughts.texts[0], "answer": thoughts.pred[0], "unseen": unseen}
        typer.echo(json.dumps(answer | ({"note": note} if note else {}), ensure_ascii=False))
    else:
        _print_thoughts(decoded, thoughts.texts[0], "" if layers else note, find_readout(readout).words)


def _tokens(decoded: pd.DataFrame) -> list[Any]:
    """The tokens of each thought with their probabilities; of states one such list for each position and layer."""
    axes = [name for name in ("slot", "position", "layer") if name in decoded]
    found: list[Any] = []
    for place, group in decoded.groupby(axes, sort=False):
        tokens = [{"token": row["token"], "prob": round(row["prob"], 4)} for row in group.to_dict("records")]
        named = dict(zip(axes, place, strict=True))
        found.append(tokens if "slot" in decoded else named | {"tokens": tokens})
    return found


def _print_thoughts(decoded: pd.DataFrame, text: str, note: str, how: str) -> None:
    """What each thought decodes to, or each state by layer; then the answer."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from thoughtgraft.report.document import visible

    console = Console()
    if note:
        console.print(f"{note}. What it writes:", markup=False, highlight=False, soft_wrap=True)
    else:
        rows, columns = ("slot", "rank") if "slot" in decoded else ("layer", "position")
        best = decoded if rows == "slot" else decoded[decoded["rank"] == 0]
        heads = [rank + 1 for rank in best[columns].unique()] if rows == "slot" else best[columns].unique()
        title = f"top tokens of each thought, {how}"
        title += "" if rows == "slot" else ", layer by layer"
        table = Table(title=title, title_style="dim")
        for head in ("thought" if rows == "slot" else "layer", *heads):
            table.add_column(str(head))
        for name, group in best.groupby(rows):
            shown = (f"{escape(visible(r['token']))} [dim]{r['prob']:.0%}[/dim]" for r in group.to_dict("records"))
            table.add_row(f"CT{name}" if rows == "slot" else str(name), *shown)
        console.print(table)
    console.print(text or "(no text)", markup=False)


def evaluate(
    model: options.Model = "tiny-codi",
    problems: options.Problems = "arithmetic:test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    protocol: options.Protocol = "official",
    base: options.Base = None,
    tokenizer: options.Tokenizer = None,
    num_latents: options.NumLatents = None,
    lora_alpha: options.LoraAlpha = None,
    prompt_suffix: options.PromptSuffix = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = "auto",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="The longest answer, which counts where answers do not stop; default: the official code's."
        ),
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Also write the figures into the model's card.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Accuracy from the thoughts, with Wilson intervals, by steps and operation, under both graders.

    Also with 0..K thoughts, with all thoughts zero, the mean or another problem's, and with explicit reasoning.
    """
    from thoughtgraft.records.store import prove_writable
    from thoughtgraft.tasks.load import load_problems

    if card:
        from thoughtgraft.models.names import model_folder
        from thoughtgraft.training.card import add_accuracies, read_card

        if num_latents is not None:
            raise ModelError(
                "a card holds accuracies from the trained number of thoughts",
                got=f"--num-latents {num_latents} --card",
                fix="leave one of them out",
            )
        read_card(model_folder(model))  # what has no card is told before anything runs
        prove_writable(model_folder(model))
    chosen = load_problems(problems, n=limit)

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.engine.evaluate import evaluate as measure
    from thoughtgraft.readouts.vocabulary import warn_of_unseen

    reasoner = open_model(
        model,
        base=base,
        tokenizer=tokenizer,
        protocol=protocol,
        num_latents=num_latents,
        lora_alpha=lora_alpha,
        prompt_suffix=prompt_suffix,
        device=device,
        dtype=dtype,
    )
    if warning := warn_of_unseen(reasoner, chosen):
        typer.echo(f"warning: {warning}", err=True)
    table = measure(reasoner, chosen, batch_size=batch_size, max_new_tokens=max_new_tokens).table()
    if as_json:
        typer.echo(table.to_json(orient="records", indent=1))
    else:
        _print_accuracies(table, f"{reasoner.name} on {chosen.name}")
    if card:
        facts = {"weight_hash": reasoner.weight_hash, "protocol": reasoner.protocol.name}
        rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
        told = {"--limit": limit, "--dtype": dtype, "--max-new-tokens": max_new_tokens}
        told |= {} if protocol == "official" else {"--protocol": protocol}
        typed = " ".join(f"{name} {value}" for name, value in told.items() if value is not None)
        add_accuracies(model_folder(model), chosen.name, rows, facts, typed)


def _print_accuracies(table: pd.DataFrame, title: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=escape(title), title_style="dim")
    for name in ("condition", "n", "accuracy", "95% interval (Wilson)"):
        shown.add_column(name, justify="left" if name == "condition" else "right")
    for row in table.to_dict("records"):
        interval = f"[{row['ci_low']:.1%}, {row['ci_high']:.1%}]"
        figures = (f"{row['accuracy']:.1%}", interval) if row["n"] else ("-", "all failed")
        shown.add_row(row["condition"], f"{row['n']:,}", *figures)
    if failed := int(table["failed"].sum()):
        shown.caption = f"{failed:,} answers failed and are in no n"
    Console().print(shown)


def verify(
    model: options.Model = "tiny-codi",
    problems: options.Problems = "arithmetic:test",
    protocol: options.Protocol = "official",
    level: Annotated[
        str,
        typer.Option(
            callback=checks.one_of("level of certification", checks.LEVELS), help="core (as before every run) or full."
        ),
    ] = "full",
    cases: Annotated[
        Path | None,
        typer.Option(
            callback=checks.existing_file, help="Also compare with what the official code printed, a JSON file."
        ),
    ] = None,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="Also record 16 answers in the model's card, for later checks.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", callback=checks.run, help="Also write the certificate into this run's folder."),
    ] = None,
    base: options.Base = None,
    tokenizer: options.Tokenizer = None,
    num_latents: options.NumLatents = None,
    lora_alpha: options.LoraAlpha = None,
    prompt_suffix: options.PromptSuffix = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    as_json: options.AsJson = False,
) -> None:
    """Check that model, protocol and engine do what they say; exit 1 if a check fails."""
    from thoughtgraft.models.names import model_folder
    from thoughtgraft.records.spec import CERTIFICATE_FILE
    from thoughtgraft.records.store import RunStore, prove_writable
    from thoughtgraft.tasks.load import load_problems

    store = None if out is None else RunStore.open(out)
    for folder in [*([] if out is None else [out]), *([model_folder(model)] if fingerprint else [])]:
        prove_writable(folder)
    whole = load_problems(problems)

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.cli.console import Terminal
    from thoughtgraft.engine.verify.oracle import read_cases
    from thoughtgraft.engine.verify.suite import verify as run_checks
    from thoughtgraft.engine.verify.weights import QUESTIONS, take_fingerprint
    from thoughtgraft.models.checkpoint.audit import read_fingerprint, write_fingerprint
    from thoughtgraft.report.terminal import certificate_table
    from thoughtgraft.studies.study import tell_certificate

    official = None if cases is None else read_cases(cases)
    chosen = whole[:QUESTIONS]
    reasoner = open_model(
        model,
        base=base,
        tokenizer=tokenizer,
        protocol=protocol,
        num_latents=num_latents,
        lora_alpha=lora_alpha,
        prompt_suffix=prompt_suffix,
        device=device,
        dtype=dtype,
    )
    if fingerprint:
        path = write_fingerprint(model_folder(model), take_fingerprint(reasoner, chosen))
        typer.echo(f"fingerprint recorded in {path}", err=True)
    recorded = read_fingerprint(model_folder(model))
    certificate = run_checks(
        reasoner,
        chosen,
        level=level,  # type: ignore[arg-type]
        cases=official,
        recorded=recorded,
    )
    if store is not None:
        store.write_json(CERTIFICATE_FILE, certificate.to_json())
    if as_json:
        typer.echo(json.dumps(certificate.to_json(), indent=1))
    else:
        terminal = Terminal()
        terminal.show(certificate_table(certificate))
        tell_certificate(certificate, terminal)
    if not certificate.passed:
        raise typer.Exit(1)


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

    from thoughtgraft.models.doctor.examine import diagnose

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


def open_model(name: str, **options: Any) -> LatentReasoner:
    """Load a model and say what was passed over, and what was taken for granted since no file or option says it.

    Args:
        name: What `--model` takes.
        options: As `load_model` has them.
    """
    from thoughtgraft.cli.console import Terminal
    from thoughtgraft.models.load import load_model
    from thoughtgraft.studies.study import tell_model

    model = load_model(name, **options)
    tell_model(model, Terminal())
    return model
