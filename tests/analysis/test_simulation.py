"""The primary interval and test on simulated crossed designs: coverage, width and family-wise error.

Seeds and counts: 2,000 designs (20 x 5) or 1,250 designs (100 x 10) of six slots each in every world, seed 11 for true
nulls and 12 for true effects: over the 21 worlds of each size, 42,000 and 26,250 designs. `pytest -s` prints the table.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tests.analysis.designs import World, simulate

SIZES = {(20, 5): 2_000, (100, 10): 1_250}
SPREADS = [(0, 0), (1, 0), (0, 1), (0.5, 0.5), (2, 0.5), (0.5, 2), (2, 2)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_null_is_covered_and_rejected_at_its_level(
    size: tuple[int, int], spread: tuple[float, float], kind: str
) -> None:
    score = simulate(World(*spread, kind, truth=0.0), *size, SIZES[size], seed=11)
    error = np.sqrt(0.05 * 0.95 / score.designs)
    sys.stdout.write(f"{size} {kind} host, donor sd {spread}: {score}\n")
    assert score.coverage >= 0.93
    assert score.family_wise <= 0.05 + 2 * error


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", SPREADS)
def test_binary_effect_of_20_points_is_covered(size: tuple[int, int], spread: tuple[float, float]) -> None:
    score = simulate(World(*spread, "binary", truth=0.2), *size, SIZES[size], seed=12)
    sys.stdout.write(f"{size} effect .2, host, donor sd {spread}: {score}\n")
    assert score.coverage >= 0.93
    assert score.undefined == 0


def test_rare_losses_are_covered_less_well_and_that_is_known() -> None:
    """The limit of the t interval: at a loss of 5 in 100 it covers too little, which the table's note says."""
    wide = simulate(World(0.5, 0.5, "sparse", truth=0.05), 100, 10, 1_000, seed=13)
    small = simulate(World(0.5, 0.5, "sparse", truth=0.05), 20, 5, 1_000, seed=13)
    assert 0.92 <= wide.coverage <= 0.95
    assert 0.80 <= small.coverage <= 0.92
