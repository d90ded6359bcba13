"""thoughtgraft: causal experiments on the continuous thoughts of latent-reasoning language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thoughtgraft.analysis import analyse
    from thoughtgraft.engine.collect import collect_thoughts
    from thoughtgraft.engine.run import run
    from thoughtgraft.engine.verify import verify
    from thoughtgraft.interventions.arms import Arm
    from thoughtgraft.interventions.plan import Plan
    from thoughtgraft.models.load import load_model
    from thoughtgraft.problems import Problem, ProblemSet, load_problems
    from thoughtgraft.readouts.lens import decode_thoughts
    from thoughtgraft.records import Features, load_features, load_records
    from thoughtgraft.report import write_report
    from thoughtgraft.runs import Run, load_run
    from thoughtgraft.thoughts import Thoughts

# Loaded when first asked for, so that reading records never imports torch.
_HOMES = {
    "Arm": "interventions.plan",
    "Features": "records",
    "Plan": "interventions.plan",
    "Problem": "problems",
    "ProblemSet": "problems",
    "Resid": "interventions.site",
    "Run": "runs",
    "Thoughts": "thoughts",
    "analyse": "analysis",
    "collect_thoughts": "engine.collect",
    "decode_thoughts": "readouts.lens",
    "load_features": "records",
    "load_model": "models.load",
    "load_problems": "problems",
    "load_records": "records",
    "load_run": "runs",
    "run": "engine.run",
    "verify": "engine.verify",
    "write_report": "report",
}

__all__ = [
    "Arm",
    "Features",
    "Plan",
    "Problem",
    "ProblemSet",
    "Resid",
    "Run",
    "Thoughts",
    "analyse",
    "collect_thoughts",
    "decode_thoughts",
    "load_features",
    "load_model",
    "load_problems",
    "load_records",
    "load_run",
    "run",
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
