"""Figures of slots: impact, adoption, dose, mediation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.edits.edit import change_of
from thoughtgraft.edits.known import Swap
from thoughtgraft.edits.site import slots_label
from thoughtgraft.effects.positions import OF_EXCESS, OF_IMPACT
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.report.document import plural, records_of, sample, sentence_list
from thoughtgraft.report.figures.kit import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    THIN,
    Point,
    Skipped,
    errorbars,
    interval_key,
    light_grid,
    looks,
    margin_line,
    shared_legend,
    slot_ticks,
    too_small,
    zero_line,
)
from thoughtgraft.stats.verdicts import Verdict
from thoughtgraft.studies.resampling.analysis import Analysis


def is_check(method: str) -> bool:
    """Whether an arm edits nothing by intent: it is a check, and has no effect to show."""
    return change_of(method).checks


def slot_order(slots: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Sets of slots, each once: single slots first, all of them last."""
    return tuple(sorted(set(slots), key=lambda one: (len(one), one)))


def slot_names(slots: Iterable[tuple[int, ...]], n_slots: int) -> tuple[str, ...]:
    """Their names, for an axis."""
    return tuple(slots_label(one, n_slots) for one in slots)


def labels_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The labels of a table's rows, each once, in the order of their slots, single ones first."""
    rows = sorted(zip(table.slots, table.label, strict=True), key=lambda row: (len(row[0]), row))
    return tuple(dict.fromkeys(label for _, label in rows))


def edited(analysis: Analysis, *, stratum: str | None = None) -> pd.DataFrame:
    """The main effects: single slots and all, recompute, the primary donors; swap first, then by method and slot."""
    table, n_slots = analysis.positions, analysis.frame.n_slots
    primary = analysis.frame.primary_stratum() if stratum is None else stratum
    kept = table[
        (table.downstream == "recompute")
        & table.donor_stratum.isin(["", primary])
        & ~table.method.map(is_check).astype(bool)
        & np.array([arm.span(n_slots) in ("one", "all") for arm in ArmKey.of_table(table)], dtype=bool)
        & (table.n_gen > 0)
    ]
    arms = ArmKey.of_table(kept)
    return kept.iloc[sorted(range(len(arms)), key=lambda i: (arms[i].method != Swap.name, arms[i]))]


def swaps(analysis: Analysis) -> pd.DataFrame:
    """The swap rows of `edited`."""
    table = edited(analysis)
    return table[table.method == Swap.name]


