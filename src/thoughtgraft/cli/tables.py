"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from thoughtgraft.records import Status


def position_summary(run: Path) -> Table:
    """The main figures of an analysed run: single slots and all, random donors, later thoughts recomputed."""
    import pandas as pd

    positions = pd.read_parquet(run / "analysis" / "positions.parquet")
    table = Table(
        title="impact = accuracy lost against the clean run; 95% interval over hosts and donors", title_style="dim"
    )
    for name, justify in (
        ("edit", "left"),
        ("thoughts", "left"),
        ("n", "right"),
        ("accuracy", "right"),
        ("impact, pp", "right"),
        ("95% interval", "right"),
        ("adopted", "right"),
        ("by chance", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    main = positions["slots"].isin(["all", "none"]) | positions["slots"].astype(str).str.fullmatch(r"CT\d+")
    main &= positions["downstream"].isin(["recompute", ""]) | positions["downstream"].isna()
    strata = positions["donor_stratum"]
    if "random" in set(strata):
        main &= strata.isin(["", "random"]) | strata.isna()
    # Single slots stay in their order; all slots come after them.
    shown = positions[main].assign(whole=positions["slots"] == "all").sort_values(["method", "whole"])
    last = None
    for row in shown.to_dict("records"):
        if last is not None and row["method"] != last:
            table.add_section()
        last = row["method"]
        table.add_row(
            row["method"],
            row["slots"] or "-",
            f"{row['n_gen']:,}",
            percent(row["acc"]),
            signed(row["impact_pp"]),
            interval(row),
            percent(row["adoption_rate"]),
            percent(row["adoption_null"]),
        )
    return table


def interval(row: Mapping[Any, Any]) -> str:
    """`[a, b]`, or the exact bound where every difference is 0, or nothing."""
    if math.isfinite(row["ci_low"]):
        return f"[{row['ci_low']:+.1f}, {row['ci_high']:+.1f}]"
    bound = row.get("zero_bound_pp", math.nan)
    return f"0, below {bound:.1f}" if math.isfinite(bound) else ""


def percent(value: float) -> str:
    """A fraction as a percentage; empty if undefined."""
    return f"{100 * value:.1f}%" if math.isfinite(value) else ""


def signed(value: float) -> str:
    """Percentage points with their sign; empty if undefined."""
    return f"{value:+.1f}" if math.isfinite(value) else ""


def certificate_line(certificate: Mapping[str, Any]) -> str:
    """One line for the certificate, and one for each failed check."""
    checks = certificate["checks"]
    good = sum(check["passed"] for check in checks)
    head = "[green]certificate: passed[/green]" if certificate["passed"] else "[bold red]certificate: FAILED[/bold red]"
    lines = [f"{head} ({good} of {len(checks)} checks: {certificate['kind']})"]
    lines += [
        f"  [red]{c['name']}[/red]: {c['figure']:.3g}, wanted {c['threshold']}; otherwise {c['consequence']}"
        for c in checks
        if not c["passed"]
    ]
    return "\n".join(lines)


def certificate_table(certificate: Mapping[str, Any]) -> Table:
    """Every check with its figure and threshold."""
    table = Table(title=f"{certificate['model']}, protocol {certificate['protocol']}, {certificate['dtype']}")
    for name in ("check", "proves", "figure", "threshold", ""):
        table.add_column(name, justify="right" if name == "figure" else "left")
    for check in certificate["checks"]:
        mark = "[green]pass[/green]" if check["passed"] else "[bold red]FAIL[/bold red]"
        table.add_row(check["name"], check["proves"], f"{check['figure']:.3g}", check["threshold"], mark)
    return table


def status_table(status: Status) -> Table:
    """How a run stands, arm by arm."""
    table = Table(title=f"{status.study} on {status.model}, protocol {status.protocol}")
    for name, justify in (
        ("edit", "left"),
        ("slots", "left"),
        ("done", "right"),
        ("accuracy", "right"),
        ("impact, pp", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for arm in status.arms:
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
    lines = [f"{status.state}: {status.done:,} of {status.total:,} cells, certificate {status.certificate}"]
    if status.rate_per_s is not None and status.state == "alive":
        left = "" if status.eta_s is None else f", about {status.eta_s:.0f} s left"
        lines.append(f"{status.phase}: {status.rate_per_s:.1f} per second{left}")
    if status.state != "finished" and status.heartbeat_age_s is not None:
        lines.append(f"last sign of life {status.heartbeat_age_s:.0f} s ago")
    if status.state == "dead":
        lines.append("the process that wrote it is gone; run its command again to continue")
    if status.errors:
        lines.append(f"{status.errors:,} cells failed")
    if status.damaged_shards:
        lines.append(f"{status.damaged_shards} damaged shards: continuing the run redoes their cells")
    return lines
