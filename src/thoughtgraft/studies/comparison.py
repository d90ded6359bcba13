"""Two runs side by side: what they differ in, whether both may state effects, and the effects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thoughtgraft.arguments import answers_for_calls, need
from thoughtgraft.edits.edit import change_of
from thoughtgraft.effects.compare import compare_records, spec_differences
from thoughtgraft.errors import AnalysisError
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.report.document import records_of
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.run import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """Run b beside run a.

    Attributes:
        a, b: The runs.
        table: Each arm's effect in both and b - a; the columns are those of `effects.compare.compare_records`.
        differences: What the runs differ in: (field, in a, in b).
        failed_gates: The gates that a run fails, by its folder; such a run states no effect.
    """

    a: Run
    b: Run
    table: pd.DataFrame
    differences: tuple[tuple[str, Any, Any], ...]
    failed_gates: Mapping[str, list[str]]

    @property
    def main(self) -> pd.DataFrame:
        """The baseline, and the main effects: single slots and all, what follows recomputed, random donors."""
        arms, widest = ArmKey.of_table(self.table), self.table.slots.map(len).max()
        checks = [bool(arm.slots) and change_of(arm.method).checks for arm in arms]
        main = [arm.main and arm.span(widest) != "some" for arm in arms]
        return self.table[[one and not check for one, check in zip(main, checks, strict=True)]]

    @property
    def unfinished(self) -> list[Run]:
        """The runs that lack generations."""
        return [run for run in (self.a, self.b) if run.frame.n_rows < run.spec.n_cells]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it; what is undefined is null."""
        return {
            "a": str(self.a.path),
            "b": str(self.b.path),
            "differences": [{"field": name, "a": left, "b": right} for name, left, right in self.differences],
            "failed_gates": dict(self.failed_gates),
            "rows": [{name: _plain(value) for name, value in row.items()} for row in records_of(self.table)],
        }


@answers_for_calls(AnalysisError)
def compare_runs(a: Run | str | Path, b: Run | str | Path, *, force: bool = False) -> Comparison:
    """Effects of two runs side by side, and b - a: two models, protocols, sets of problems or seeds.

    Intervals are paired where the runs share problems.

    Args:
        a, b: The runs, or their folders.
        force: Compare although a gate failed in one of them.

    Raises:
        AnalysisError: A run failed its gates.
        RunError: A folder is no run's, or keeps no generations.
    """
    need(force, bool, "force", AnalysisError, expected="True or False")
    runs = [one if isinstance(one, Run) else load_run(one) for one in (a, b)]
    first, second = runs
    frames = [run.frame for run in runs]
    failed = {str(run.path): names for run in runs if (names := run.failed_gates())}
    if failed and not force:
        raise AnalysisError(
            "a run failed its gates, so it states no effect",
            got="; ".join(f"{path}: {', '.join(names)}" for path, names in failed.items()),
            expected="valid runs",
            fix="repair the cause and run again, or look at the figures all the same with --force (force=True)",
        )
    table = compare_records(*frames, same_problems=first.spec.problems == second.spec.problems)
    return Comparison(first, second, table, tuple(spec_differences(first.spec, second.spec)), failed)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
