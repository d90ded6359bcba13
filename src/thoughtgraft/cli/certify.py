"""`thoughtgraft verify`, and the same checks before every run."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoughtgraft.cli import checks, options

if TYPE_CHECKING:
    from rich.console import Console

    from thoughtgraft.edits.plan import Plan
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.tasks.problem import ProblemSet

CERTIFY = ("auto", "full", "off")


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
    from rich.console import Console

    from thoughtgraft.models.names import model_folder
    from thoughtgraft.records.spec import CERTIFICATE_FILE
    from thoughtgraft.records.store import RunStore, prove_writable
    from thoughtgraft.tasks.load import load_problems

    store = None if out is None else RunStore.open(out)
    for folder in [*([] if out is None else [out]), *([model_folder(model)] if fingerprint else [])]:
        prove_writable(folder)
    whole = load_problems(problems)

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.cli.console import certificate_line, certificate_table
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.engine.verify.oracle import read_cases
    from thoughtgraft.engine.verify.suite import verify as run_checks
    from thoughtgraft.engine.verify.weights import QUESTIONS, take_fingerprint
    from thoughtgraft.models.checkpoint.audit import read_fingerprint, write_fingerprint

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
    ).to_json()
    if store is not None:
        store.write_json(CERTIFICATE_FILE, certificate)
    if as_json:
        typer.echo(json.dumps(certificate, indent=1))
    else:
        console = Console()
        console.print(certificate_table(certificate))
        console.print(certificate_line(certificate), soft_wrap=True)
    if not certificate["passed"]:
        raise typer.Exit(1)


def certificate_for(
    model: LatentReasoner, problems: ProblemSet, out: Path, certify: str, plan: Plan | None = None
) -> dict[str, Any] | None:
    """The certificate that a run still needs; None where it is switched off, or lies there already.

    Args:
        model: The run's model.
        problems: Its problems.
        out: Its folder, which need not exist.
        certify: `auto` (the core checks), `full` or `off`.
        plan: What is to be run; None where nothing is edited.

    Raises:
        PlanError: Another word.
        ModelError: One of the problems, checked or not, does not fit the model's context.
    """
    from thoughtgraft.engine.collect import encode
    from thoughtgraft.engine.verify.suite import verify as run_checks
    from thoughtgraft.errors import PlanError
    from thoughtgraft.files import read_json
    from thoughtgraft.models.checkpoint.audit import read_fingerprint
    from thoughtgraft.models.names import model_folder
    from thoughtgraft.records.spec import CERTIFICATE_FILE

    if certify not in CERTIFY:
        raise PlanError("unknown choice for --certify", got=repr(certify), expected=", ".join(CERTIFY))
    there = (read_json(out / CERTIFICATE_FILE) if (out / CERTIFICATE_FILE).exists() else None) or {}
    enough = there.get("passed") and (certify == "auto" or there.get("kind") == "full")
    if certify == "off" or (enough and (plan is None or there.get("plan_hash") == plan.plan_hash)):
        return None
    encode(model, problems)  # the checks are of the first few, and take their time
    level = "full" if certify == "full" else "core"
    recorded = read_fingerprint(model_folder(model.name)) if certify == "full" else None
    return run_checks(model, problems, level=level, plan=plan, recorded=recorded).to_json()  # type: ignore[arg-type]


def certified(
    model: LatentReasoner, problems: ProblemSet, out: Path, certify: str, console: Console, plan: Plan | None = None
) -> dict[str, Any] | None:
    """`certificate_for`, told on the console; a run that could state no effect is not begun.

    Raises:
        RunError: The certificate failed under the official protocol. The others are there to replay what went wrong.
        PlanError, ModelError: As `certificate_for`.
    """
    from thoughtgraft.cli.console import certificate_line
    from thoughtgraft.errors import RunError

    certificate = certificate_for(model, problems, out, certify, plan)
    if certificate is None:
        return None
    console.print(certificate_line(certificate), soft_wrap=True)
    if not certificate["passed"] and model.protocol.name == "official":
        failed = ", ".join(check["name"] for check in certificate["checks"] if not check["passed"])
        raise RunError(
            "the certificate failed, so a run could state no effect",
            got=failed,
            fix="repair the cause; --certify off runs all the same, and every page of the report says so",
        )
    return certificate


def start_facts(certify: str) -> dict[str, Any]:
    """What run.json keeps of how a run was started: the command as typed, and the choice of checks."""
    from thoughtgraft.records.spec import without_home

    return {"command": without_home(shlex.join(["thoughtgraft", *sys.argv[1:]])), "certify": certify}
