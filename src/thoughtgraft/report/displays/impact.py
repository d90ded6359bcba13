"""Figure: accuracy lost at each slot, swap beside the ablations, each with both its intervals and the margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thoughtgraft.analysis.estimate import OF_IMPACT
from thoughtgraft.analysis.result import Analysis
from thoughtgraft.analysis.verdicts import Verdict
from thoughtgraft.report.displays.base import Point, Skipped, too_small
from thoughtgraft.report.displays.style import (
    errorbars,
    interval_key,
    light_grid,
    look,
    margin_line,
    slot_ticks,
    zero_line,
)
from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import sample, sentence_list
from thoughtgraft.report.tables import edited, slot_order

TITLE = "Accuracy lost when a thought is replaced (percentage points)"
WIDTH = 0.62


@dataclass(frozen=True)
class ImpactPerSlot:
    """Impacts of every method run with recompute, by slot, `all` last.

    `still` are the places of effects that are 0 by construction, with their method.
    """

    labels: tuple[str, ...]
    series: tuple[tuple[str, tuple[Point, ...]], ...]
    still: tuple[tuple[float, str], ...]
    level: str
    margin_pp: float
    caption: str
    name: str = "impact"
    title: str = TITLE
    sharey: bool = False
    panels: int = 1
    size: tuple[float, float] = (8.0, 4.6)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> ImpactPerSlot | Skipped:
        """From the position table: single slots and all slots, recompute, the primary donor stratum."""
        rows = records_of(edited(analysis))
        if not rows:
            return Skipped(cls.name, TITLE, "The run has no edited arm whose later thoughts are recomputed.")
        labels = slot_order({row["slots"] for row in rows})
        methods = list(dict.fromkeys(row["method"] for row in rows))
        methods.sort(key=lambda m: (m != "swap", m))
        series, still = [], []
        ns: dict[str, list[str]] = {}
        for i, method in enumerate(methods):
            shift = 0.0 if len(methods) == 1 else WIDTH * (i / (len(methods) - 1) - 0.5)
            mine = [(labels.index(row["slots"]) + shift, row) for row in rows if row["method"] == method]
            still += [(x, method) for x, row in mine if row["verdict"] == Verdict.BY_CONSTRUCTION]
            shown = [(x, row) for x, row in mine if row["verdict"] != Verdict.BY_CONSTRUCTION]
            series.append((method, tuple(Point.of(x, row, "impact_pp") for x, row in shown)))
            sizes = {sample(r["n_hosts"], r["n_donors"], r["n_gen"]) for r in rows if r["method"] == method}
            ns.setdefault(sizes.pop() if len(sizes) == 1 else "sizes that differ by slot (see the table)", []).append(
                method
            )
        rule = analysis.decision.rule
        caption = (
            "Points: baseline accuracy minus accuracy after the edit, paired by problem. Thin: the "
            f"{rule.level} interval of each effect alone, clustered over hosts and donors (without donors over hosts). "
            f"Thick: the intervals of a method's single slots hold all together in {rule.level} of runs, those of all "
            "slots by themselves; verdicts are made of the thick ones, beside 0 and the margin (dotted, "
            f"{rule.margin_pp:g} pp). n per slot: "
            + "; ".join(f"{sentence_list(who)} {n}" for n, who in ns.items())
            + "."
            + (" Crosses at 0: by construction, whatever the model learned." if still else "")
            + too_small(rows, OF_IMPACT)
        )
        return cls(labels, tuple(series), tuple(still), rule.level, rule.margin_pp, caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw on one pair of axes."""
        zero_line(ax)
        light_grid(ax)
        for label, points in self.series:
            errorbars(ax, points, *look(label), label)
        for x, method in self.still:
            ax.plot([x], [0], "x", color=look(method)[0], markersize=5, zorder=4)
        interval_key(ax, self.level, "a method's slots")
        margin_line(ax, self.margin_pp)
        if "all" in self.labels and len(self.labels) > 1:
            ax.axvline(len(self.labels) - 1.5, color="#BBBBBB", linewidth=0.8)
        slot_ticks(ax, self.labels)
        ax.set_xlabel("edited thought")
        ax.set_ylabel("accuracy lost (pp)")
        ax.set_title(self.title)
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=3)
