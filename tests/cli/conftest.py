"""What a command would have run: its design is taken, and nothing starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import typer

from thoughtgraft.edits.plan import Plan
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.studies import study
from thoughtgraft.studies.resampling.design import Drawn, Resampling
from thoughtgraft.studies.study import Design
from thoughtgraft.tasks.problem import ProblemSet


@dataclass(frozen=True)
class Job:
    """One resampling study, ready to start."""

    model: LatentReasoner
    drawn: Drawn
    design: Design

    @property
    def plan(self) -> Plan:
        return self.design.plan

    @property
    def problems(self) -> ProblemSet:
        return self.design.problems


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What would have been run; nothing is."""
    taken: list[Job] = []
    design = Resampling.design

    def take(self: Resampling, model: Any, options: Any, drawn: Drawn) -> Design:
        taken.append(Job(model, drawn, design(self, model, options, drawn)))
        return taken[-1].design

    def stop(*_: Any) -> None:
        raise typer.Exit

    monkeypatch.setattr(Resampling, "design", take)
    monkeypatch.setattr(study, "start", stop)
    return taken
