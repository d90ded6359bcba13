"""The terminal: who is told what studies do, and how a run stands."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thoughtgraft.report.terminal import percent, signed
from thoughtgraft.studies.study import Said, Tone

if TYPE_CHECKING:
    from thoughtgraft.records.status import Status

TONES: dict[Tone, str] = {"plain": "", "good": "green", "warn": "bold yellow", "bad": "red"}


class Terminal(Said):
    """Tells the terminal: results on stdout, notes on stderr."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def line(self, text: str, tone: Tone = "plain") -> None:
        """A sentence; what stands for a value in it is not coloured."""
        self.console.print(escape(text), style=TONES[tone] or None, soft_wrap=True, highlight=False)

    def note(self, text: str) -> None:
        """On stderr."""
        typer.echo(text, err=True)

    def show(self, found: Any) -> None:
        """A table."""
        self.console.print(found)

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """A spinner."""
        return self.console.status(text)


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
        tail = [] if arm.arm.after in ("", "recompute") else [arm.arm.after]
        tail += [] if arm.arm.donors in ("", "random") else [f"(same {arm.arm.donors})"]
        table.add_row(
            " ".join([arm.arm.method, *tail]),
            arm.arm.place(),
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
