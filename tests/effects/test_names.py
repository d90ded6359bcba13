"""What reads runs knows edits by their classes: no copy of a name decides anything there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import thoughtgraft
from thoughtgraft.edits.edit import EDITS

SRC = Path(thoughtgraft.__file__).parent
PAGES = ("analysis", "context", "figures", "figures_problems", "method", "report", "sections", "summary")
READING = [SRC / "studies" / "resampling" / f"{name}.py" for name in PAGES]
READING += [SRC / "studies" / name for name in ("drift/analysis.py", "drift/report.py")]
READING += [SRC / "studies" / "zoo" / f"{name}.py" for name in ("analysis", "conclusions", "figures", "report")]
READING += [file for room in ("effects", "report", "stats", "tracking") for file in sorted((SRC / room).rglob("*.py"))]
GATES = {"gates.py": {"noop"}}
"""Names of gates, which are called after what they look at."""


def named(source: str) -> set[str]:
    """Texts in code that are an edit's name."""
    texts = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    return {text for text in texts if isinstance(text, str)} & set(EDITS)


@pytest.mark.parametrize("file", READING, ids=lambda file: str(file.relative_to(SRC)))
def test_what_reads_runs_names_no_edit_by_text(file: Path) -> None:
    assert named(file.read_text(encoding="utf-8")) <= GATES.get(file.name, set()), (
        "ask its class: edits.known.Swap.name"
    )


def test_a_name_in_code_is_found_and_one_in_a_sentence_is_not() -> None:
    assert named('rows = table[table.method == "swap"]\nLOOKS = {"zero": 1}') == {"swap", "zero"}
    assert named('text = "the swap of a thought"  # "swap"') == set()
