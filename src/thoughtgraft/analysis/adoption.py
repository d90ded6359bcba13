"""How often an edit makes the host answer what the donor says, beyond what chance agreement of answers would give."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from thoughtgraft.analysis.cells import Cells
from thoughtgraft.analysis.clustered import Estimate, clustered_total
from thoughtgraft.analysis.equivalence import exact_upper_bound


@dataclass(frozen=True)
class Adoption:
    """Shares (0..1) of eligible cells; `excess` = rate - null, with its two-way clustered interval."""

    rate: float
    null: float
    excess: Estimate
    n_eligible: int


def donor_answers(cells: Cells, n_hosts: int, n_donors: int) -> np.ndarray:
    """The answer that each donor offers each host, as codes, shape [host, donor]; -1 where it is not eligible.

    A donor's answer is eligible if it parsed and differs from both the host's clean answer and its gold answer:
    otherwise giving it would not show that the donor's was adopted. Undefined for the `same answer` stratum.
    """
    offered = np.full(n_donors, -1, dtype=np.int64)
    offered[cells.donor] = cells.donor_pred
    table = np.broadcast_to(offered, (n_hosts, n_donors)).copy()
    for own in (cells.base_pred, cells.gold):
        mine = np.full(n_hosts, -2, dtype=np.int64)
        mine[cells.host] = own
        table[table == mine[:, None]] = -1
    return table


def adoption(cells: Cells, offered: np.ndarray) -> Adoption:
    """Adoption rate, its permutation null, and the excess.

    The null is the rate when donors are exchanged between hosts (each host meeting the donors of the *other* hosts)
    and eligibility is applied again. It is computed in closed form, as matches / eligible pairs over all such
    exchanges: what drawing ever more permutations converges to, without their noise. The interval linearises both
    ratios and charges every exchange to its host and to its donor, so that the null's own error is included.

    Args:
        cells: One arm with donors.
        offered: Codes of what counts as adopted, shape [host of the run, donor of the run], -1 = not eligible;
            `donor_answers` for the donor's answer, or counterfactual answers.

    Returns:
        The shares and the excess; NaN with a note where no pair is eligible.
    """
    n_hosts, n_donors = offered.shape
    eligible = offered >= 0
    own = eligible[cells.host, cells.donor]
    hit = own & (offered[cells.host, cells.donor] == cells.pred)
    n_own = int(own.sum())

    # others[h, d]: how many cells of other hosts use donor d, that is, how often an exchange brings d to h.
    met = np.zeros((n_hosts, n_donors))
    np.add.at(met, (cells.host, cells.donor), 1.0)
    others = np.where(eligible, met.sum(0) - met, 0.0)
    agrees = offered[cells.host] == cells.pred[:, None]
    match_row = (agrees * others[cells.host]).sum(1)
    pairs_row = others.sum(1)[cells.host]
    # The same pairs seen from the cell that lends its donor.
    per_host = np.zeros((n_hosts, n_donors))
    # Cells are sorted by host, so each host's are one block.
    hosts, first = np.unique(cells.host, return_index=True)
    per_host[hosts] = np.add.reduceat((agrees & eligible[cells.host]).astype(float), first, axis=0)
    size = np.bincount(cells.host, minlength=n_hosts).astype(float)
    reach = eligible * size[:, None]
    match_column = per_host.sum(0)[cells.donor] - per_host[cells.host, cells.donor]
    pairs_column = reach.sum(0)[cells.donor] - reach[cells.host, cells.donor]

    total_pairs = float(pairs_row.sum())
    if n_own == 0 or total_pairs == 0:
        why = "no eligible donor answer" if n_own == 0 else "no other host's donor to compare with"
        nan = np.nan
        return Adoption(
            hit.sum() / n_own if n_own else nan,
            nan,
            Estimate(nan, nan, nan, nan, nan, nan, nan, nan, cells.n_hosts, cells.n_donors, n_own, why),
            n_own,
        )
    rate = float(hit.sum() / n_own)
    null = float(match_row.sum() / total_pairs)
    influence = (hit - rate * own) / n_own
    influence = influence - (match_row + match_column - null * (pairs_row + pairs_column)) / total_pairs
    excess = clustered_total(influence, rate - null, cells.host, cells.donor)
    if not hit.any():
        units = min(len(np.unique(cells.host[own])), len(np.unique(cells.donor[own])))
        excess = _none_adopted(excess, null, units)
    return Adoption(rate, null, excess, n_own)


def _none_adopted(excess: Estimate, null: float, units: int) -> Estimate:
    """The excess where no cell adopted: variances see the null's error only, so the upper end is the exact one.

    Of `units` independent tries that all failed, the rate is below 1 - .025^(1/units) with 97.5% confidence. Nothing
    is tested: p is 1, since the one that those variances give would count against other slots in Holm's adjustment.
    """
    bound = exact_upper_bound(units, alpha=0.025)
    high = float(np.nanmax([excess.high, bound - null]))
    low = -null if np.isnan(excess.low) else excess.low
    return replace(excess, low=low, high=high, p=1.0, note=f"none adopted: exact upper end (rate below {bound:.1%})")
