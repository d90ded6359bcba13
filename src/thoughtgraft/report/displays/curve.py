"""Figure: the learning curve of the best cell beside that of the question's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thoughtgraft.report.displays.base import Point, Skipped
from thoughtgraft.report.displays.style import BLUE, ORANGE, errorbars, light_grid
from thoughtgraft.report.document import records_of
from thoughtgraft.report.operations.data import TargetData

LOOKS = {"linear": (BLUE, "o", "linear probe"), "text": (ORANGE, "s", "question's words")}
# Two points of one size stand side by side.
SHIFT = 0.008


@dataclass(frozen=True)
class LearningCurve:
    """Points of each series by number of training problems."""

    series: tuple[tuple[str, tuple[Point, ...]], ...]
    chance: float
    words: str
    caption: str
    name: str
    title: str
    panels: int = 1
    sharey: bool = False
    size: tuple[float, float] = (6.4, 4.2)

    @classmethod
    def from_target(cls, target: TargetData) -> LearningCurve | Skipped:
        """From the learning-curve table."""
        table, name = target.table("learning_curve"), f"learning_curve_{target.slug}"
        title = f"Learning curve of {target.name!r}"
        if not len(table):
            return Skipped(name, title, "There are too few problems to learn from fewer.")
        reach = SHIFT * float(table.n_train.max())
        shift = {"linear": -reach, "text": reach}
        series = tuple(
            (kind, tuple(_point(row, shift[kind]) for row in records_of(table[table.series == kind])))
            for kind in LOOKS
            if (table.series == kind).any()
        )
        row = records_of(table)[0]
        caption = (
            f"{target.score[1].capitalize()} on the same test rows by number of training problems, at {row['slot']}, "
            f"layer {row['layer']} (the cell of highest score, chosen on these data), with 95% corrected resampled t "
            "intervals; grey: a probe that knows nothing. A curve that still climbs at its end says that more problems "
            "would raise the score."
        )
        return cls(series, target.chance, target.score[1], caption, name, title)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw both series."""
        for kind, points in self.series:
            colour, marker, label = LOOKS[kind]
            ax.plot([p.x for p in points], [p.value for p in points], color=colour, linewidth=1, alpha=0.6)
            errorbars(ax, points, colour, marker, label)
        ax.axhline(self.chance, color="#7A7A7A", linewidth=1, linestyle="--")
        light_grid(ax)
        ax.set_xlabel("training problems")
        ax.set_ylabel(self.words)
        ax.legend(loc="best")
        ax.set_title(self.title)


def _point(row: dict[str, Any], shift: float) -> Point:
    return Point(row["n_train"] + shift, row["score"], row["ci_low"], row["ci_high"])
