"""A small run in this process: an untrained model in float64, whose answers depend on neither packing nor order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.engine.tiny import loaded, questions
from tests.faults.runner import table

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.run import run
from thoughtgraft.tasks.numbers import extract_answer
from thoughtgraft.tasks.problem import Problem, ProblemSet

SmallRun = Callable[..., pd.DataFrame]


@pytest.fixture(scope="session")
def small_run() -> SmallRun:
    """Runs (or continues) six hosts in a folder, packs of 8 cells; its table."""
    model = loaded("codi-llama", "float64")
    asked = zip(questions("codi-llama"), (4, 8, 15, 16, 23, 42), strict=False)
    problems = ProblemSet(tuple(Problem(str(i), q, extract_answer(str(a))) for i, (q, a) in enumerate(asked)))
    plan = Plan((Arm("baseline"), *(Arm(method, (k,)) for method in ("swap", "zero") for k in (0, 5))), n_donors=2)

    def go(folder: Path, **more: Any) -> pd.DataFrame:
        run(model, problems, plan, folder, batch_size=8, max_new_tokens=8, progress=False, **more)
        return table(folder)

    return go


@pytest.fixture(scope="session")
def unharmed(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of the small run when nothing happens to it."""
    return small_run(tmp_path_factory.mktemp("unharmed"))
