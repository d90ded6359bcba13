"""What a planned run can detect: before any data, or from a pilot's own variances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from thoughtgraft.analysis import RULE, build_frame
from thoughtgraft.analysis.power import detectable_effect, hosts_after_pilot, minimum_effect, variance_components

ASSUMED_SD = 0.30


@dataclass(frozen=True)
class Sizing:
    """The minimum detectable effect of a single slot at 80% power, and where it comes from.

    Attributes:
        mde_pp: Percentage points; NaN where nothing varied, so that no effect can be named.
        basis: In words.
        needed: Hosts at which the rule's own effect is detectable; None where nothing varied.
        worst_slot: The slot that needs the most, where a pilot says so.
    """

    mde_pp: float
    basis: str
    needed: int | None = None
    worst_slot: str = ""


def planned(n_hosts: int) -> Sizing:
    """Before any data: hosts' mean effects are taken to spread by 30 pp."""
    if n_hosts < 2:
        return Sizing(np.nan, "one host allows no interval")
    return Sizing(100 * minimum_effect(n_hosts, ASSUMED_SD), f"if hosts' effects spread by {100 * ASSUMED_SD:g} pp")


def from_pilot(records: pd.DataFrame, n_hosts: int, n_donors: int) -> Sizing:
    """From a pilot's variances at its most demanding single-slot swap; signs and means are not looked at.

    Args:
        records: The pilot's.
        n_hosts: Hosts of the planned run.
        n_donors: Its donors per host.

    Raises:
        AnalysisError: The records cannot be used.
    """
    frame = build_frame(records)
    worst, needed, spread = "", None, 0.0
    for slot, cells in frame.singles(*RULE.primary, frame.primary_stratum()).items():
        se = variance_components(cells.difference, cells.host, cells.donor).se(1, n_donors)
        if np.isfinite(se) and se > spread:
            wanted = hosts_after_pilot(cells, RULE.pilot_mde, n_draws=n_donors, power=RULE.pilot_power)
            worst, needed, spread = frame.label((slot,)), wanted, se
    if not worst or n_hosts < 2:
        return Sizing(np.nan, "no slot varied in the pilot" if not worst else "one host allows no interval")
    mde = detectable_effect(spread / np.sqrt(n_hosts), n_hosts - 1, power=RULE.pilot_power)
    return Sizing(100 * mde, f"by the pilot's variances, at {worst}", needed, worst)
