"""How often an edit makes the host answer what the donor says, beyond what chance agreement of answers would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thoughtgraft.analysis.cells import Cells
from thoughtgraft.analysis.intervals import Bounds, Sample, family_bounds


@dataclass(frozen=True)
class Adoption:
    """Shares (0..1) of eligible cells; `sample` is what the excess, rate - null, is estimated from.

    NaN, an empty sample and a `note` where there is nothing to estimate.
    """

    rate: float
    null: float
    n_eligible: int
    sample: Sample
    note: str = ""


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
    exchanges: what drawing ever more permutations converges to, without their noise. Both ratios are linearised, and
    every exchange is charged to its host and to its donor, so that the interval includes the null's own error.

    Args:
        cells: One arm with donors.
        offered: Codes of what counts as adopted, shape [host of the run, donor of the run], -1 = not eligible;
            `donor_answers` for the donor's answer, or counterfactual answers.

    Returns:
        The shares, and the sample of the excess: eligible cells weigh alike.
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
    rate = float(hit.sum() / n_own) if n_own else np.nan
    if n_own == 0 or total_pairs == 0:
        why = "no eligible donor answer" if n_own == 0 else "no other host's donor to compare with"
        return Adoption(rate, np.nan, n_own, _sample(cells, hit, np.zeros(len(cells))), why)
    null = float(match_row.sum() / total_pairs)
    influence = (match_row + match_column - null * (pairs_row + pairs_column)) / total_pairs
    return Adoption(rate, null, n_own, _sample(cells, hit, own.astype(float), null, influence))


def _sample(
    cells: Cells, hit: np.ndarray, own: np.ndarray, null: float = 0.0, influence: np.ndarray | None = None
) -> Sample:
    # Cells that are not eligible weigh nothing, but have their part in the null.
    return Sample(hit.astype(float), cells.host, cells.donor, own, "share", null, influence)


def adoption_bounds(family: Sequence[Adoption], alpha: float = 0.05) -> list[Bounds]:
    """Intervals of the excesses of one family.

    Where no cell adopted, nothing is tested and p is 1: the variances see the null's error only, and the p that they
    give would count against other slots in Holm's adjustment.
    """
    out = []
    for found, bounds in zip(family, family_bounds([one.sample for one in family], alpha=alpha), strict=True):
        if found.note:
            bounds = replace(bounds, note=found.note)
        elif found.rate == 0:
            estimate = replace(bounds.estimate, p=1.0)
            bounds = replace(bounds, estimate=estimate, note="none adopted: exact bounds")
        out.append(bounds)
    return out
