"""Figure: what each protocol reports at each slot, for donors' thoughts and for a problem's own put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from thoughtgraft.analysis.verdicts import Verdict
from thoughtgraft.report.displays.base import Point
from thoughtgraft.report.displays.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    errorbars,
    interval_key,
    light_grid,
    shared_legend,
    slot_ticks,
    zero_line,
)
from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import sample
from thoughtgraft.report.tables import slot_order

WIDTH = 0.5
PANELS = (
    ("swap", "a donor's thought put in", "accuracy lost (pp)"),
    ("self", "the problem's own put back (truth: 0)", "change of the answer (KL, nats)"),
)
LOOKS = ((BLUE, "o"), (ORANGE, "s"), (VERMILLION, "^"), (PURPLE, "D"), (GREEN, "v"))
INVALID_MARKER = "X"


@dataclass(frozen=True)
class DriftPerSlot:
    """Left: impacts of swaps; right: how far a self-swap moves the answer. One series per protocol.

    `dead` are the points of slots that nothing reads, by panel.
    """

    labels: tuple[str, ...]
    series: tuple[tuple[tuple[str, str, str, tuple[Point, ...]], ...], ...]
    dead: tuple[tuple[tuple[float, float], ...], ...]
    caption: str
    name: str = "drift"
    title: str = "What each protocol reports, thought by thought"
    sharey: bool = False
    panels: int = 2
    size: tuple[float, float] = (10.0, 4.4)

    @classmethod
    def from_table(cls, table: pd.DataFrame, invalid: Mapping[str, Sequence[str]]) -> DriftPerSlot:
        """From a drift table and, for each protocol whose certificate or gates failed, what failed."""
        names = list(dict.fromkeys(table.protocol))
        edited = table[table.method != "baseline"]
        labels = slot_order(set(edited.slots))
        series, dead = [], []
        for method, *_ in PANELS:
            lines, still = [], []
            for i, name in enumerate(names):
                shift = 0.0 if len(names) == 1 else WIDTH * (i / (len(names) - 1) - 0.5)
                points = []
                for row in records_of(edited[(edited.protocol == name) & (edited.method == method)]):
                    x = labels.index(row["slots"]) + shift
                    still += [(x, 0.0)] if row["verdict"] == Verdict.BY_CONSTRUCTION else []
                    swapped = method == "swap"
                    points.append(Point.of(x, row, *(("impact_pp", "") if swapped else ("kl", "kl_"))))
                colour, marker = LOOKS[i % len(LOOKS)]
                label = f"{name} (INVALID)" if name in invalid else name
                lines.append((label, colour, INVALID_MARKER if name in invalid else marker, tuple(points)))
            series.append(tuple(lines))
            dead.append(tuple(still))
        sizes = {sample(r["n_hosts"], r["n_donors"], r["n_gen"]) for r in records_of(table[table.method == "swap"])}
        caption = (
            "Left: baseline accuracy minus accuracy after the edit, each against its own protocol's baseline, paired "
            "by problem. Right: divergence of the first token of the answer's number from the unedited run. Thin: the "
            "95% interval of each alone, clustered over hosts and donors (left) or hosts (right); thick: those of a "
            "protocol's single slots hold all together in 95% of runs, that of all slots by itself. Fat crosses: the "
            "protocol's certificate or a gate failed, so its figures are not effects of the thoughts they are named "
            "after. Hollow: nothing varies, so there is no interval. Thin cross, 'dead': nothing reads the slot, so "
            f"that the effect is 0 by construction. n per slot, left: {' or '.join(sorted(sizes))}."
        )
        return cls(labels, tuple(series), tuple(dead), caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one panel."""
        ax.margins(y=0.08)
        zero_line(ax)
        light_grid(ax)
        for label, colour, marker, points in self.series[panel]:
            errorbars(ax, points, colour, marker, label)
        for x, y in self.dead[panel]:
            ax.plot([x], [y], "x", color=GREY, markersize=5, zorder=4)
            ax.annotate("dead", (x, y), (0, -12), textcoords="offset points", ha="center", fontsize=7, color=GREY)
        if "all" in self.labels and len(self.labels) > 1:
            ax.axvline(len(self.labels) - 1.5, color="#BBBBBB", linewidth=0.8)
        slot_ticks(ax, self.labels)
        ax.set_xlabel("thought that the protocol says it replaces")
        ax.set_title(PANELS[panel][1])
        ax.set_ylabel(PANELS[panel][2])
        if panel == 0:
            interval_key(ax, "95%", "a protocol's slots")
        else:
            shared_legend(ax)
