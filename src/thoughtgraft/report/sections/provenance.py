"""Sections: where the numbers come from, and how to make them again."""

from __future__ import annotations

from typing import Any

from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Code, Prose, Section, key_values
from thoughtgraft.report.formats import count


def provenance(context: Context) -> Section:
    """Identity of the run, software and starts."""
    spec, made = context.run.spec, context.run.spec.provenance
    source = made.get("source") or {}
    commit = source.get("commit")
    versions = spec.versions or made.get("versions") or {}
    facts: list[tuple[str, Any]] = [
        ("run id", spec.run_id),
        ("model weights", spec.model_hash),
        ("problems", spec.problem_hash),
        ("plan", spec.plan_hash),
        ("decision rule", context.analysis.decision.rule_hash),
        ("protocol, dtype, device", f"{spec.protocol}, {spec.dtype}, {spec.device}"),
        ("seed of the run", spec.seed),
        ("seed of the analysis", context.analysis.seed),
        (
            "source commit",
            None if commit is None else f"{commit}{' with uncommitted changes' if source.get('dirty') else ''}",
        ),
        ("python", made.get("python")),
        ("system", " ".join(str(made[x]) for x in ("system", "machine") if made.get(x)) or None),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("starts of the run", _starts(context)),
    ]
    reading = "Hashes name contents: two runs with the same run id did the same thing."
    return Section("provenance", "Provenance", (key_values(facts, reading),))


def _starts(context: Context) -> str:
    parts = []
    for start in context.run.starts:
        finish = start.get("finish") or {}
        wall = f", {count(finish['wall_s'])} s" if "wall_s" in finish else ""
        parts.append(f"{start.get('started_utc', 'time unknown')}{wall}")
    return "; ".join(parts)


def reproduce(context: Context) -> Section:
    """The command, if the run knows it."""
    command = context.run.spec.provenance.get("command")
    if isinstance(command, list):
        command = " ".join(str(part) for part in command)
    spec = context.run.spec
    blocks: tuple[Block, ...]
    if command:
        blocks = (Prose("The command that made this run:"), Code(str(command)))
    else:
        text = (
            "The command is not on record in run.json. The same study, model, protocol, problems, plan and seed (see "
        )
        blocks = (Prose(f"{text}provenance) make the same run, with the run id {spec.run_id}."),)
    again = Prose(
        "The estimates need no model: the analysis and this report are made from the records alone, and the same "
        f"records and analysis seed ({context.analysis.seed}) give the same numbers. Every table is in the folder "
        "analysis/; DATA.md says what each file holds."
    )
    return Section("reproduce", "How to reproduce", (*blocks, again))
