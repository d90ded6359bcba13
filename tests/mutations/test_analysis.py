"""Mistakes in the analysis fail the test that is said to see them; without one it passes."""

from __future__ import annotations

from typing import Any

import pytest
from pytest import MonkeyPatch
from tests.mutations.analysis_plants import ANALYSIS_MUTATIONS, TESTS
from tests.mutations.plant import Mutation


@pytest.mark.parametrize("name", TESTS)
def test_without_a_mistake_the_named_test_passes(name: str) -> None:
    TESTS[name]()


@pytest.mark.parametrize("mutation", ANALYSIS_MUTATIONS, ids=lambda m: m.name.replace(" ", "-"))
def test_a_mistake_in_the_analysis_fails_its_test(
    mutation: Mutation, monkeypatch: MonkeyPatch, record_property: Any
) -> None:
    (test,) = mutation.checks
    record_property("mutation", (mutation.name, mutation.caught_by, test))
    mutation.plant(monkeypatch)
    with pytest.raises(AssertionError):
        TESTS[test]()
