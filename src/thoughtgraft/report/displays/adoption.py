"""Figure: how often a swap makes the host give the donor's answer, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thoughtgraft.analysis.estimate import OF_EXCESS
from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.displays.base import Point, Skipped, too_small
from thoughtgraft.report.displays.style import (
    BLUE,
    GREY,
    errorbars,
    interval_key,
    light_grid,
    margin_line,
    shared_legend,
    slot_ticks,
    zero_line,
)
from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import sample
from thoughtgraft.report.tables import swaps

TITLE = "Adoption of the donor's answer (percent of eligible swaps)"


@dataclass(frozen=True)
class AdoptionPerSlot:
    """Left: rate and its null; right: excess = rate - null with both its intervals. All in percent (points)."""

    labels: tuple[str, ...]
    rate: tuple[Point, ...]
    null: tuple[float, ...]
    excess: tuple[Point, ...]
    level: str
    margin_pp: float
    caption: str
    name: str = "adoption"
    title: str = TITLE
    sharey: bool = False
    panels: int = 2
    size: tuple[float, float] = (8.6, 4.1)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> AdoptionPerSlot | Skipped:
        """From the position table's swaps."""
        rows = [row for row in records_of(swaps(analysis)) if row["adoption_rate"] == row["adoption_rate"]]
        if not rows:
            return Skipped(cls.name, TITLE, "No swap has a donor answer that differs from the host's own.")
        rule = analysis.decision.rule
        rate = tuple(Point(i, 100 * row["adoption_rate"]) for i, row in enumerate(rows))
        excess = tuple(Point.of(i, row, "adoption_excess", "adoption_excess_", 100) for i, row in enumerate(rows))
        n = sample(rows[0]["n_hosts"], rows[0]["n_donors"], rows[0]["n_gen"])
        caption = (
            "Left: share of eligible swaps whose answer is the donor's (dot), and the same share when donors are "
            f"exchanged between hosts (dash): agreement by chance. Right: rate − null; thin: its {rule.level} "
            "interval alone, clustered over hosts and donors; thick: those of the single slots hold all together in "
            f"{rule.level} of runs, that of all slots by itself; dotted: the margin, {rule.margin_pp:g} pp. n = {n} "
            "per slot, of which eligible: those whose donor answer parsed and differs from the host's clean answer "
            f"and gold.{too_small(rows, OF_EXCESS)}"
        )
        null = tuple(100 * row["adoption_null"] for row in rows)
        return cls(tuple(row["slots"] for row in rows), rate, null, excess, rule.level, rule.margin_pp, caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw rate and null (0) or excess (1)."""
        light_grid(ax)
        if panel == 0:
            ax.plot([p.x for p in self.rate], [p.value for p in self.rate], "o", color=BLUE, label="rate", zorder=3)
            for i, null in enumerate(self.null):
                name = "null (donors exchanged)" if i == 0 else None
                ax.plot([i - 0.28, i + 0.28], [null] * 2, color=GREY, linewidth=2, label=name, zorder=2)
            ax.set_ylim(bottom=0)
            ax.set_ylabel("donor's answer given (%)")
            ax.set_title("rate and null")
        else:
            zero_line(ax)
            errorbars(ax, self.excess, BLUE, "o", "excess")
            ax.set_ylabel("excess (percentage points)")
            ax.set_title("excess over the null")
            interval_key(ax, self.level, "the slots")
            margin_line(ax, self.margin_pp)
            shared_legend(ax)
        slot_ticks(ax, self.labels)
        ax.set_xlabel("swapped thought")
