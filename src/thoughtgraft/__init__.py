"""thoughtgraft: causal experiments on the continuous thoughts of latent-reasoning language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thoughtgraft.edits.arm import Arm
    from thoughtgraft.edits.context import EditContext
    from thoughtgraft.edits.edit import Custom, Edit, Look
    from thoughtgraft.edits.known import (
        Baseline,
        Mean,
        Noise,
        Noop,
        Project,
        Self,
        Shuffle,
        Skip,
        Swap,
        Truncate,
        Zero,
    )
    from thoughtgraft.edits.plan import Plan
    from thoughtgraft.edits.site import Resid, Site
    from thoughtgraft.effects.accuracy import paired_accuracy
    from thoughtgraft.engine.collect import collect_thoughts
    from thoughtgraft.engine.evaluate import Evaluation, evaluate
    from thoughtgraft.engine.executors import make_executor
    from thoughtgraft.engine.run import run
    from thoughtgraft.engine.states import collect_states
    from thoughtgraft.engine.verify.suite import verify
    from thoughtgraft.importing.convert import read_foreign
    from thoughtgraft.models.load import load_model
    from thoughtgraft.readouts.readout import decode_thoughts
    from thoughtgraft.records.export import load_records
    from thoughtgraft.records.states import States, load_states
    from thoughtgraft.studies.comparison import Comparison, compare_runs
    from thoughtgraft.studies.registry import load_run, run_study
    from thoughtgraft.studies.resampling.analysis import analyse
    from thoughtgraft.studies.resampling.report import write_report
    from thoughtgraft.studies.run import Run
    from thoughtgraft.tasks.grading import Grader, grader
    from thoughtgraft.tasks.load import load_problems
    from thoughtgraft.tasks.problem import Problem, ProblemSet
    from thoughtgraft.thoughts import Thoughts

# Loaded when first asked for, so that reading records never imports torch.
_HOMES = {
    "Arm": "edits.arm",
    "Baseline": "edits.known",
    "Comparison": "studies.comparison",
    "Custom": "edits.edit",
    "Edit": "edits.edit",
    "EditContext": "edits.context",
    "Evaluation": "engine.evaluate",
    "Grader": "tasks.grading",
    "Look": "edits.edit",
    "Mean": "edits.known",
    "Noise": "edits.known",
    "Noop": "edits.known",
    "Plan": "edits.plan",
    "Problem": "tasks.problem",
    "ProblemSet": "tasks.problem",
    "Project": "edits.known",
    "Resid": "edits.site",
    "Run": "studies.run",
    "Self": "edits.known",
    "Shuffle": "edits.known",
    "Site": "edits.site",
    "Skip": "edits.known",
    "States": "records.states",
    "Swap": "edits.known",
    "Thoughts": "thoughts",
    "Truncate": "edits.known",
    "Zero": "edits.known",
    "analyse": "studies.resampling.analysis",
    "collect_states": "engine.states",
    "collect_thoughts": "engine.collect",
    "compare_runs": "studies.comparison",
    "decode_thoughts": "readouts.readout",
    "evaluate": "engine.evaluate",
    "grader": "tasks.grading",
    "load_model": "models.load",
    "load_problems": "tasks.load",
    "load_records": "records.export",
    "load_run": "studies.registry",
    "load_states": "records.states",
    "make_executor": "engine.executors",
    "paired_accuracy": "effects.accuracy",
    "read_foreign": "importing.convert",
    "run": "engine.run",
    "run_study": "studies.registry",
    "verify": "engine.verify.suite",
    "write_report": "studies.resampling.report",
}

__all__ = [
    "Arm",
    "Baseline",
    "Comparison",
    "Custom",
    "Edit",
    "EditContext",
    "Evaluation",
    "Grader",
    "Look",
    "Mean",
    "Noise",
    "Noop",
    "Plan",
    "Problem",
    "ProblemSet",
    "Project",
    "Resid",
    "Run",
    "Self",
    "Shuffle",
    "Site",
    "Skip",
    "States",
    "Swap",
    "Thoughts",
    "Truncate",
    "Zero",
    "analyse",
    "collect_states",
    "collect_thoughts",
    "compare_runs",
    "decode_thoughts",
    "evaluate",
    "grader",
    "load_model",
    "load_problems",
    "load_records",
    "load_run",
    "load_states",
    "make_executor",
    "paired_accuracy",
    "read_foreign",
    "run",
    "run_study",
    "verify",
    "write_report",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # Imported here: it takes longer than the rest of this file.

        return version("thoughtgraft")
    if name not in _HOMES:
        # With both, Python says which name is close.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=import_module(__name__))
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
