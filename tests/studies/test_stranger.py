"""CONTRIBUTING's example of a study, put into a folder as it stands there: it is a study at every door."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thoughtgraft import run_study, studies
from thoughtgraft.cli.app import app
from thoughtgraft.errors import PlanError
from thoughtgraft.studies import registry

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The study's folder beside those of the package."""
    section = PAGE.read_text().split("## Add a study")[1].split("\n## ")[0]
    folder = tmp_path / "studies" / "counting"
    folder.mkdir(parents=True)
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for name, text in zip(("__init__.py", "design.py"), blocks, strict=True):
        (folder / name).write_text(text)
    monkeypatch.setattr(studies, "__path__", [*studies.__path__, str(folder.parent)])
    registry._words.cache_clear()
    yield
    registry._words.cache_clear()
    registry._study.cache_clear()
    for name in [name for name in sys.modules if name.startswith("thoughtgraft.studies.counting")]:
        del sys.modules[name]


def test_a_study_that_only_counts_is_one_folder(counting: None, tmp_path: Path) -> None:
    typed = CliRunner().invoke(app, ["run", "counting", "--hosts", "4", "--out", str(tmp_path / "run")])
    assert typed.exit_code == 0, typed.output
    assert "7 arms on 4 problems" in typed.stdout and "certificate: passed" in typed.stdout
    called = run_study("counting", hosts=4, out=tmp_path / "run", progress=False)  # the same study: it is continued
    assert called.spec.study == "counting" and called.spec.options == called.options.stored()  # type: ignore[union-attr]
    page = (called.path / "report.md").read_text()
    assert re.search(r"\| baseline +\| [34] of 4", page) and "certificate passed" in page and "## Provenance" in page
    assert list(called.analysis()["count"]) == [4] * 7
    shown = CliRunner().invoke(app, ["run", "--help"]).stdout
    assert "counting" in shown and "Count right answers" in shown
    assert "Problems that are asked." in CliRunner().invoke(app, ["run", "counting", "--help"]).stdout
    with pytest.raises(PlanError, match=r"hosts is not usable; got 1; expected at least 2"):
        run_study("counting", hosts=1, out=tmp_path / "few")