def doses(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of the dose table that make a curve: effects, recomputed, the primary donors, a dose between one and all."""
    primary, last = analysis.frame.primary_stratum(), analysis.frame.n_slots
    rows = [
        row
        for row in records_of(analysis.dose)
        if row["downstream"] == "recompute" and row["donor_stratum"] in ("", primary) and not is_check(row["method"])
    ]
    between = {(row["series"], edit_of(row)) for row in rows if 1 < row["n_slots"] < last}
    return [row for row in rows if (row["series"], edit_of(row)) in between]


def edit_of(row: Mapping[str, Any]) -> str:
    """The name of a row's edit, with where it acts if not on what slots are fed: one line of a figure."""
    return ArmKey.of_row(row).family.name


def mediated(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of the mediation table for single slots and all, the primary donors; by method, freeze and slot."""
    primary = analysis.frame.primary_stratum()
    rows = [
        row
        for row in records_of(analysis.mediation)
        if row["donor_stratum"] in ("", primary) and ArmKey.of_row(row).span(analysis.frame.n_slots) in ("one", "all")
    ]
    return sorted(rows, key=lambda row: (row["method"] != Swap.name, row["method"], row["freeze"], ArmKey.of_row(row)))


def looks_of(analysis: Analysis) -> dict[str, tuple[str, str]]:
    """Colour and marker of each edit of a run, by the name of its line; the same in every figure of the run."""
    return looks({key.family.name: key.method for key in analysis.frame.arms if key.slots and not is_check(key.method)})


def swap_first(names: Iterable[str]) -> list[str]:
    """Names of edits, each once, in order, but swap first."""
    return sorted(set(names), key=lambda name: (name != Swap.name, name))


def methods_run(analysis: Analysis) -> list[str]:
    """Methods with at least one edited arm, swap first, checks left out."""
    found = {key.method for key, cells in analysis.frame.arms.items() if key.slots and len(cells)}
    return swap_first(method for method in found if not is_check(method))


IMPACT_TITLE = "Accuracy lost when a thought is replaced (percentage points)"
WIDTH = 0.62


@dataclass(frozen=True)
class ImpactPerSlot:
    """Impacts of every method run with recompute, by slot, `all` last.

    `whole` says whether the last place is all slots; `looks` are colour and marker of each series by its name; `still`
    are the places of effects that are 0 by construction, with their series.
    """

    labels: tuple[str, ...]
    whole: bool
    looks: Mapping[str, tuple[str, str]]
    series: tuple[tuple[str, tuple[Point, ...]], ...]
    still: tuple[tuple[float, str], ...]
    level: str
    margin_pp: float
    caption: str
    name: str = "impact"
    title: str = IMPACT_TITLE
    sharey: bool = False
    panels: int = 1
    size: tuple[float, float] = (8.0, 4.6)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> ImpactPerSlot | Skipped:
        """From the position table: single slots and all slots, recompute, the primary donor stratum."""
        rows = records_of(edited(analysis))
        if not rows:
            return Skipped(cls.name, IMPACT_TITLE, "The run has no edited arm whose later thoughts are recomputed.")
        places = slot_order(row["slots"] for row in rows)
        edits = list(dict.fromkeys(edit_of(row) for row in rows))
        series, still = [], []
        ns: dict[str, list[str]] = {}
        for i, edit in enumerate(edits):
            shift = 0.0 if len(edits) == 1 else WIDTH * (i / (len(edits) - 1) - 0.5)
            mine = [(places.index(row["slots"]) + shift, row) for row in rows if edit_of(row) == edit]
            still += [(x, edit) for x, row in mine if row["verdict"] == Verdict.BY_CONSTRUCTION]
            shown = [(x, row) for x, row in mine if row["verdict"] != Verdict.BY_CONSTRUCTION]
            series.append((edit, tuple(Point.of(x, row, "impact_pp") for x, row in shown)))
            sizes = {sample(row["n_hosts"], row["n_donors"], row["n_gen"]) for _, row in mine}
            n = sizes.pop() if len(sizes) == 1 else "sizes that differ by slot (see the table)"
            ns.setdefault(n, []).append(edit)
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
        where = slot_names(places, analysis.frame.n_slots), len(places[-1]) > 1
        return cls(*where, looks_of(analysis), tuple(series), tuple(still), rule.level, rule.margin_pp, caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw on one pair of axes."""
        zero_line(ax)
        light_grid(ax)
        for label, points in self.series:
            errorbars(ax, points, *self.looks[label], label)
        for x, label in self.still:
            ax.plot([x], [0], "x", color=self.looks[label][0], markersize=5, zorder=4)
        interval_key(ax, self.level, "a method's slots")
        margin_line(ax, self.margin_pp)
        slot_ticks(ax, self.labels, apart=self.whole)
        ax.set_xlabel("edited thought")
        ax.set_ylabel("accuracy lost (pp)")
        ax.set_title(self.title)
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=3)


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
        labels = tuple(row["label"] for row in rows)
        return cls(labels, rate, null, excess, rule.level, rule.margin_pp, caption)

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


DOSE_TITLE = "Accuracy against the number of thoughts edited (percent)"
SERIES = {"from first": "from CT0 on", "to last": "back from the last"}


@dataclass(frozen=True)
class DoseResponse:
    """Panels: edits from the first slot on, and back from the last; one line per edit, `looks` by its name."""

    looks: Mapping[str, tuple[str, str]]
    series: tuple[tuple[str, tuple[tuple[str, tuple[Point, ...]], ...]], ...]
    baseline: float
    most: int
    caption: str
    name: str = "dose"
    title: str = DOSE_TITLE
    sharey: bool = True

    @property
    def panels(self) -> int:
        """One for each direction."""
        return len(self.series)

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return (4.2 * self.panels + 0.8, 3.8)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> DoseResponse | Skipped:
        """From the rows of the dose table that make a curve."""
        rows = doses(analysis)
        if not rows:
            return Skipped(cls.name, DOSE_TITLE, "It needs edits of several slots at once (0..k or k..last).")
        base = rows[0]["acc"] + rows[0]["impact_pp"] / 100
        panels = []
        for name in dict.fromkeys(row["series"] for row in rows):
            edits = swap_first(edit_of(row) for row in rows if row["series"] == name)
            lines = []
            for i, edit in enumerate(edits):
                shift = 0.09 * (i - (len(edits) - 1) / 2)
                chosen = [row for row in rows if row["series"] == name and edit_of(row) == edit]
                points = tuple(
                    Point(
                        row["n_slots"] + shift,
                        100 * row["acc"],
                        max(100 * base - row["ci_high"], 0.0),
                        min(100 * base - row["ci_low"], 100.0),
                    )
                    for row in chosen
                )
                lines.append((edit, points))
            panels.append((name, tuple(lines)))
        ns = {row["n_hosts"] for row in rows}
        caption = (
            "Accuracy after editing the first so many thoughts, or the last so many; 0 thoughts edited is the clean "
            f"run. Thin bars: the {analysis.decision.rule.level} interval of each paired loss alone, clustered over "
            "hosts and donors and not adjusted for several doses, drawn from the clean accuracy down. n = "
            f"{plural(max(ns), 'host')}."
        )
        return cls(looks_of(analysis), tuple(panels), 100 * base, max(row["n_slots"] for row in rows), caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one direction."""
        name, lines = self.series[panel]
        light_grid(ax)
        ax.axhline(self.baseline, color="#555555", linewidth=0.9, linestyle="--", zorder=1)
        for method, points in lines:
            colour, marker = self.looks[method]
            chain = [Point(0, self.baseline), *points]
            for a, b in pairwise(chain):
                # A dose that was not run leaves a gap: nothing is drawn across it.
                if round(b.x) - round(a.x) == 1:
                    ax.plot([a.x, b.x], [a.value, b.value], color=colour, linewidth=1, alpha=0.7, zorder=2)
            errorbars(ax, points, colour, marker, method)
        ax.set_ylim(min(0, *(p.low for _, ps in lines for p in ps if p.low == p.low), 0), 103)
        ax.set_xticks(range(self.most + 1))
        ax.set_xlabel(f"thoughts edited, {SERIES[name]}")
        ax.set_title(SERIES[name])
        if panel == 0:
            ax.set_ylabel("accuracy (%)")
            ax.legend(loc="best")


MEDIATION_TITLE = "Total, direct and indirect effect of a swap (percentage points)"
EFFECTS = (("total", GREY, ""), ("direct", BLUE, "///"), ("indirect", ORANGE, "..."))


@dataclass(frozen=True)
class DirectIndirect:
    """One panel per freeze: bars of the three effects for each slot."""

    freezes: tuple[str, ...]
    labels: tuple[str, ...]
    bars: tuple[dict[str, tuple[Point, ...]], ...]
    caption: str
    name: str = "mediation"
    title: str = MEDIATION_TITLE
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
        rows = [row for row in mediated(analysis) if row["method"] == Swap.name]
        if not rows:
            return Skipped(
                cls.name,
                MEDIATION_TITLE,
                "It needs swaps with freeze_input or freeze_kv, which this run does not have.",
            )
        places = slot_order(row["slots"] for row in rows)
        freezes = tuple(sorted({row["freeze"] for row in rows}))
        bars = tuple(
            {
                name: tuple(
                    Point(
                        places.index(row["slots"]) + 0.27 * (i - 1),
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
        return cls(freezes, slot_names(places, analysis.frame.n_slots), bars, caption)

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
