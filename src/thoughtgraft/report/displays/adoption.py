"""Figure: how often a swap makes the host give the donor's answer, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.displays.base import Point, Skipped
from thoughtgraft.report.displays.style import BLUE, GREY, errorbars, light_grid, slot_ticks, zero_line
from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import sample
from thoughtgraft.report.tables import swaps

TITLE = "Adoption of the donor's answer (percent of eligible swaps)"


@dataclass(frozen=True)
class AdoptionPerSlot:
    """Left: rate and its null; right: excess = rate - null with its interval. All in percent (points)."""

    labels: tuple[str, ...]
    rate: tuple[Point, ...]
    null: tuple[float, ...]
    excess: tuple[Point, ...]
    caption: str
    name: str = "adoption"
    title: str = TITLE
    sharey: bool = False
    panels: int = 2
    size: tuple[float, float] = (8.6, 3.8)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> AdoptionPerSlot | Skipped:
        """From the position table's swaps."""
        rows = [row for row in records_of(swaps(analysis)) if row["adoption_rate"] == row["adoption_rate"]]
        if not rows:
            return Skipped(cls.name, TITLE, "No swap has a donor answer that differs from the host's own.")
        nan = float("nan")
        rate = tuple(Point(i, 100 * row["adoption_rate"], nan, nan) for i, row in enumerate(rows))
        names = ("adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high")
        excess = tuple(Point(i, *(100 * row[name] for name in names)) for i, row in enumerate(rows))
        n = sample(rows[0]["n_hosts"], rows[0]["n_donors"], rows[0]["n_gen"])
        caption = (
            "Left: share of eligible swaps whose answer is the donor's (dot), and the same share when donors are "
            "exchanged between hosts (dash): agreement by chance. Right: rate − null with its 95% t interval, "
            f"clustered over hosts and donors. n = {n} per slot, of which eligible: those whose donor answer parsed "
            "and differs from the host's clean answer and gold."
        )
        null = tuple(100 * row["adoption_null"] for row in rows)
        return cls(tuple(row["slots"] for row in rows), rate, null, excess, caption)

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
            ax.legend(loc="best")
        else:
            zero_line(ax)
            errorbars(ax, self.excess, BLUE, "o", "excess")
            ax.set_ylabel("excess (percentage points)")
            ax.set_title("excess over the null, 95% interval")
        slot_ticks(ax, self.labels)
        ax.set_xlabel("swapped thought")
