"""Which problems are sensitive to their thoughts: shrunken rates, intervals, and how reliable the ranking is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.special import betaln

from thoughtgraft.edits.edit import change_of
from thoughtgraft.edits.known import Swap
from thoughtgraft.effects.frame import Frame, as_frame
from thoughtgraft.records.schema import Family
from thoughtgraft.stats.paired import correlate
from thoughtgraft.stats.resampling import family_rng

# Beyond this alpha + beta the prior is so narrow that problems do not differ.
NO_SPREAD = 1e5


@dataclass(frozen=True)
class BetaPrior:
    """How rates vary between problems: Beta(alpha, beta); `spread` is False where they do not differ measurably."""

    alpha: float
    beta: float
    spread: bool


@dataclass(frozen=True)
class PerProblem:
    """Sensitivity of each problem.

    `table` has one row per host: problem_id, base_correct, n_gen, changed, rate, sensitivity (the shrunken rate),
    ci_low, ci_high (95% credible), impact_pp, most_sensitive_slot (0-based; null where no slot's edit changed an
    answer), note. `reliability` is that of the raw rates, split-half over donors, Spearman-Brown; NaN with the reason
    in `note` where undefined.
    """

    table: pd.DataFrame
    prior: BetaPrior
    reliability: float
    n_hosts: int
    note: str = ""


def fit_beta_binomial(successes: np.ndarray, trials: np.ndarray) -> BetaPrior:
    """Maximum-likelihood Beta prior of binomial rates (empirical Bayes).

    Args:
        successes: Changed answers by problem, shape [problem].
        trials: Generations by problem, same shape, positive.
    """
    pooled = float(np.clip(successes.sum() / trials.sum(), 1e-4, 1 - 1e-4))
    if successes.sum() in (0, trials.sum()):
        return BetaPrior(pooled * NO_SPREAD, (1 - pooled) * NO_SPREAD, False)

    def loss(parameters: np.ndarray) -> float:
        rate, size = 1 / (1 + np.exp(-parameters[0])), np.exp(parameters[1])
        a, b = rate * size, (1 - rate) * size
        return -float((betaln(successes + a, trials - successes + b) - betaln(a, b)).sum())

    start = np.array([np.log(pooled / (1 - pooled)), np.log(10.0)])
    limits = [(-12.0, 12.0), (np.log(1e-2), np.log(NO_SPREAD))]
    found = optimize.minimize(loss, start, bounds=limits, method="L-BFGS-B").x
    rate, size = float(1 / (1 + np.exp(-found[0]))), float(np.exp(found[1]))
    # Likelihood-ratio test of "no spread", on the boundary of the parameters: half a chi-squared of 1 df (5%: 2.71).
    none = loss(np.array([start[0], np.log(NO_SPREAD)]))
    return BetaPrior(rate * size, (1 - rate) * size, 2 * (none - loss(found)) > 2.71)


def shrink(successes: np.ndarray, trials: np.ndarray, prior: BetaPrior) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posterior mean and 95% credible bounds of each rate, shape [problem] each."""
    a, b = prior.alpha + successes, prior.beta + trials - successes
    return a / (a + b), stats.beta.ppf(0.025, a, b), stats.beta.ppf(0.975, a, b)


def donor_split_reliability(
    values: np.ndarray, host: np.ndarray, donor: np.ndarray, rng: np.random.Generator, splits: int = 200
) -> float:
    """Reliability of host rates: correlation over hosts between random halves of the donors, Spearman-Brown.

    The halves are of the donors, not of the cells, so that what one donor does to every slot stays together.
    """
    n, m = int(host.max()) + 1, int(donor.max()) + 1
    total, count = np.zeros((n, m)), np.zeros((n, m))
    np.add.at(total, (host, donor), values)
    np.add.at(count, (host, donor), 1.0)
    present = count.sum(1) > 0
    total, count = total[present], count[present]
    side = (rng.random((m, splits)) < 0.5).astype(float)
    rs = []
    for one in range(splits):
        a, b = count @ side[:, one], count @ (1 - side[:, one])
        ok = (a > 0) & (b > 0)
        if ok.sum() > 2:
            left, right = (total @ side[:, one])[ok] / a[ok], (total @ (1 - side[:, one]))[ok] / b[ok]
            rs.append(float(correlate(left, right)))
    rs = [r for r in rs if np.isfinite(r)]
    if not rs or np.mean(rs) <= -1:
        return np.nan
    r = float(np.mean(rs))
    return 2 * r / (1 + r)


def per_problem(records: pd.DataFrame | Frame, *, seed: int = 0, method: str = Swap.name) -> PerProblem:
    """Sensitivity of each host: the share of its single-slot swaps that changed its answer, shrunken to the others'.

    The changed rate is used, not lost accuracy: it is defined on every host, right or wrong at baseline.
    """
    frame = as_frame(records)
    takes_donor = "donor" in change_of(method).needs
    arms = frame.singles(Family(method, donors=frame.primary_stratum() if takes_donor else ""))
    names = "problem_id base_correct n_gen changed rate sensitivity ci_low ci_high impact_pp most_sensitive_slot note"
    if not arms:
        empty = pd.DataFrame(columns=names.split())
        return PerProblem(empty, BetaPrior(np.nan, np.nan, False), np.nan, 0, f"no single-slot {method} cells")
    n = len(frame.hosts)
    host, donor, changed, loss, base = (
        np.concatenate([getattr(c, name) for c in arms.values()])
        for name in ("host", "donor", "changed", "difference", "base_correct")
    )
    trials = np.bincount(host, minlength=n).astype(float)
    kept = np.flatnonzero(trials)
    trials = trials[kept]
    hits, losses, right = (np.bincount(host, v, n)[kept] for v in (changed, loss, base))
    # Slots differ, so a host's count varies less than a binomial one; its worth is that of `worth` times the trials.
    rates = np.array([c.weight @ c.changed for c in arms.values()])
    common = float(hits.sum() / trials.sum())
    worth = common * (1 - common) / max(float(np.mean(rates * (1 - rates))), 1e-9) if 0 < common < 1 else 1.0
    worth = min(max(worth, 1.0), 10.0)
    prior = fit_beta_binomial(worth * hits, worth * trials)
    mean, low, high = shrink(worth * hits, worth * trials, prior)
    by_slot = np.stack([c.host_mean(c.changed, n)[kept] for c in arms.values()], axis=1)
    slots, best = list(arms), np.nan_to_num(by_slot, nan=-1.0).argmax(1)
    top = pd.array([slots[j] if by_slot[i, j] > 0 else None for i, j in enumerate(best)], dtype="Int32")
    table = pd.DataFrame(
        {
            "problem_id": [frame.hosts[i] for i in kept], "base_correct": right > 0, "n_gen": trials.astype(int),
            "changed": hits.astype(int), "rate": hits / trials, "sensitivity": mean, "ci_low": low, "ci_high": high,
            "impact_pp": 100 * losses / trials, "most_sensitive_slot": top,
            "note": "" if prior.spread else "problems do not differ measurably (likelihood ratio)",
        },
        columns=names.split(),
    )  # fmt: skip
    table = table.sort_values(["sensitivity", "problem_id"], ascending=[False, True], ignore_index=True)
    crossed = bool((donor >= 0).all())
    rel = donor_split_reliability(changed, host, donor, family_rng(seed, "per_problem"), 200) if crossed else np.nan
    note = "" if np.isfinite(rel) else "reliability undefined: no variation, or fewer than two donors per host"
    return PerProblem(table, prior, rel, len(kept), note)
