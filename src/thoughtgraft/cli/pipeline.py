"""A resampling run from model to report: verify, run, decode, report. Used by `demo` and `run resampling`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from thoughtgraft.cli.tables import certificate_line, position_summary

if TYPE_CHECKING:
    from thoughtgraft.interventions.plan import Plan
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.problems import ProblemSet


def resampling(
    model: LatentReasoner,
    problems: ProblemSet,
    plan: Plan,
    out: Path,
    *,
    batch_size: str = "auto",
    certify: bool = True,
    max_new_tokens: int | None = None,
) -> None:
    """Run the study into `out`, write its report and print its main table."""
    from thoughtgraft.engine.run import THOUGHTS_FILE, run
    from thoughtgraft.engine.verify import verify
    from thoughtgraft.readouts.lens import decode_thoughts
    from thoughtgraft.records import RunStore
    from thoughtgraft.report import write_report
    from thoughtgraft.thoughts import Thoughts

    console = Console()
    certificate = None
    if certify and not (out / "certificate.json").exists():
        certificate = verify(model, problems).to_json()
        console.print(certificate_line(certificate))
    command = "thoughtgraft " + " ".join(sys.argv[1:])
    facts = {"command": command, "certify": "core" if certify else "off"}
    run(
        model,
        problems,
        plan,
        out,
        study="resampling",
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        facts=facts,
    )
    store = RunStore.open(out)
    if certificate is not None:
        store.write_json("certificate.json", certificate)
    if not (out / "decoded.parquet").exists():
        thoughts = Thoughts.load(out / THOUGHTS_FILE, identity=model.identity, problem_hash=problems.content_hash)
        store.write_table("decoded.parquet", decode_thoughts(model, thoughts))
    with console.status("analysing and drawing"):
        paths = write_report(out)
    console.print(position_summary(out))
    console.print(f"\nThe report: [bold]{paths.html.resolve()}[/bold]", soft_wrap=True)


def plan_summary(model: LatentReasoner, problems: ProblemSet, plan: Plan) -> str:
    """What a plan would run, for --dry-run: cells by arm, hosts and donors."""
    from collections import Counter

    cells = plan.cells(problems, model.identity, [0] * len(problems) if model.protocol.pads_visible else None)
    counts = Counter(cell.arm.label for cell in cells)
    lines = [f"{count:>8,}  {label}" for label, count in counts.items()]
    hosts = len({cell.host for cell in cells})
    return "\n".join([*lines, f"{len(cells):>8,}  cells: {hosts} hosts, {plan.n_donors} donors each, seed {plan.seed}"])
