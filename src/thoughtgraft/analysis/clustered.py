"""Means with host- and donor-clustered standard errors, intervals and p-values, for one design or many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Variance:
    """Squared standard errors by source, each of shape [design]; `df` are the degrees of freedom."""

    host: np.ndarray
    donor: np.ndarray
    total: np.ndarray
    df: np.ndarray


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


def _group_squares(u: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum over groups of squared group totals, and the number of groups; u, ids [design, cell] -> [design] each."""
    n_groups = int(ids.max()) + 1
    flat = (ids + n_groups * np.arange(len(ids))[:, None]).ravel()
    shape = (len(ids), n_groups)
    totals = np.bincount(flat, u.ravel(), shape[0] * n_groups).reshape(shape)
    seen = np.bincount(flat, minlength=shape[0] * n_groups).reshape(shape) > 0
    return (totals**2).sum(1), seen.sum(1)


@dataclass(frozen=True)
class Covariance:
    """Clustered covariance of several estimates: `matrix` [column, column], whose diagonal is V; `df` [column]."""

    matrix: np.ndarray
    df: np.ndarray


def twoway_covariance(u: np.ndarray, cells: np.ndarray, present: np.ndarray, share: np.ndarray) -> Covariance:
    """Two-way clustered covariance of the sums of the columns of `u`, whose cells need not be the same.

    C = C_host + C_donor - C_cell, each term with its own sqrt(G_i/(G_i-1) G_j/(G_j-1)); a variance on the diagonal is
    never below that of either clustering alone, as in `twoway_variance`.

    Args:
        u: Influences, 0 where a column lacks the cell; shape [cell, column].
        cells: 0-based host and donor of each cell, distinct pairs; donor -1 where there is none. Shape [cell, 2].
        present: Whether a column has the cell, shape [cell, column].
        share: Weights of the cells, 0 where a column lacks the cell; shape [cell, column].
    """
    crossed = cells[:, 1] >= 0
    parts, smallest = [], np.full(u.shape[1], np.inf)
    paired = np.asarray((present & crossed[:, None]).any(0))
    for ids, rows in ((cells[:, 0], np.ones(len(u), dtype=bool)), (cells[:, 1], crossed)):
        if not rows.any():
            parts.append(np.zeros((u.shape[1], u.shape[1])))
            continue
        n = (group_totals(present[rows].astype(float), ids[rows]) > 0).sum(0)
        totals = group_totals(u[rows], ids[rows]) * np.sqrt(_scaled(np.ones(len(n)), n))
        weights = group_totals(share[rows], ids[rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            kish = weights.sum(0) ** 2 / (weights**2).sum(0)
        smallest = np.fmin(smallest, kish)
        parts.append(totals.T @ totals)
    n = present.sum(0)
    own = np.where(crossed[:, None], u, 0.0) * np.sqrt(_scaled(np.ones(len(n)), n))
    host, donor, cell = parts[0], np.where(paired[:, None] & paired, parts[1], 0.0), own.T @ own
    matrix = host + donor - cell
    diagonal = np.maximum(np.diag(matrix), np.maximum(np.diag(host), np.diag(donor)))
    matrix[np.diag_indices(len(matrix))] = diagonal
    return Covariance(matrix, smallest - 1)


def group_totals(u: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Totals of the rows of `u` [cell, column] by group, shape [group, column]."""
    groups, row = np.unique(ids, return_inverse=True)
    totals = np.zeros((len(groups), u.shape[1]))
    np.add.at(totals, row, u)
    return totals


def _scaled(squares: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Squares times n/(n-1), the small-sample factor; NaN where n is 1."""
    return np.asarray(squares * np.divide(n, n - 1, out=np.full(n.shape, np.nan), where=n > 1))


def effective_clusters(ids: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Number of equally heavy clusters worth these, (sum w)^2 / sum w_g^2 (Kish 1965); ids, weight [design, cell]."""
    squares, _ = _group_squares(weight, ids)
    return np.asarray(weight.sum(1) ** 2 / squares)


def twoway_variance(
    u: np.ndarray, host: np.ndarray, donor: np.ndarray | None, weight: np.ndarray | None = None
) -> Variance:
    """Two-way clustered variance of the sum of `u`.

    V = max(V_host + V_donor - V_cell, V_host, V_donor), each term with its own G/(G-1): Cameron, Gelbach, Miller
    (2011), Robust inference with multiway clustering, JBES 29(2), which also takes the larger of the candidates where
    the difference is not positive. Without donors: V_host.

    Degrees of freedom: the smaller number of clusters, less 1, as in that paper, but clusters are counted by their
    weight. Donor lists drawn at random use some donors much more than others, and 20 such donors are worth about 17;
    in simulation of 20 x 5 designs with large donor variance the plain count rejected true nulls in 6.1% of families
    instead of 5%. For clusters of equal weight the two are the same.

    Args:
        u: Weighted residuals (or influences) whose sum estimates the error, shape [design, cell].
        host: 0-based host of each cell, shape [design, cell].
        donor: 0-based donor of each cell, same shape; None for arms without donors.
        weight: Weights of the cells, same shape; None: all alike.

    Returns:
        Variances of shape [design]; NaN where there is a single cluster.
    """
    weight = np.ones(u.shape) if weight is None else weight
    squares, n_hosts = _group_squares(u, host)
    v_host = _scaled(squares, n_hosts)
    df = effective_clusters(host, weight) - 1
    if donor is None:
        return Variance(v_host, np.full(v_host.shape, np.nan), v_host, df)
    squares, n_donors = _group_squares(u, donor)
    v_donor = _scaled(squares, n_donors)
    # A host meets each donor at most once, so the intersection of the two clusterings is the cell itself.
    v_cell = _scaled((u**2).sum(1), np.full(len(u), u.shape[1]))
    total = np.maximum(v_host + v_donor - v_cell, np.maximum(v_host, v_donor))
    return Variance(v_host, v_donor, total, np.minimum(df, effective_clusters(donor, weight) - 1))


def t_interval(value: float, se: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Two-sided t interval; NaN where the standard error is undefined or zero."""
    if not (se > 0 and df > 0):
        return np.nan, np.nan
    half = float(stats.t.ppf(0.5 + level / 2, df)) * se
    return value - half, value + half


def t_p_value(value: float, se: float, df: float) -> float:
    """Two-sided p of "the mean is 0"; NaN where undefined."""
    return float(2 * stats.t.sf(abs(value / se), df)) if se > 0 and df > 0 else np.nan


def clustered_total(
    u: np.ndarray, value: float, host: np.ndarray, donor: np.ndarray | None, weight: np.ndarray | None = None
) -> Estimate:
    """An estimate whose error is the sum of the influences `u` [cell]; see `twoway_variance`."""
    n_hosts = len(np.unique(host))
    n_donors = 0 if donor is None else len(np.unique(donor))
    if not len(u):
        nan = np.nan
        return Estimate(nan, nan, nan, nan, nan, nan, nan, nan, 0, 0, 0, "no cells")
    share = np.ones((1, len(u))) if weight is None else weight[None]
    var = twoway_variance(u[None], host[None], None if donor is None else donor[None], share)
    v_host, v_donor, v_total, df = (float(x[0]) for x in (var.host, var.donor, var.total, var.df))
    note = ""
    if n_hosts < 2 or n_donors == 1:
        note = "no interval from a single host" if n_hosts < 2 else "no interval from a single donor"
        v_total = np.nan
    # Sums of rounding errors are not evidence of variation.
    elif v_total <= 1e-24 * max(1.0, value**2):
        note, v_total = "no variation: no t interval", 0.0
    se = float(np.sqrt(v_total))
    low, high = t_interval(value, se, df)
    p = t_p_value(value, se, df)
    return Estimate(value, se, v_host**0.5, v_donor**0.5, df, low, high, p, n_hosts, n_donors, len(u), note)


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
        return clustered_total(values, np.nan, host, donor)
    weight = weight / weight.sum()
    # Equal values have exactly that mean, not one that rounding moved: exact tests ask whether it is 0 or 1.
    mean = float(values[0]) if (values == values[0]).all() else float(weight @ values)
    return clustered_total(weight * (values - mean), mean, host, donor, weight)
