"""Figure: accuracy lost at each slot, swap beside the ablations, with 95% intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thoughtgraft.analysis.result import Analysis
from thoughtgraft.report.displays.base import Point, Skipped
from thoughtgraft.report.displays.style import errorbars, light_grid, look, slot_ticks, zero_line
from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import sample, sentence_list
from thoughtgraft.report.tables import edited, slot_order

TITLE = "Accuracy lost when a thought is replaced (percentage points)"
WIDTH = 0.62


@dataclass(frozen=True)
class ImpactPerSlot:
    """Impacts of every method run with recompute, by slot, `all` last."""

    labels: tuple[str, ...]
    series: tuple[tuple[str, tuple[Point, ...]], ...]
    caption: str
    name: str = "impact"
    title: str = TITLE
    sharey: bool = False
    panels: int = 1
    size: tuple[float, float] = (8.0, 4.2)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> ImpactPerSlot | Skipped:
        """From the position table: single slots and all slots, recompute, the primary donor stratum."""
        rows = records_of(edited(analysis))
        if not rows:
            return Skipped(cls.name, TITLE, "The run has no edited arm whose later thoughts are recomputed.")
        labels = slot_order({row["slots"] for row in rows})
        methods = list(dict.fromkeys(row["method"] for row in rows))
        methods.sort(key=lambda m: (m != "swap", m))
        series = []
        ns: dict[str, list[str]] = {}
        for i, method in enumerate(methods):
            shift = 0.0 if len(methods) == 1 else WIDTH * (i / (len(methods) - 1) - 0.5)
            points = tuple(
                Point(
                    labels.index(row["slots"]) + shift,
                    row["impact_pp"],
                    row["ci_low"],
                    row["ci_high"],
                    row["zero_bound_pp"],
                )
                for row in rows
                if row["method"] == method
            )
            series.append((method, points))
            sizes = {sample(r["n_hosts"], r["n_donors"], r["n_gen"]) for r in rows if r["method"] == method}
            ns.setdefault(sizes.pop() if len(sizes) == 1 else "sizes that differ by slot (see the table)", []).append(
                method
            )
        caption = (
            "Points: baseline accuracy minus accuracy after the edit, paired by problem; bars: 95% t interval, "
            "clustered over hosts and donors (over hosts alone for methods without donors). Hollow: every difference "
            "is 0, the interval is undefined, and the dotted line reaches to the exact 95% upper bound. n per slot: "
            + "; ".join(f"{sentence_list(who)} {n}" for n, who in ns.items())
            + "."
        )
        return cls(labels, tuple(series), caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw on one pair of axes."""
        zero_line(ax)
        light_grid(ax)
        for label, points in self.series:
            errorbars(ax, points, *look(label), label)
        if "all" in self.labels and len(self.labels) > 1:
            ax.axvline(len(self.labels) - 1.5, color="#BBBBBB", linewidth=0.8)
        slot_ticks(ax, self.labels)
        ax.set_xlabel("edited thought")
        ax.set_ylabel("accuracy lost (pp)")
        ax.set_title(self.title)
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=6)
