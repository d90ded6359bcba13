"""`thoughtgraft verify`, and the same checks before every run."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoughtgraft.cli import options
from thoughtgraft.studies import checks

if TYPE_CHECKING:
    from rich.console import Console

    from thoughtgraft.edits.plan import Plan
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.tasks.problem import ProblemSet


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
    from thoughtgraft.cli.reasoner import open_model
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


def certified(
    model: LatentReasoner, problems: ProblemSet, out: Path, certify: str, console: Console, plan: Plan | None = None
) -> dict[str, Any] | None:
    """`certificate_for`, told on the console, as it is kept."""
    from thoughtgraft.cli.console import Terminal
    from thoughtgraft.studies.study import certify as certify_run

    found = certify_run(model, problems, plan, out, certify, Terminal(console))
    return None if found is None else found.to_json()


def start_facts(certify: str) -> dict[str, Any]:
    """What run.json keeps of how a run was started: the command as typed, and the choice of checks."""
    from thoughtgraft.records.spec import without_home

    return {"command": without_home(shlex.join(["thoughtgraft", *sys.argv[1:]])), "certify": certify}
