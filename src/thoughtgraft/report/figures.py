"""All figures of a report: computed, drawn and written, or replaced by the reason why not."""

from __future__ import annotations

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.chosen import chosen_problems
from thoughtgraft.report.displays.adoption import AdoptionPerSlot
from thoughtgraft.report.displays.base import Display, Skipped
from thoughtgraft.report.displays.distribution import SlotDistribution
from thoughtgraft.report.displays.dose import DoseResponse
from thoughtgraft.report.displays.heatmap import ProblemBySlot
from thoughtgraft.report.displays.impact import ImpactPerSlot
from thoughtgraft.report.displays.mediation import DirectIndirect
from thoughtgraft.report.displays.save import save
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


def make_figures(run: RunData, analysis: Analysis, foot: str) -> dict[str, Picture | Prose]:
    """Draw and write every figure of the run, by name."""
    return {display.name: save(display, run.path, foot) for display in displays(run, analysis)}
