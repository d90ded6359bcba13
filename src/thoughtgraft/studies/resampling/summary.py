"""What the terminal says of an analysed resampling run: its main effects, or why none is stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from thoughtgraft.report.terminal import narrow_table, percent, signed


def run_summary(run: Path) -> Group:
    """What an analysed run found: its main figures, or why no effect is stated; and whether it is unfinished."""
    from thoughtgraft.effects.gates import VERSION
    from thoughtgraft.records.store import RunStore

    lines: list[RenderableType] = []
    store = RunStore.open(run)
    decision, planned = store.read_json("analysis/decision.json"), store.spec.n_cells
    if decision["missing"]:
        lines.append(
            f"[bold yellow]UNFINISHED[/bold yellow]: {planned - decision['missing']:,} of {planned:,} generations; "
            "run the run's command again to continue"
        )
    gates = decision["gates"]
    # Runs that were judged by an earlier rule have no such gate.
    lines += [escape(f"{gate['detail']}. They are in no estimate.") for gate in gates if counts_failures(gate)]
    if failed := [escape(f"{gate['name']} ({gate['detail']})") for gate in gates if gate["outcome"] == "fail"]:
        lines.append(
            f"[bold red]INVALID[/bold red]: failed gates: {'; '.join(failed)}. No effect is stated; "
            "`thoughtgraft report --force` shows the figures all the same"
        )
        return Group(*lines)
    if (old := decision["rule"]["version"]) != VERSION:
        lines.append(
            f"[bold yellow]judged by rule {old}[/bold yellow]: its words, and what was wrong with them, are in the "
            f"report; `thoughtgraft analyze --rule {VERSION}` judges the records anew"
        )
    return Group(*lines, position_summary(run))


def counts_failures(gate: Mapping[str, Any]) -> bool:
    """Whether a gate says that cells failed."""
    return gate["name"] == "failed" and bool(gate["figure"])


def position_summary(run: Path) -> Group:
    """The main effects of an analysed run: single slots and all, random donors, later thoughts recomputed."""
    from thoughtgraft.effects.gates import RULE
    from thoughtgraft.effects.positions import OF_EXCESS, OF_IMPACT
    from thoughtgraft.files import read_json
    from thoughtgraft.records.schema import ArmKey
    from thoughtgraft.records.shards import read_effects
    from thoughtgraft.report.document import records_of
    from thoughtgraft.stats.intervals import TOO_SMALL
    from thoughtgraft.studies.resampling.figures import is_check

    positions = read_effects(run / "analysis" / "positions.parquet")
    rule = read_json(run / "analysis" / "decision.json")["rule"]
    margin_pp, level = 100 * rule.get("margin", RULE.margin), f"{100 * (1 - rule.get('alpha', RULE.alpha)):g}%"
    arms = ArmKey.of_table(positions)
    widest = max((len(arm.slots) for arm in arms), default=0)
    at_random = any(arm.donors == "random" for arm in arms)
    main = [
        not is_check(arm.method)
        and arm.span(widest) in ("one", "all")
        and (arm.main if at_random else arm.after == "recompute")
        for arm in arms
    ]
    title = f"impact: accuracy lost against the clean run, pp\n{level} together: for all of an edit's slots at once"
    impact = EffectTable.named(title, "right", level, margin_pp)
    adoption = EffectTable.named("adoption: the donor's answer given, beyond chance, pp", "adopted", level, margin_pp)
    for row in records_of(positions[main]):
        impact.add(row, "acc", "impact_pp", "", 1, OF_IMPACT)
        if row["donor_stratum"]:
            adoption.add(row, "adoption_rate", "adoption_excess", "adoption_excess_", 100, OF_EXCESS)
    shown: list[RenderableType] = [made.table for made in (impact, adoption) if made.table.rows]
    if impact.small or adoption.small:
        shown.append(f"* {TOO_SMALL}")
    return Group(*shown)


@dataclass
class EffectTable:
    """A table of effects in the making, each with both its intervals and its verdict.

    `margin_pp` is the verdicts'; `small` says whether one of them could not be given in so small a design.
    """

    table: Table
    margin_pp: float
    method: str = ""
    small: bool = False

    @classmethod
    def named(cls, title: str, share: str, level: str, margin_pp: float) -> Self:
        """An empty one.

        Args:
            title: Its title.
            share: What the column of a rate is called.
            level: The level of the intervals, "95%".
            margin_pp: The margin.
        """
        made = narrow_table(title)
        made.padding = (0, 0)  # the widest words and intervals then just fit
        left = ("edit", "slot", "verdict")
        for name in ("edit", "slot", "n", share, "effect", f"{level} alone", f"{level} together", "verdict"):
            made.add_column(name, justify="left" if name in left else "right", no_wrap=True)
        return cls(made, margin_pp)

    def add(self, row: Mapping[str, Any], share: str, effect: str, ends: str, scale: float, about: str) -> None:
        """Add a row.

        Args:
            row: Of the position table.
            share: Its column of a rate.
            effect: Its column of an effect.
            ends: What the columns of the effect's intervals and verdict begin with.
            scale: Makes percentage points of effect and ends.
            about: What its notes on this effect begin with.
        """
        from thoughtgraft.report.document import UNDEFINED, interval, judged
        from thoughtgraft.stats.intervals import TOO_SMALL

        if self.method not in ("", row["method"]):
            self.table.add_section()
        self.method = row["method"]
        low, high, sim_low, sim_high = (scale * row[f"{ends}{x}"] for x in ("ci_low", "ci_high", "sim_low", "sim_high"))
        intervals = interval(low, high), judged(sim_low, sim_high, self.margin_pp)
        verdict = str(row.get(f"{ends}verdict", ""))
        if verdict and about + TOO_SMALL in row["note"]:
            self.small, verdict = True, f"{verdict} *"
        self.table.add_row(
            row["method"],
            row["label"],
            f"{row['n_gen']:,}",
            percent(row[share]),
            signed(scale * row[effect]),
            *("" if text == UNDEFINED else text for text in intervals),
            verdict,
        )
