"""All figures of a report: computed, drawn and written, or replaced by the reason why not."""

from __future__ import annotations

from functools import partial
from typing import Any

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.arguments import choice
from thoughtgraft.errors import AnalysisError
from thoughtgraft.report.chosen import chosen_problems
from thoughtgraft.report.context import Context
from thoughtgraft.report.displays.adoption import AdoptionPerSlot
from thoughtgraft.report.displays.base import Display, Skipped
from thoughtgraft.report.displays.distribution import SlotDistribution
from thoughtgraft.report.displays.dose import DoseResponse
from thoughtgraft.report.displays.heatmap import ProblemBySlot
from thoughtgraft.report.displays.impact import ImpactPerSlot
from thoughtgraft.report.displays.mediation import DirectIndirect
from thoughtgraft.report.displays.save import draw, encode, save
from thoughtgraft.report.displays.scatter import SwapAgainstAblation
from thoughtgraft.report.displays.thoughts import DecodedThoughts
from thoughtgraft.report.document import Picture, Prose
from thoughtgraft.report.run import RunData


def displays(run: RunData, analysis: Analysis) -> list[Display | Skipped]:
    """Every figure of the study, computed and not yet drawn."""
    return [
        ImpactPerSlot.from_analysis(analysis),
        SwapAgainstAblation.from_analysis(analysis),
        DirectIndirect.from_analysis(analysis),
        AdoptionPerSlot.from_analysis(analysis),
        DoseResponse.from_analysis(analysis),
        ProblemBySlot.from_analysis(analysis),
        SlotDistribution.from_analysis(analysis),
        DecodedThoughts.from_run(run, chosen_problems(analysis)),
    ]


def draw_figure(context: Context, name: str) -> Any:
    """One figure of the run as a matplotlib Figure, with the foot line that says which run it shows.

    Raises:
        AnalysisError: There is no figure of this name, this run cannot have it, or it may not state effects.
    """
    if context.refused:
        raise AnalysisError(
            "a gate failed, so this run states no effect", got="; ".join(context.broken), fix="force=True shows it"
        )
    found = {display.name: display for display in displays(context.run, context.analysis)}
    display = found[choice(name, "figure", found, AnalysisError)]
    if isinstance(display, Skipped):
        raise AnalysisError(f"this run cannot have the figure {name!r}: {display.reason}")
    figure = draw(display, context.foot)
    figure._repr_png_ = partial(encode, figure, "png")  # so that a notebook shows it, whatever its backend
    return figure


def make_figures(run: RunData, analysis: Analysis, foot: str) -> dict[str, Picture | Prose]:
    """Draw and write every figure of the run, by name."""
    return {display.name: save(display, run.path, foot) for display in displays(run, analysis)}
