"""Simulated crossed designs: hosts x donor lists x slots, many at once, whose true mean is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from thoughtgraft.analysis.clustered import twoway_variance
from thoughtgraft.analysis.multiplicity import holm


@dataclass(frozen=True)
class World:
    """How cells vary: sds of host and donor effects against a cell noise of 1, and the kind of outcome."""

    host_sd: float
    donor_sd: float
    kind: str = "binary"
    truth: float = 0.2


def lists(designs: int, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Donor lists, shape [design, host, draw]: d distinct problems of the same n, never the host itself."""
    keys = rng.random((designs, n, n), dtype=np.float32)
    keys[:, np.arange(n), np.arange(n)] = 2.0
    return np.argpartition(keys, d - 1, axis=2)[:, :, :d]


def outcomes(world: World, donors: np.ndarray, slots: int, rng: np.random.Generator) -> np.ndarray:
    """Paired differences, shape [design, slot, host, draw], of mean exactly `world.truth`.

    Binary: a probit model; a host is right at baseline with probability .8 and in the arm with .8 - truth, both
    leaning on the host's own effect, the arm also on the donor's. Sparse: the arm flips a right answer with
    probability truth, spread over hosts and donors. Continuous: normal, as for log-probabilities.
    """
    s, n, d = donors.shape
    shape = (s, slots, n, d)
    a = rng.standard_normal((s, slots, n, 1), dtype=np.float32)
    b = rng.standard_normal((s, slots, n), dtype=np.float32)
    b = np.take_along_axis(b, donors.reshape(s, 1, n * d).repeat(slots, 1), axis=2).reshape(shape)
    score = world.host_sd * a + world.donor_sd * b + rng.standard_normal(shape, dtype=np.float32)
    scale = np.sqrt(1 + world.host_sd**2 + world.donor_sd**2)
    if world.kind == "continuous":
        return world.truth + score
    if world.kind == "sparse":
        return (score < scale * stats.norm.ppf(world.truth)).astype(float)
    own = world.host_sd * a.mean(1, keepdims=True) * np.sqrt(slots) + rng.standard_normal((s, 1, n, 1))
    base = own > -np.sqrt(1 + world.host_sd**2) * stats.norm.ppf(0.8)
    right = score > -scale * stats.norm.ppf(0.8 - world.truth)
    return base.astype(float) - right


@dataclass(frozen=True)
class Score:
    """Results over designs and slots: coverage, mean width, families with a rejection, arms without an interval."""

    coverage: float
    width: float
    family_wise: float
    undefined: float
    designs: int


def simulate(world: World, n: int, d: int, designs: int, seed: int, slots: int = 6, batch: int = 250) -> Score:
    """Run the primary interval and test on `designs` simulated runs of n hosts x d donors x `slots`."""
    rng = np.random.default_rng(seed)
    covered, widths, rejected, undefined = [], [], [], []
    hosts = np.broadcast_to(np.repeat(np.arange(n), d), (batch * slots, n * d))
    for _ in range(designs // batch):
        donors = lists(batch, n, d, rng)
        x = outcomes(world, donors, slots, rng).reshape(batch * slots, n * d)
        ids = donors.reshape(batch, 1, n * d).repeat(slots, 1).reshape(batch * slots, n * d)
        mean = x.mean(1)
        var = twoway_variance((x - mean[:, None]) / (n * d), hosts, ids)
        se = np.sqrt(var.total)
        ok = se > 1e-12
        half = stats.t.ppf(0.975, var.df) * se
        covered.append(np.abs(mean - world.truth)[ok] <= half[ok])
        widths.append(2 * half[ok])
        undefined.append(~ok)
        p = np.where(ok, 2 * stats.t.sf(np.abs(mean) / np.where(ok, se, 1.0), var.df), np.nan).reshape(batch, slots)
        rejected.append([bool((holm(row) < 0.05).any()) for row in p])
    return Score(
        float(np.concatenate(covered).mean()),
        float(np.concatenate(widths).mean()),
        float(np.concatenate(rejected).mean()),
        float(np.concatenate(undefined).mean()),
        designs,
    )
