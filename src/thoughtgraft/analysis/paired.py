"""Two models on the same problems: the difference of their accuracies, with an interval and an exact test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

from thoughtgraft.errors import AnalysisError


@dataclass(frozen=True)
class PairedAccuracy:
    """Accuracy of A minus accuracy of B on n problems, as fractions.

    Attributes:
        difference: A - B.
        ci_low: Lower end of the 95% interval.
        ci_high: Upper end.
        only_a: Problems that A alone answers right.
        only_b: Problems that B alone answers right.
        n: Problems.
        p: Exact McNemar, two-sided; 1 where no problem tells them apart.
    """

    difference: float
    ci_low: float
    ci_high: float
    only_a: int
    only_b: int
    n: int
    p: float


def paired_accuracy(a: Sequence[bool], b: Sequence[bool], *, level: float = 0.95) -> PairedAccuracy:
    """Compare two lists of outcomes on the same problems, in the same order.

    The interval is the adjusted Wald of Bonett and Price (2012, "Adjusted Wald confidence interval for a difference
    of binomial proportions based on paired data"): one discordant problem is added on either side.

    Raises:
        AnalysisError: The lists differ in length, or are empty.
    """
    if len(a) != len(b) or not len(a):
        raise AnalysisError("two models are compared on the same problems", got=f"{len(a)} and {len(b)} outcomes")
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    n, only_a, only_b = len(first), int((first & ~second).sum()), int((~first & second).sum())
    p_a, p_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = norm.ppf((1 + level) / 2) * np.sqrt((p_a + p_b - (p_a - p_b) ** 2) / (n + 2))
    p = 1.0 if only_a + only_b == 0 else float(binomtest(only_a, only_a + only_b).pvalue)
    return PairedAccuracy((only_a - only_b) / n, p_a - p_b - half, p_a - p_b + half, only_a, only_b, n, p)
