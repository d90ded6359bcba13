"""Section: the certificate of model, protocol and engine, and the gates that the records themselves must pass."""

from __future__ import annotations

import json
from typing import Any

from thoughtgraft.report.certificate import Certificate
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Bullets, Prose, Section, Table
from thoughtgraft.report.formats import UNDEFINED, is_number, shorten

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


def section(context: Context) -> Section:
    """Certificate, then gates."""
    return Section("certificate", "Certificate and gates", (*checks(context.run.certificate), gates(context)))


def checks(certificate: Certificate) -> tuple[Block, ...]:
    """What the certificate says in one sentence, and its checks."""
    tone = "" if certificate.state == "passed" else "warn"
    blocks: list[Block] = [Prose(STATES[certificate.state], tone)]
    if certificate.checks:
        rows = tuple(
            (
                str(check.get("name", "unnamed")),
                str(check.get("proves", "")),
                ": ".join(text for text in (figure(check.get("figure")), str(check.get("detail") or "")) if text),
                figure(check.get("threshold")),
                "passed" if check.get("passed") else "failed",
                str(check.get("consequence", "")),
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


def figure(value: Any) -> str:
    """A measured value of any kind as text."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:.4g}" if is_number(value) else shorten(json.dumps(value, default=str), 80)
