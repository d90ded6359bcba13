"""When a gain over the question's words may be one of few problems."""

from __future__ import annotations

import pytest

from thoughtgraft.probing.picture import words_still_climb


def curve(*scores: float) -> list[dict[str, object]]:
    rows = [{"series": "text", "n_train": 10 * (i + 1), "score": score} for i, score in enumerate(scores)]
    return [*rows, {"series": "linear", "n_train": 10, "score": 0.0}]


@pytest.mark.parametrize(
    ("scores", "climbs"),
    [((0.5, 0.6, 0.6, 0.62), False), ((0.5, 0.6, 0.63, 0.66), True), ((0.6,), False), ((), False), ((0.7, 0.5), False)],
)
def test_a_baseline_that_still_rises_is_said(scores, climbs):
    said = words_still_climb(curve(*scores), 0.05)
    assert (said is not None) == climbs
    if said:
        assert "0.60 from 20, 0.66 from 40 training problems" in said
