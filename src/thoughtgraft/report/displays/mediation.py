"""Figure: total effect of a swap, the part that is direct, and the part that goes through later thoughts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.displays.base import Point, Skipped
from thoughtgraft.report.displays.style import BLUE, GREY, INK, ORANGE, THIN, light_grid, slot_ticks, zero_line
from thoughtgraft.report.formats import sample
from thoughtgraft.report.tables import mediated, slot_order

TITLE = "Total, direct and indirect effect of a swap (percentage points)"
EFFECTS = (("total", GREY, ""), ("direct", BLUE, "///"), ("indirect", ORANGE, "..."))


@dataclass(frozen=True)
class DirectIndirect:
    """One panel per freeze: bars of the three effects for each slot."""

    freezes: tuple[str, ...]
    labels: tuple[str, ...]
    bars: tuple[dict[str, tuple[Point, ...]], ...]
    caption: str
    name: str = "mediation"
    title: str = TITLE
    sharey: bool = True

    @property
    def panels(self) -> int:
        """One for each freeze."""
        return len(self.freezes)

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return (8.6 if self.panels > 1 else 7.0, 4.0)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> DirectIndirect | Skipped:
        """From the mediation table: swaps of the primary stratum, single slots and all."""
        rows = [row for row in mediated(analysis) if row["method"] == "swap"]
        if not rows:
            return Skipped(
                cls.name, TITLE, "It needs swaps with freeze_input or freeze_kv, which this run does not have."
            )
        labels = slot_order({row["slots"] for row in rows})
        freezes = tuple(sorted({row["freeze"] for row in rows}))
        bars = tuple(
            {
                name: tuple(
                    Point(
                        labels.index(row["slots"]) + 0.27 * (i - 1),
                        row[f"{name}_pp"],
                        row[f"{name}_low"],
                        row[f"{name}_high"],
                    )
                    for row in rows
                    if row["freeze"] == freeze
                )
                for i, (name, _, _) in enumerate(EFFECTS)
            }
            for freeze in freezes
        )
        n = sample(rows[0]["n_hosts"], rows[0]["n_donors"], rows[0]["n_pairs"])
        caption = (
            "Total: later thoughts recomputed. Direct: later thoughts held at the host's clean ones (freeze_input: "
            "their input vectors; freeze_kv: their keys and values too). Indirect = total − direct on the same "
            f"pairs. Thin lines: the {analysis.decision.rule.level} interval of each effect alone, clustered over "
            f"hosts and donors and not adjusted for several slots; n = {n} per slot. Where no slot follows, indirect "
            "is 0 by construction and has no interval."
        )
        return cls(freezes, labels, bars, caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one freeze's panel."""
        zero_line(ax)
        light_grid(ax)
        for name, colour, hatch in EFFECTS:
            points = self.bars[panel][name]
            ax.bar(
                [p.x for p in points], [p.value for p in points], width=0.25, color=colour, alpha=0.6, hatch=hatch,
                edgecolor="white", linewidth=0.5, label=name, zorder=2,
            )  # fmt: skip
            for p in points:
                ax.plot([p.x] * 2, [p.low, p.high], color=INK, **THIN)
        slot_ticks(ax, self.labels)
        ax.set_xlabel("swapped thought")
        ax.set_title(f"later thoughts frozen by {self.freezes[panel]}", fontsize=9)
        if panel == 0:
            ax.set_ylabel("accuracy lost (pp)")
            ax.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3)
