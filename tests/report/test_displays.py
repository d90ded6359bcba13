"""Figures hold the numbers of the analysis: thin intervals alone, thick ones together, the margin, and what is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from tests.report.invent import FULL, make_run, passing

from thoughtgraft.report.figures.kit import BLUE, THICK, THIN, Point, draw, errorbars, look, looks
from thoughtgraft.stats.verdicts import Verdict
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.resampling.context import Context
from thoughtgraft.studies.resampling.figures import AdoptionPerSlot, DoseResponse, ImpactPerSlot, edited
from thoughtgraft.studies.resampling.report import analysed

NAN = math.nan


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A run with every arm, CT4 fed alike to all problems and CT5 read by nothing."""
    certificate = passing() | {"dead_slots": [5], "shared_slots": [4]}
    return analysed(load_run(make_run(tmp_path_factory.mktemp("displays") / "run", FULL, certificate=certificate)))


def bars(ax: Any, look: dict[str, Any], colour: str) -> list[tuple[float, float, float]]:
    """(place, low, high) of the upright lines of this look and colour."""
    lines = [line for line in ax.lines if line.get_linewidth() == look["linewidth"] and len(line.get_xdata()) == 2]
    ends = [(*map(float, line.get_xdata()), *map(float, line.get_ydata())) for line in lines if same(line, colour)]
    return [(x, low, high) for x, x2, low, high in ends if x == x2]


def same(line: Any, colour: str) -> bool:
    return to_rgb(line.get_color()) == to_rgb(colour)


def test_a_point_takes_both_intervals_from_its_row() -> None:
    row = {"excess": 0.2, "excess_ci_low": 0.1, "excess_ci_high": 0.3, "excess_sim_low": 0.05, "excess_sim_high": 0.35}
    assert Point.of(2, row, "excess", "excess_", 100) == Point(2, 20, 10, 30, 5, 35)
    alone = Point.of(1, {"kl": 1.0, "ci_low": 0.5, "ci_high": 1.5}, "kl")
    assert (alone.low, alone.high) == (0.5, 1.5) and math.isnan(alone.sim_low) and math.isnan(alone.sim_high)


def test_the_interval_alone_is_thin_the_one_together_thick_and_none_is_hollow() -> None:
    ax = Figure().subplots()
    errorbars(ax, [Point(0, 5, 2, 8, 1, 9), Point(1, 3, 2, 4), Point(2, 0)], BLUE, "o", "swap")
    assert THICK["linewidth"] > 2 * THIN["linewidth"] and THICK["zorder"] < THIN["zorder"]
    assert bars(ax, THIN, BLUE) == [(0, 2, 8), (1, 2, 4)]
    assert bars(ax, THICK, BLUE) == [(0, 1, 9)]
    dots = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert [same_face(dot, BLUE) for dot in dots] == [True, True, False]


def same_face(line: Any, colour: str) -> bool:
    return to_rgb(line.get_markerfacecolor()) == to_rgb(colour)


def test_impacts_are_drawn_with_the_intervals_of_the_table_and_named(context: Context) -> None:
    display = ImpactPerSlot.from_analysis(context.analysis)
    assert isinstance(display, ImpactPerSlot)
    table = edited(context.analysis)
    ax = draw(display, "foot").axes[0]
    drawn = 0
    for method, _ in display.series:
        rows = table[(table.method == method) & (table.verdict != Verdict.BY_CONSTRUCTION)]
        rows = rows[np.isfinite(rows.ci_low)]
        for names, style in ((["ci_low", "ci_high"], THIN), (["sim_low", "sim_high"], THICK)):
            ends = [pair[1:] for pair in bars(ax, style, look(method)[0])]
            assert ends == [tuple(pair) for pair in rows[names].to_numpy()], (method, names)
        drawn += len(rows)
        assert (rows.sim_low <= rows.ci_low + 1e-9).all() and (rows.sim_high >= rows.ci_high - 1e-9).all()
    assert drawn > 20
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"thin: 95% interval alone", "thick: 95% together over a method's slots", "margin, 5 pp"} <= set(words)
    for word in ("Thin: the 95% interval of each effect alone", "hold all together in 95% of runs", "dotted, 5 pp"):
        assert word in display.caption
    assert any(np.allclose(line.get_ydata(), 5) for line in ax.lines if len(line.get_ydata()) == 2)


