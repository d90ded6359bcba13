"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from thoughtgraft.records.status import Status


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


def narrow_table(title: str) -> Table:
    """A table of figures that wastes no column: 80 hold one row in one line."""
    return Table(title=title, title_style="dim", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def position_summary(run: Path) -> Group:
    """The main effects of an analysed run: single slots and all, random donors, later thoughts recomputed."""
    from thoughtgraft.effects.gates import RULE
    from thoughtgraft.effects.positions import OF_EXCESS, OF_IMPACT
    from thoughtgraft.files import read_json
    from thoughtgraft.records.shards import read_frame
    from thoughtgraft.report.document import records_of
    from thoughtgraft.stats.intervals import TOO_SMALL
    from thoughtgraft.studies.resampling.figures import CHECKS

    positions = read_frame(run / "analysis" / "positions.parquet", fix="thoughtgraft analyze")
    rule = read_json(run / "analysis" / "decision.json")["rule"]
    margin_pp, level = 100 * rule.get("margin", RULE.margin), f"{100 * (1 - rule.get('alpha', RULE.alpha)):g}%"
    main = (positions["slots"] == "all") | positions["slots"].astype(str).str.fullmatch(r"CT\d+")
    main &= (positions["downstream"] == "recompute") & ~positions["method"].isin(CHECKS)
    strata = positions["donor_stratum"]
    if "random" in set(strata):
        main &= strata.isin(["", "random"]) | strata.isna()
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
            row["slots"],
            f"{row['n_gen']:,}",
            percent(row[share]),
            signed(scale * row[effect]),
            *("" if text == UNDEFINED else text for text in intervals),
            verdict,
        )


def claims_summary(claims: pd.DataFrame) -> Table:
    """Where a label can be read beyond the question's words: one row per position."""
    from thoughtgraft.report.document import judged

    table = narrow_table(
        "effect: the smaller of the gain over the question's words and the selectivity, with the\n"
        "interval that holds for all positions and layers together; all are fractions"
    )
    several = claims["target"].nunique() > 1
    names = ("position", "verdict", "layers", "score", "words", "effect", "simultaneous")
    for name in ("label", *names) if several else names:
        left = name in ("label", "position", "verdict", "layers")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "layers")
    for row in claims.to_dict("records"):
        low, high = row["sim_low"], row["sim_high"]
        bounds = "" if math.isnan(low) else judged(low, high, row["margin"], 2)
        score, words, effect = (
            "-" if math.isnan(row[name]) else f"{row[name]:.2f}" for name in ("score", "text", "excess")
        )
        table.add_row(
            *((str(row["target"]),) if several else ()),
            str(row["subject"]),
            str(row["verdict"]),
            str(row["layers"]) or "-",
            score,
            words,
            effect,
            escape(bounds),
        )
    return table


def percent(value: float) -> str:
    """A fraction as a percentage; empty if undefined."""
    return f"{100 * value:.1f}%" if math.isfinite(value) else ""


def signed(value: float) -> str:
    """Percentage points with their sign; empty if undefined."""
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else ""


def certificate_line(certificate: Mapping[str, Any]) -> str:
    """One line for the certificate, and one for each failed check."""
    checks = certificate["checks"]
    good = sum(check["passed"] for check in checks)
    head = "[green]certificate: passed[/green]" if certificate["passed"] else "[bold red]certificate: FAILED[/bold red]"
    lines = [f"{head} ({good} of {len(checks)} checks: {certificate['kind']})"]
    for check in checks:
        if not check["passed"]:
            detail = f" ({escape(check['detail'])})" if check.get("detail") else ""
            lines.append(
                f"  [red]{check['name']}[/red]: {_figure(check)}, wanted {check['threshold']}{detail}; "
                f"otherwise {check['consequence']}"
            )
    return "\n".join([*lines, *(f"  {escape(note)}" for note in certificate.get("notes", ()))])


def certificate_table(certificate: Mapping[str, Any]) -> Table:
    """Every check with its figure and threshold."""
    table = Table(title=f"{escape(certificate['model'])}, protocol {certificate['protocol']}, {certificate['dtype']}")
    for name in ("check", "proves", "figure", "threshold", ""):
        table.add_column(name, justify="right" if name == "figure" else "left")
    for check in certificate["checks"]:
        mark = "[green]pass[/green]" if check["passed"] else "[bold red]FAIL[/bold red]"
        table.add_row(check["name"], check["proves"], _figure(check), check["threshold"], mark)
    return table


def _figure(check: Mapping[str, Any]) -> str:
    return "undefined" if check["figure"] is None else f"{check['figure']:.3g}"


def status_table(status: Status, *, every: bool = False) -> Table:
    """How a run stands, arm by arm: single slots and all of them, random donors, later thoughts recomputed; or every.

    A table of main arms says how many others there are.
    """
    arms = status.arms if every else status.main_arms or status.arms
    hidden = len(status.arms) - len(arms)
    caption = f"and {hidden} more arms: --all shows them" if hidden else None
    table = Table(caption=caption, caption_justify="left")
    for name, justify in (
        ("edit", "left"),
        ("slots", "left"),
        ("done", "right"),
        ("accuracy", "right"),
        ("impact, pp", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for arm in arms:
        total = "" if arm.total is None else f"/{arm.total:,}"
        slots = ",".join(f"CT{k}" for k in arm.slots) or "-"
        downstream = "" if arm.downstream in ("", "recompute") else f" {arm.downstream}"
        downstream += "" if arm.donor_stratum in ("", "random") else f" (same {arm.donor_stratum})"
        table.add_row(
            arm.method + downstream,
            slots,
            f"{arm.done:,}{total}",
            "" if arm.accuracy is None else percent(arm.accuracy),
            "" if arm.impact_pp is None else signed(arm.impact_pp),
        )
    return table


def status_lines(status: Status) -> list[str]:
    """The run's own state in words."""
    items = "problems' features, an untrained model's counted too" if status.item == "feature" else "cells"
    title = f"{status.study} on {status.model}, protocol {status.protocol}"
    lines = [title, f"{status.state}: {status.done:,} of {status.total:,} {items}, certificate {status.certificate}"]
    if status.rate_per_s is not None and status.state == "alive":
        left = "" if status.eta_s is None else f", about {status.eta_s:.0f} s left"
        lines.append(f"{status.phase}: {status.rate_per_s:.1f} per second{left}")
    if status.state != "finished" and status.heartbeat_age_s is not None:
        lines.append(f"last sign of life {status.heartbeat_age_s:.0f} s ago")
    if status.state in ("stopped", "dead"):
        how = "stopped before its end and stored what was finished" if status.state == "stopped" else "is gone"
        lines.append(f"the process that wrote it {how}; run its command again to continue")
    if status.looks is not None and status.looks.summary:
        lines.append(status.looks.summary)
    if status.errors:
        lines.append(f"{status.errors:,} cells failed")
    if status.damaged_shards:
        lines.append(f"{status.damaged_shards} damaged shards: continuing the run redoes their cells")
    return lines
