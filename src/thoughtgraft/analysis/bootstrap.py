"""Pigeonhole bootstrap over hosts and donors: a conservative second opinion on the two-way clustered interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from thoughtgraft.analysis.cells import Cells
from thoughtgraft.analysis.frame import Frame, as_frame
from thoughtgraft.analysis.resampling import family_rng, multiplicities


@dataclass(frozen=True)
class BootstrapInterval:
    """Percentile interval and standard deviation of the resampled means, in the unit of the values."""

    value: float
    se: float
    low: float
    high: float
    resamples: int


def pigeonhole(
    values: np.ndarray,
    host: np.ndarray,
    donor: np.ndarray | None,
    rng: np.random.Generator,
    *,
    resamples: int = 2_000,
    level: float = 0.95,
) -> BootstrapInterval:
    """Interval of the mean from resampling hosts and donors independently.

    Each resample draws hosts and donors with replacement, and a cell counts as often as its host times its donor
    (Owen 2007, The pigeonhole bootstrap, Ann. Appl. Stat. 1(2)). It over-covers: the cell's own variation is counted
    about three times. Without donors it is the ordinary bootstrap over hosts.

    Args:
        values: One value per cell, finite.
        host: 0-based host of each cell.
        donor: 0-based donor of each cell, or None.
        rng: Source of the resamples.
        resamples: Number of resamples.
        level: Coverage wanted.
    """
    if not len(values):
        return BootstrapInterval(np.nan, np.nan, np.nan, np.nan, resamples)
    rows = np.unique(host, return_inverse=True)[1]
    columns = np.zeros_like(rows) if donor is None else np.unique(donor, return_inverse=True)[1]
    shape = (columns.max() + 1, rows.max() + 1)
    # Few of all hosts and donors ever meet.
    total, count = (sparse.coo_array((x, (columns, rows)), shape=shape).tocsr() for x in (values, np.ones(len(rows))))
    w = np.ascontiguousarray(multiplicities(shape[1], resamples, rng).T)
    v = np.ones((1, resamples)) if donor is None else multiplicities(shape[0], resamples, rng).T
    drawn = ((count @ w) * v).sum(0)
    # A resample of a sparse crossing may meet no cell at all; it says nothing about the mean.
    means = (((total @ w) * v).sum(0))[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(float(values.mean()), float(means.std(ddof=1)), float(low), float(high), resamples)


def bootstrap_impact(cells: Cells, rng: np.random.Generator, resamples: int = 2_000) -> BootstrapInterval:
    """Pigeonhole interval of an arm's accuracy loss, as a fraction."""
    donor = cells.donor if cells.has_donors else None
    return pigeonhole(cells.difference, cells.host, donor, rng, resamples=resamples)


def bootstrap_table(records: pd.DataFrame | Frame, *, seed: int = 0, resamples: int = 2_000) -> pd.DataFrame:
    """Pigeonhole intervals (pp) of every edited arm, labelled as the second opinion that they are.

    Returns:
        Columns slots, method, downstream, donor_stratum, impact_pp, se, ci_low, ci_high, resamples, note; a
        resampled interval without width is undefined (NaN).
    """
    frame = as_frame(records)
    rows = []
    for key, cells in frame.arms.items():
        if not key.slots or not len(cells):
            continue
        found = bootstrap_impact(cells, family_rng(seed, "bootstrap", *key.family, str(key.slots)), resamples)
        flat = found.low == found.high
        low, high = (np.nan, np.nan) if flat else (100 * found.low, 100 * found.high)
        note = "no variation between cells: undefined" if flat else "conservative"
        where = (frame.label(key.slots), key.method, key.downstream, key.stratum)
        rows.append((*where, 100 * found.value, 100 * found.se, low, high, resamples, note))
    names = "slots method downstream donor_stratum impact_pp se ci_low ci_high resamples note".split()
    return pd.DataFrame(rows, columns=names)
