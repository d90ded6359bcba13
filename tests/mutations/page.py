"""Writes the tables in docs/certificates.md: `python -m tests.mutations.page`. A test keeps them up to date."""

from __future__ import annotations

from pathlib import Path

from tests.mutations.analysis_plants import ANALYSIS_MUTATIONS
from tests.mutations.edit_plants import EDIT_MUTATIONS
from tests.mutations.plants import MUTATIONS, UNSEEN
from tests.mutations.record_plants import RECORD_MUTATIONS

from thoughtgraft.engine.verify.statements import STATEMENTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "certificates.md"


def tables() -> dict[str, list[str]]:
    """The lines that stand between each `<!-- name -->` and the next `<!-- end -->` of the page."""
    checks = ["| check | set | what it proves | if it fails |", "|---|---|---|---|"]
    checks += [
        f"| {s.name} | {'core' if s.core else 'full'} | {s.proves} | {s.consequence} |" for s in STATEMENTS.values()
    ]
    mutations = ["| mistake | planted into | caught by | checks that fail | in words |", "|---|---|---|---|---|"]
    for m in (*MUTATIONS, *EDIT_MUTATIONS, *RECORD_MUTATIONS, *ANALYSIS_MUTATIONS):
        words = f"“{m.words}”" if m.words else ""
        mutations.append(f"| {m.name} | {m.where} | {m.caught_by} | {', '.join(m.checks) or '–'} | {words} |")
    return {"checks": checks, "mutations": mutations, "unseen": [f"- **{what}**: {why}" for what, why in UNSEEN]}


def updated(text: str) -> str:
    """The page with its tables written anew."""
    for name, lines in tables().items():
        start = text.index(f"<!-- {name} -->\n")
        end = text.index("<!-- end -->", start)
        text = "\n".join([f"{text[:start]}<!-- {name} -->", *lines, text[end:]])
    return text


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
