"""Tables for the terminal: their look, their numbers, and the certificate's."""

from __future__ import annotations

import math

from rich import box
from rich.markup import escape
from rich.table import Table

from thoughtgraft.records.certificate import Certificate


def narrow_table(title: str) -> Table:
    """A table of figures that wastes no column: 80 hold one row in one line."""
    return Table(title=title, title_style="dim", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def percent(value: float) -> str:
    """A fraction as a percentage; empty if undefined."""
    return f"{100 * value:.1f}%" if math.isfinite(value) else ""


def signed(value: float) -> str:
    """Percentage points with their sign; empty if undefined."""
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else ""


def certificate_table(certificate: Certificate) -> Table:
    """Every check with its figure and threshold."""
    table = Table(title=f"{escape(certificate.model)}, protocol {certificate.protocol}, {certificate.dtype}")
    for name in ("check", "proves", "figure", "threshold", ""):
        table.add_column(name, justify="right" if name == "figure" else "left")
    for check in certificate.checks:
        mark = "[green]pass[/green]" if check.passed else "[bold red]FAIL[/bold red]"
        table.add_row(check.name, check.proves, check.shown, check.threshold, mark)
    return table
