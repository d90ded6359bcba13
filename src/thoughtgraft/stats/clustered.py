"""Means with host- and donor-clustered standard errors, intervals and p-values, for one estimate or many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty, in the unit of the values; NaN with a `note` where undefined."""

    value: float
    se: float
    se_host: float
    se_donor: float
    df: float
    low: float
    high: float
    p: float
    n_hosts: int
    n_donors: int
    n: int
    note: str = ""

    @property
    def units(self) -> int:
        """Independent units that an exact bound may count: the smaller of hosts and donors, as t's df do."""
        return min(self.n_hosts, self.n_donors) if self.n_donors else self.n_hosts


@dataclass(frozen=True)
class Clustered:
    """Two-way clustered covariance of several estimates, and what each rests on.

    `covariance` [column, column] has the variances on its diagonal. The others are of shape [estimate]: `host` and
    `donor` are the variances of either clustering alone, 0 without donors.
    """

    covariance: np.ndarray
    host: np.ndarray
    donor: np.ndarray
    df: np.ndarray
    n_hosts: np.ndarray
    n_donors: np.ndarray
    n: np.ndarray


def group_totals(u: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Totals of the rows of `u` [cell, column] by group, shape [group, column]; groups in the order of their ids."""
    groups, row = np.unique(ids, return_inverse=True)
    shape = (len(groups), u.shape[1])
    flat = row[:, None] * shape[1] + np.arange(shape[1])
    return np.bincount(flat.ravel(), u.ravel(), shape[0] * shape[1]).reshape(shape)


def effective_number(totals: np.ndarray) -> np.ndarray:
    """Number of equally heavy groups worth these, (sum w)^2 / sum w^2 (Kish 1965); [group, column] -> [column]."""
    squares = (totals**2).sum(0)
    return np.divide(totals.sum(0) ** 2, squares, out=np.zeros(totals.shape[1]), where=squares > 0)


def _small_sample(n: np.ndarray) -> np.ndarray:
    """sqrt(n/(n-1)), the small-sample factor of a total; NaN where n is 1, 0 where it is 0."""
    return np.sqrt(np.divide(n, n - 1, out=np.where(n == 0, 0.0, np.nan), where=n > 1))


def twoway(u: np.ndarray, host: np.ndarray, donor: np.ndarray, share: np.ndarray) -> Clustered:
    """Two-way clustered covariance of the sums of the columns of `u`.

    C = C_host + C_donor - C_cell, each term with its own G/(G-1): Cameron, Gelbach, Miller (2011), Robust inference
    with multiway clustering, JBES 29(2). A variance is never below that of either clustering alone (also theirs, for
    where the difference is not positive). Without donors: C_host.

    Degrees of freedom: the smaller number of clusters, less 1, as in that paper, but clusters are counted by their
    weight. Donor lists drawn at random use some donors much more than others, and 20 such donors are worth about 17;
    in simulation of 20 x 5 designs with large donor variance the plain count rejected true nulls in 6.1% of families
    instead of 5%. For clusters of equal weight the two are the same.

    Args:
        u: Influences whose sums are errors, 0 where an estimate lacks the cell; shape [cell, column]. Its columns may
            be several parts of the estimates, one part after the other.
        host: Host of each cell.
        donor: Donor of each cell, -1 where there is none. No pair of host and donor occurs twice.
        share: Weights of the cells, shape [cell, estimate]; cells that weigh nothing are not counted.

    Returns:
        The covariance, NaN for estimates from a single host or donor.
    """
    crossed, width = donor >= 0, u.shape[1]
    columns = np.concatenate([u, share], axis=1)
    totals = [group_totals(columns, host), group_totals(columns[crossed], donor[crossed])]
    weights = [effective_number(x[:, width:]) for x in totals]
    n_hosts, n_donors = ((x[:, width:] > 0).sum(0) for x in totals)
    # A host meets each donor at most once, so the intersection of the two clusterings is the cell itself.
    n = (share > 0).sum(0)
    parts = [totals[0][:, :width], totals[1][:, :width], u * crossed[:, None]]
    sizes = [n_hosts, n_donors, np.where(n_donors > 0, n, 0)]
    scaled = [x * np.tile(_small_sample(k), width // len(k)) for x, k in zip(parts, sizes, strict=True)]
    v_host, v_donor = ((x**2).sum(0) for x in scaled[:2])
    covariance = scaled[0].T @ scaled[0] + scaled[1].T @ scaled[1] - scaled[2].T @ scaled[2]
    covariance[np.diag_indices(width)] = np.maximum(np.diag(covariance), np.maximum(v_host, v_donor))
    df = np.where(n_donors > 0, np.minimum(weights[0], weights[1]), weights[0]) - 1
    return Clustered(covariance, v_host[: len(n)], v_donor[: len(n)], df, n_hosts, n_donors, n)


def estimates_of(values: np.ndarray, found: Clustered, *, level: float = 0.95) -> list[Estimate]:
    """The estimates whose errors are the first columns, with t intervals and p of "the mean is 0"."""
    out = []
    for i, value in enumerate(values.tolist()):
        n_hosts, n_donors = int(found.n_hosts[i]), int(found.n_donors[i])
        variance, note = float(found.covariance[i, i]), ""
        if n_hosts < 2 or n_donors == 1:
            note = "no interval from a single host" if n_hosts < 2 else "no interval from a single donor"
            variance = np.nan
        # Sums of rounding errors are not evidence of variation.
        elif variance <= 1e-24 * max(1.0, value**2):
            note, variance = "no variation: no t interval", 0.0
        se, df = float(np.sqrt(variance)), float(found.df[i])
        low, high = t_interval(value, se, df, level)
        alone = float(np.sqrt(found.host[i])), float(np.sqrt(found.donor[i])) if n_donors else np.nan
        p = t_p_value(value, se, df)
        out.append(Estimate(value, se, *alone, df, low, high, p, n_hosts, n_donors, int(found.n[i]), note))
    return out


def t_interval(value: float, se: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Two-sided t interval; NaN where the standard error is undefined or zero."""
    if not (se > 0 and df > 0):
        return np.nan, np.nan
    half = float(special.stdtrit(df, 0.5 + level / 2)) * se
    return value - half, value + half


def t_p_value(value: float, se: float, df: float) -> float:
    """Two-sided p of "the mean is 0"; NaN where undefined."""
    return float(2 * special.stdtr(df, -abs(value / se))) if se > 0 and df > 0 else np.nan


def no_cells() -> Estimate:
    """The estimate of nothing."""
    nan = np.nan
    return Estimate(nan, nan, nan, nan, nan, nan, nan, nan, 0, 0, 0, "no cells")


def clustered_total(
    u: np.ndarray, value: float, host: np.ndarray, donor: np.ndarray | None, weight: np.ndarray | None = None
) -> Estimate:
    """An estimate whose error is the sum of the influences `u` [cell]; see `twoway`."""
    if not len(u):
        return no_cells()
    share = np.ones(len(u)) if weight is None else weight
    donor = np.full(len(u), -1) if donor is None else donor
    return estimates_of(np.array([value]), twoway(u[:, None], host, donor, share[:, None]))[0]


def clustered_mean(values: np.ndarray, host: np.ndarray, donor: np.ndarray | None, weight: np.ndarray) -> Estimate:
    """Weighted mean of `values` [cell] with its clustered interval; cells without a finite value are left out.

    Args:
        values: One value per cell.
        host: 0-based host of each cell.
        donor: 0-based donor of each cell, or None for arms without donors.
        weight: Non-negative weights; rescaled to sum to 1 over the finite cells.
    """
    ok = np.isfinite(values)
    values, host, weight = values[ok], host[ok], weight[ok]
    donor = None if donor is None else donor[ok]
    if not len(values):
        return no_cells()
    weight = weight / weight.sum()
    # Equal values have exactly that mean, not one that rounding moved: exact tests ask whether it is 0 or 1.
    mean = float(values[0]) if (values == values[0]).all() else float(weight @ values)
    return clustered_total(weight * (values - mean), mean, host, donor, weight)