@pytest.mark.parametrize("methods", [2, 4, 6])
def test_the_legend_of_impacts_stays_within_the_figure(context: Context, methods: int) -> None:
    display = ImpactPerSlot.from_analysis(context.analysis)
    assert isinstance(display, ImpactPerSlot) and len(display.series) >= 4
    figure = draw(replace(display, series=(display.series * 2)[:methods]), "foot")
    key = figure.axes[0].get_legend().get_window_extent()
    assert key.x1 <= figure.bbox.x1 and key.y0 >= 0
    assert figure.axes[0].get_position().width > 0.85, "the drawing is not squeezed by its key"


def test_what_is_0_by_construction_is_a_cross_and_no_estimate(context: Context) -> None:
    display = ImpactPerSlot.from_analysis(context.analysis)
    assert isinstance(display, ImpactPerSlot)
    table = edited(context.analysis)
    still = table[table.verdict == Verdict.BY_CONSTRUCTION]
    assert len(display.still) == len(still) > 2
    assert {method for _, method in display.still} == set(still.method) >= {"swap", "mean"}
    assert "Crosses at 0: by construction" in display.caption
    swaps = dict(display.series)["swap"]
    assert {round(point.x) for point in swaps} == {0, 1, 2, 3, len(display.labels) - 1}


def test_a_design_too_small_for_a_verdict_says_so_in_the_caption(context: Context) -> None:
    for display in (ImpactPerSlot.from_analysis(context.analysis), AdoptionPerSlot.from_analysis(context.analysis)):
        assert display.caption.endswith(  # type: ignore[union-attr]
            "No verdict is made: too small for any interval that is known to hold: fewer than 20 hosts or 5 donors."
        )


def test_adoption_is_drawn_in_points_with_both_intervals(context: Context) -> None:
    display = AdoptionPerSlot.from_analysis(context.analysis)
    assert isinstance(display, AdoptionPerSlot)
    table = edited(context.analysis)
    rows = table[(table.method == "swap") & np.isfinite(table.adoption_excess_sim_low)]
    left, right = draw(display, "foot").axes
    names = ["adoption_excess_sim_low", "adoption_excess_sim_high"]
    assert [pair[1:] for pair in bars(right, THICK, BLUE)] == [tuple(pair) for pair in 100 * rows[names].to_numpy()]
    assert not bars(left, THICK, BLUE)
    words = [text.get_text() for text in right.figure.legends[0].get_texts()]
    assert {"rate", "null (donors exchanged)", "thick: 95% together over the slots", "margin, 5 pp"} <= set(words)


def test_doses_are_effects_within_0_and_100(context: Context) -> None:
    display = DoseResponse.from_analysis(context.analysis)
    assert isinstance(display, DoseResponse)
    points = [point for _, lines in display.series for _, points in lines for point in points]
    assert {method for _, lines in display.series for method, _ in lines} == {"swap"}
    assert all(point.low >= 0 and point.high <= 100 for point in points if math.isfinite(point.low))
    assert "alone" in display.caption and "not adjusted for several doses" in display.caption


@pytest.mark.parametrize("margin_pp", [3, 12.5])
def test_figures_show_the_margin_and_level_of_the_runs_own_rule(
    margin_pp: float, build_run: Callable[..., Path]
) -> None:
    from thoughtgraft.effects.gates import Rule

    rule = Rule.of(margin_pp, 0.1)
    run = build_run(decision_hash=rule.hash)
    (run / "decision.json").write_text(rule.to_json())
    display = ImpactPerSlot.from_analysis(analysed(load_run(run)).analysis)
    assert isinstance(display, ImpactPerSlot)
    words = [text.get_text() for text in draw(display, "foot").axes[0].get_legend().get_texts()]
    assert f"margin, {margin_pp:g} pp" in words and "thin: 90% interval alone" in words


def test_edits_that_share_a_look_get_markers_of_their_own_and_built_in_ones_keep_theirs():
    lines = {"double": "double", "double after L1": "double", "zero": "zero", "zero after L2": "zero", "swap": "swap"}
    found = looks(lines)
    assert len(set(found.values())) == len(lines)
    assert (
        [found[name] for name in ("swap", "zero")]
        == [look("swap"), look("zero")]
        == [("#0072B2", "o"), ("#D55E00", "^")]
    )
    assert found["zero after L2"][0] == found["zero"][0], "one edit, one colour"
    assert looks({f"own {i}": f"own {i}" for i in range(20)}), "more than there are markers: they repeat"
