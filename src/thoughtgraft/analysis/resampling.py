"""Random draws: generators named by their purpose, and bootstrap multiplicities."""

from __future__ import annotations

import numpy as np


def family_rng(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and on what it is for, not on the order of computation."""
    return np.random.default_rng([seed, *"|".join(names).encode()])


def multiplicities(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n clusters is drawn, shape [resample, cluster]."""
    # Counting drawn indices is many times faster than numpy's multinomial, and the same distribution.
    drawn = rng.integers(0, n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)
