"""Populations whose true effects are known, and crossed designs drawn from them: hosts x donor lists x slots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from thoughtgraft.effects.frame import Cells
from thoughtgraft.effects.positions import adoption, donor_answers
from thoughtgraft.records.schema import Family
from thoughtgraft.stats.intervals import Sample

ANSWERS = 1 / np.arange(1, 41)
"""How common each answer is, up to a factor; the first is much more common than the last, as in real problem sets."""


@dataclass(frozen=True)
class World:
    """A population of hosts and donors, and the size of the design that is drawn from it.

    Whether a cell is an event (a right answer lost, a wrong one gained, a donor's answer adopted) is a probit: the
    event happens where host effect + donor effect + noise of sd 1 falls below a threshold, which sets the event's
    probability in the population exactly. All three are half shared by the slots and half their own. Every host has
    `draws` distinct donors: of the same problems, never itself, or of a pool of others.

    Attributes:
        outcome: "impact" (lost - gained), "given correct" (lost, of the hosts right at baseline), "adoption", or "real"
            (the score itself, as a log-probability would be).
        rates: Per slot, the probability of losing an answer; of adopting one beyond chance; the mean of a score.
        gained: Probability of gaining an answer.
        host_sd: Sd of the host effect.
        donor_sd: Sd of the donor effect.
        hosts: Hosts of a design.
        draws: Donors per host; 0 for an arm without donors, one cell per host.
        pool: Donors in all, if they are other problems; 0: the hosts are the donors.
        unbalanced: Hosts that lose more have a fifth of the draws, and some donors are drawn more often than others.
        alike: Correlation of a problem's effect as a host with its effect as a donor, which no interval here counts.
        accuracy: Probability of a right answer at baseline.
    """

    outcome: str
    rates: tuple[float, ...]
    gained: float = 0.0
    host_sd: float = 0.0
    donor_sd: float = 0.0
    hosts: int = 100
    draws: int = 10
    pool: int = 0
    unbalanced: bool = False
    alike: float = 0.0
    accuracy: float = 0.8

    @property
    def truths(self) -> np.ndarray:
        """The true effect of each slot, as a fraction."""
        rates = np.array(self.rates)
        return rates if self.outcome == "given correct" else rates - self.gained

    def design(self, rng: np.random.Generator) -> list[Sample]:
        """One run: what each slot's effect is estimated from."""
        host, donor, score = self._scores(rng)
        if self.outcome == "adoption":
            return [self._adopted(host, donor, score[k] < self._threshold(k), rng) for k in range(len(self.rates))]
        if self.outcome == "real":
            return [
                Sample(x + rate, host, donor, np.ones(len(x)), "real")
                for x, rate in zip(score, self.rates, strict=True)
            ]
        right = (rng.random(self.hosts) < self.accuracy)[host]
        kept = right if self.outcome == "given correct" else np.ones(len(host), dtype=bool)
        weight = 1 / np.bincount(host)[host]
        samples = []
        for k, row in enumerate(score):
            values = (right & (row < self._threshold(k))).astype(float)
            if self.gained:
                values -= ~right & (row < special.ndtri(self.gained / (1 - self.accuracy)))
            kind = "share" if self.outcome == "given correct" else "difference"
            to = donor[kept] if self.draws else None
            samples.append(Sample(values[kept], host[kept], to, weight[kept], kind))
        return samples

    def _threshold(self, slot: int) -> float:
        rate = self.rates[slot]
        if self.outcome == "adoption":
            # What is adopted beyond chance is adopted less what answers agree by chance.
            rate /= 1 - _agreement()
        return float(special.ndtri(rate / self.accuracy if self.outcome == "impact" else rate))

    def _scores(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Host and donor of each cell, and the scores, shape [slot, cell], standard normal over the population."""
        n, draws, pool = self.hosts, max(self.draws, 1), self.pool or self.hosts
        # Dividing an exponential by a weight draws without replacement, the heavy first (Efraimidis, Spirakis 2006).
        order = rng.exponential(size=(n, pool)) / (rng.gamma(1.0, size=pool) if self.unbalanced else 1.0)
        if not self.pool:
            np.fill_diagonal(order, np.inf)
        donor = np.argsort(order, axis=1)[:, :draws].ravel()
        host, draw = np.divmod(np.arange(n * draws), draws)
        a, b, noise = (self._effects(rng, size) for size in (n, pool, n * draws))
        if self.alike:
            b = self.alike * a + np.sqrt(1 - self.alike**2) * b
        if self.unbalanced:
            few = a.mean(0) < 0
            kept = ~few[host] | (draw < max(draws // 5, 1))
            host, donor, noise = host[kept], donor[kept], noise[:, kept]
        score = self.host_sd * a[:, host] + self.donor_sd * b[:, donor] + noise
        return host, donor, score / np.sqrt(1 + self.host_sd**2 + self.donor_sd**2)

    def _effects(self, rng: np.random.Generator, size: int) -> np.ndarray:
        own, shared = rng.standard_normal((len(self.rates), size)), rng.standard_normal(size)
        return (own + shared) / np.sqrt(2)

    def _adopted(self, host: np.ndarray, donor: np.ndarray, taken: np.ndarray, rng: np.random.Generator) -> Sample:
        """One slot's adoption: the donor's answer where it is taken, else a stray one in a fifth of the cells."""
        share = ANSWERS / ANSWERS.sum()
        answer = rng.choice(len(share), size=self.hosts, p=share)
        stray = np.where(rng.random(len(host)) < 0.2, rng.choice(len(share), size=len(host), p=share), answer[host])
        pred, own = np.where(taken, answer[donor], stray), answer[host]
        none = np.zeros(len(host))
        order = np.argsort(host, kind="stable")
        columns = (host, donor, none.astype(int), none, none, none, none, none, none, pred, own, own, answer[donor])
        cells = Cells(Family("swap", donors="random").at((0,)), 0, *(column[order] for column in columns))
        return adoption(cells, donor_answers(cells, self.hosts, self.hosts)).sample


def _agreement() -> float:
    """Probability that an answer drawn at random is the donor's, of those that differ from the host's."""
    p = ANSWERS / ANSWERS.sum()
    return float(((p**2).sum() - (p**3).sum()) / (1 - (p**2).sum()))
