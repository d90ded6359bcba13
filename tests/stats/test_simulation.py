"""The intervals on simulated crossed designs, and that mistakes in them would be seen there.

A small part of `python -m benchmarks coverage`: fixed seeds, 150 to 400 designs a world. Every mistake is planted and
must fail the bounds that the intervals pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.coverage import HEADER, Score, line, score, settings
from benchmarks.worlds import World

from thoughtgraft.stats import clustered, intervals
from thoughtgraft.stats import intervals as proportions
from thoughtgraft.stats.intervals import Sample

COMMON = World("impact", (0.2,) * 6, donor_sd=2.0)
CONCENTRATED = World("impact", (0.05,) * 6, host_sd=2.0)
RARE = World("impact", (0.01,), host_sd=2.0)
UNBALANCED = World("impact", (0.2,) * 6, host_sd=2.0, unbalanced=True)
NOTHING = World("impact", (0.1,) * 6, gained=0.1)
GATHERED = World("impact", (0.2,) * 6, host_sd=2.0)
WORLDS = {"common": COMMON, "concentrated": CONCENTRATED, "rare": RARE, "unbalanced": UNBALANCED, "nothing": NOTHING}
WORLDS["gathered"] = GATHERED
DESIGNS = {"rare": 400}


def judged(name: str) -> Score:
    return score(WORLDS[name], DESIGNS.get(name, 150), seed=5)


def holds(found: Score) -> bool:
    """At least 93%, and at most 6% of runs with a false verdict, less two standard errors of 150 designs."""
    return found.together >= 0.93 - 0.036 and found.alone >= 0.93 and found.false <= 0.06 + 0.036


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_and_verdicts_hold(name: str) -> None:
    assert holds(judged(name)), judged(name)


def without_donors(patch: pytest.MonkeyPatch) -> None:
    real = clustered.twoway
    patch.setattr(intervals, "twoway", lambda u, host, donor, *rest: real(u, host, np.full_like(donor, -1), *rest))


def without_hosts(patch: pytest.MonkeyPatch) -> None:
    real = clustered.twoway
    patch.setattr(intervals, "twoway", lambda u, host, donor, *rest: real(u, donor, np.full_like(donor, -1), *rest))


def without_weights(patch: pytest.MonkeyPatch) -> None:
    real = intervals._Member.of

    def alike(sample: Sample) -> intervals._Member | None:
        return real(replace(sample, weight=np.ones(len(sample.values))))

    patch.setattr(intervals._Member, "of", alike)


def without_max_t(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(intervals, "simultaneous_level", lambda covariance, df, alpha: alpha)


def t_everywhere(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(intervals, "FEW", 0)


def few_events_trusted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(proportions, "FEW", 1e-9)


MISTAKES = [
    (without_donors, "common"),
    (without_hosts, "gathered"),
    (without_weights, "unbalanced"),
    (without_max_t, "common"),
    (t_everywhere, "concentrated"),
    (few_events_trusted, "rare"),
]


@pytest.mark.parametrize(("mistake", "name"), MISTAKES, ids=[f"{m.__name__}-{name}" for m, name in MISTAKES])
def test_a_mistake_is_seen(
    mistake: Callable[[pytest.MonkeyPatch], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    found = judged(name)
    assert not holds(found), found


def test_tables_name_the_worst_of_a_setting() -> None:
    row = next(row for row in settings() if row.effect == "1% lost" and row.size == "10 x 3")
    scores = [Score(0.97, 0.95, 0.02, {"PRESENT": 0.5, "NEGLIGIBLE": 0.25}, 0.1)] * 3
    scores.append(Score(0.96, 0.97, 0.04, {"UNRESOLVED": 1.0}, 0.2))
    assert line(row, scores) == [
        "1% lost", "10 x 3", "96.0%", "95.0%", "4.0%", "0% to 50%", "0% to 25%", "5.0 to 10.0 pp"
    ]  # fmt: skip


def test_the_page_shows_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in text.split("|")[1:3]] for text in page.splitlines() if text.count("|") > 6]
    assert rows[0] == list(HEADER[:2])
    assert rows[2:] == [[row.effect, row.size] for row in settings()]


@pytest.mark.parametrize("world", [row.worlds[-1] for row in settings()], ids=str)
def test_worlds_have_the_truth_they_name(world: World) -> None:
    """The mean of the estimates over designs, within four of its standard errors."""
    rng = np.random.default_rng(1)
    designs = 40
    means = np.array([[_mean(sample) for sample in world.design(rng)] for _ in range(designs)])
    error = means.std(0, ddof=1) / np.sqrt(designs)
    assert (np.abs(means.mean(0) - world.truths) <= 4 * error + 1 / world.hosts**2).all()


def _mean(sample: Sample) -> float:
    return float(sample.weight @ sample.values / sample.weight.sum()) - sample.null
