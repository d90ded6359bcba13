"""Layers by name, by number, all: at the origin's depth the origin's own."""

from __future__ import annotations

import pytest

from thoughtgraft.errors import PlanError
from thoughtgraft.studies.operations.design import MODES, choose_layers, named_layers


@pytest.mark.parametrize(
    ("names", "depth", "layers"),
    [
        ("early,middle,late", 16, (4, 8, 14)),
        ("early,middle,late", 12, (3, 6, 10)),
        ("early,middle,late", 4, (1, 2, 3)),
        ("early,middle,late", 1, (0,)),
        ("late, 0", 28, (0, 24)),
        ("14,4,8,4", 16, (4, 8, 14)),
        ("all", 3, (0, 1, 2)),
    ],
)
def test_layers(names: str, depth: int, layers: tuple[int, ...]) -> None:
    assert choose_layers(names, depth) == layers


@pytest.mark.parametrize("names", ["16", "-1", "first", "", "early,"])
def test_a_layer_that_there_is_not(names: str) -> None:
    with pytest.raises(PlanError, match=r"expected all, early, middle, late, or numbers in 0\.\.15\. Fix: --lay"):
        choose_layers(names, 16)


def test_names_of_layers_and_sizes_of_modes() -> None:
    assert named_layers((4, 5, 14), 16) == {"early": 4, "late": 14}
    assert MODES == {"prototype": 20, "full": 200}
