"""Sections: the certificate, provenance, and how to make the run again."""

from __future__ import annotations

from typing import Any

from thoughtgraft.records.certificate import Certificate, Check
from thoughtgraft.records.spec import RunSpec, package_versions
from thoughtgraft.report.document import (
    UNDEFINED,
    Block,
    Bullets,
    Code,
    Prose,
    Section,
    Table,
    count,
    is_number,
    key_values,
)
from thoughtgraft.studies.resampling.context import Context

STATES = {
    "passed": "The certificate passed: every check below held before the numbers were made.",
    "failed": "The certificate FAILED. What each failed check means is in its last column.",
    "off": "The checks were switched off for this run. Nothing here proves that the edits did what they say.",
    "missing": (
        "The run has no certificate (certificate.json). Nothing here proves that the edits did what they say; the "
        "gates below are the part that the records alone can show. Certify it (thoughtgraft verify --out RUN), or "
        "write the report by force."
    ),
}


def certificate_section(context: Context) -> Section:
    """Certificate, then gates."""
    return Section("certificate", "Certificate and gates", (*checks(context.run.certificate), gates(context)))


def checks(certificate: Certificate) -> tuple[Block, ...]:
    """What the certificate says in one sentence, and its checks."""
    tone = "" if certificate.state == "passed" else "warn"
    blocks: list[Block] = [Prose(STATES[certificate.state], tone)]
    if certificate.checks:
        rows = tuple(
            (
                check.name,
                check.proves,
                ": ".join(text for text in (_measured(check), check.detail) if text),
                check.threshold or "–",
                "passed" if check.passed else "failed",
                check.consequence,
            )
            for check in certificate.checks
        )
        reading = "Each check with what it proves, what was measured, its limit, and what a failure would mean."
        kind = f" ({certificate.kind})" if certificate.kind else ""
        header = ("check", "proves", "measured", "limit", "outcome", "if it fails")
        blocks.append(Table(header, rows, reading, frozenset({3}), 4, title=f"Certificate{kind}"))
    if certificate.notes:
        blocks.append(Bullets(certificate.notes))
    return tuple(blocks)


def gates(context: Context) -> Table:
    """The gates of the frozen rule."""
    rows = tuple(
        (
            gate.name,
            gate.statement,
            f"{gate.figure:.4g}" if is_number(gate.figure) else UNDEFINED if gate.limit is not None else "–",
            "–" if gate.limit is None else f"{gate.limit:g}",
            gate.outcome,
            gate.detail,
        )
        for gate in context.analysis.decision.gates
    )
    reading = (
        "Conditions that must hold before any effect is stated. A gate without evidence in this run is 'not run', "
        "which is not a pass. If one fails, every claim is INVALID."
    )
    return Table(
        ("gate", "condition", "measured", "limit", "outcome", "how"), rows, reading, frozenset({3}), 4, title="Gates"
    )


def _measured(check: Check) -> str:
    if isinstance(check.figure, str):
        return check.figure
    return f"{check.figure:.4g}" if is_number(check.figure) else "–"


def provenance(context: Context) -> Section:
    """Identity of the run, software and starts."""
    spec, made = context.run.spec, context.run.spec.provenance
    source = made.get("source") or {}
    commit = source.get("commit")
    versions = spec.versions or made.get("versions") or {}
    facts: list[tuple[str, Any]] = [
        ("run id", spec.run_id),
        ("model", model_words(spec)),
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


def provenance_blocks(spec: RunSpec | None, note: str = "Hashes name contents.") -> tuple[Block, ...]:
    """Where the numbers of a study without gates come from, and the command that made them.

    Args:
        spec: The run; None where the numbers come from a file.
        note: How to read it.
    """
    versions = package_versions()
    names = ("thoughtgraft", "numpy", "scipy", "scikit-learn", "pandas")
    pairs: list[tuple[str, Any]] = [
        ("versions of the analysis", ", ".join(f"{name} {versions[name]}" for name in names if name in versions))
    ]
    if spec is None:
        return (key_values(pairs, note),)
    pairs += [
        ("run id", spec.run_id),
        ("model", model_words(spec)),
        ("problems", spec.problem_hash),
        ("plan", spec.plan_hash),
        ("dtype, device", f"{spec.dtype}, {spec.device}"),
        ("seed of the run", spec.seed),
        ("source commit", (spec.provenance.get("source") or {}).get("commit")),
    ]
    command = _command(spec)
    made = (Prose("The command that made this run:"), Code(command)) if command else ()
    return (key_values(pairs, note), *made)


def model_words(spec: RunSpec) -> str:
    """The hash of a model's identity, with the parts that people know it by; run.json has them all."""
    parts = spec.model_identity
    if parts is None:
        return f"{spec.model_hash}; its parts are not recorded"
    alpha = f", LoRA alpha {parts['lora_alpha']}" if parts.get("lora_alpha") else ""
    return f"{spec.model_hash}: weights {parts['weights']}{alpha}, float32 products {parts['products']}"


def _command(spec: RunSpec) -> str:
    command = spec.provenance.get("command") or ""
    return " ".join(map(str, command)) if isinstance(command, list) else str(command)


def _starts(context: Context) -> str:
    parts = []
    for start in context.run.starts:
        finish = start.get("finish") or {}
        wall = f", {count(finish['wall_s'])} s" if "wall_s" in finish else ""
        parts.append(f"{start.get('started_utc', 'time unknown')}{wall}")
    return "; ".join(parts)


def reproduce(context: Context) -> Section:
    """The command, if the run knows it."""
    spec = context.run.spec
    blocks: tuple[Block, ...]
    if command := _command(spec):
        blocks = (Prose("The command that made this run:"), Code(command))
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
