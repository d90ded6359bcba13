"""Run folders and their reports, made once for the tests that only read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.report.invent import FEW, FULL, Arm, make_run, passing

from thoughtgraft.report.render import ReportPaths
from thoughtgraft.studies.resampling.report import write_report


@pytest.fixture
def build_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a run folder of one's own."""

    def build(arms: Sequence[Arm] = FEW, name: str = "run", **options: Any) -> Path:
        return make_run(tmp_path / name, arms, **options)

    return build


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures, for tests of what is written."""
    monkeypatch.setattr("thoughtgraft.studies.resampling.report.make_figures", lambda run, analysis, foot: {})


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    """The report of a run like the demo's: single-slot swaps, one control, checks off. To be read only."""
    return write_report(make_run(tmp_path_factory.mktemp("few") / "run", FEW))


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    """The report of a run with every arm and a certificate. To be read only."""
    return write_report(make_run(tmp_path_factory.mktemp("full") / "run", FULL, certificate=passing()))
