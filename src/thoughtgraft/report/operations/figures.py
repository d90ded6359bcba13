"""All figures of an operations report, by target."""

from __future__ import annotations

from thoughtgraft.report.displays.base import Display, Skipped
from thoughtgraft.report.displays.components import ComponentClouds
from thoughtgraft.report.displays.confusion import Confusions
from thoughtgraft.report.displays.curve import LearningCurve
from thoughtgraft.report.displays.probe_map import ProbeMap
from thoughtgraft.report.displays.save import save
from thoughtgraft.report.displays.similarity import CellAlignment, SimilarityMaps
from thoughtgraft.report.document import Picture, Prose
from thoughtgraft.report.operations.data import OperationsData, TargetData


def displays(target: TargetData, alpha: float) -> dict[str, Display | Skipped]:
    """Every figure of one target, computed and not yet drawn, by its place in the report."""
    return {
        "map": ProbeMap.from_target(target, alpha),
        "confusion": Confusions.from_target(target),
        "curve": LearningCurve.from_target(target),
        "components": ComponentClouds.from_target(target),
        "similarity": SimilarityMaps.from_target(target, alpha),
        "cka": CellAlignment.from_target(target),
    }


def make_figures(data: OperationsData) -> dict[tuple[str, str], Picture | Prose]:
    """Draw and write every figure, by target and place."""
    alpha = float(data.summary["settings"]["alpha"])
    return {
        (target.name, place): save(display, data.path, data.foot)
        for target in data.targets
        for place, display in displays(target, alpha).items()
    }
