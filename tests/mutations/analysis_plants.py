"""Mistakes in the analysis, which no certificate sees, since it ends with the records: each must fail a named test."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pytest import MonkeyPatch
from tests.effects import test_adoption, test_decision, test_positions
from tests.effects.invent import make_records
from tests.mutations.plant import TEST, Function, Mutation, Plant, arguments, result, together

from thoughtgraft.effects import positions as estimate
from thoughtgraft.effects.frame import Cells
from thoughtgraft.stats import intervals


@functools.cache
def _positions() -> pd.DataFrame:
    """As tests/effects/test_positions.py invents them."""
    return make_records(
        100, 10, loss=test_positions.LOSS, methods=("swap", "zero", "noise"), adopt=0.5, host_sd=0.05, seed=5
    )


@functools.cache
def _decision() -> pd.DataFrame:
    """As tests/effects/test_decision.py does."""
    return make_records(100, 10, loss=test_decision.LOSS, adopt=0.5, host_sd=0.02, seed=9)


def _of_table(test: Function) -> Callable[[], None]:
    return lambda: test(estimate.position_table(_positions()), _positions())


TESTS: dict[str, Callable[[], None]] = {
    "test_p_is_adjusted_over_the_single_slots_of_its_method_and_over_nothing_else": _of_table(
        test_positions.test_p_is_adjusted_over_the_single_slots_of_its_method_and_over_nothing_else
    ),
    "test_every_verdict_is_that_of_its_own_simultaneous_interval": _of_table(
        test_positions.test_every_verdict_is_that_of_its_own_simultaneous_interval
    ),
    "test_hosts_count_alike_however_many_donors_each_has": (
        test_positions.test_hosts_count_alike_however_many_donors_each_has
    ),
    "test_donors_that_differ_widen_every_interval": test_positions.test_donors_that_differ_widen_every_interval,
    "test_all_slots_are_no_member_of_the_single_slots_family": lambda: (
        test_decision.test_all_slots_are_no_member_of_the_single_slots_family(_decision())
    ),
    "test_a_donors_answer_that_is_the_hosts_gold_or_own_shows_nothing": lambda: (
        test_adoption.test_a_donors_answer_that_is_the_hosts_gold_or_own_shows_nothing("gold")
    ),
}
"""The named tests, with what their fixtures give."""


def _alike(patch: MonkeyPatch) -> None:
    patch.setattr(Cells, "weight", property(lambda self: np.ones(len(self))))


def _without_donors(columns: Any, host: Any, donor: Any, *more: Any) -> tuple[Any, ...]:
    return columns, host, np.full_like(donor, -1), *more


def _gold_offered(table: np.ndarray, cells: Cells, n_hosts: int, n_donors: int) -> np.ndarray:
    offered = np.full(n_donors, -1)
    offered[cells.donor] = cells.donor_pred
    own = np.full(n_hosts, -2)
    own[cells.host] = cells.base_pred
    return np.where(offered == own[:, None], -1, np.broadcast_to(offered, table.shape))


def _one_family(arms: Any, n_slots: int) -> list[list[Any]]:
    return [[key for key in arms if key.family == family] for family in dict.fromkeys(key.family for key in arms)]


def _in(name: str, where: str, plant: Plant, test: str) -> Mutation:
    return Mutation(name, where, plant, TEST, (test,))


ANALYSIS_MUTATIONS = (
    _in(
        "Holm missing from the position table",
        "analysis: p_holm is p",
        lambda patch: patch.setattr(estimate, "holm", lambda p: p),
        "test_p_is_adjusted_over_the_single_slots_of_its_method_and_over_nothing_else",
    ),
    _in(
        "host weights ignored",
        "analysis: cells count alike, so that hosts with more donors count more",
        _alike,
        "test_hosts_count_alike_however_many_donors_each_has",
    ),
    _in(
        "H4's family changed",
        "analysis: all slots at once are a member of the single slots' family",
        lambda patch: patch.setattr(estimate, "_families", _one_family),
        "test_all_slots_are_no_member_of_the_single_slots_family",
    ),
    _in(
        "adoption eligible where the donor's answer is gold, in the analysis",
        "analysis: being right counts as taking the donor's answer",
        together(*(result(place, "donor_answers", _gold_offered) for place in (estimate, test_adoption))),
        "test_a_donors_answer_that_is_the_hosts_gold_or_own_shows_nothing",
    ),
    _in(
        "max-t missing",
        "analysis: simultaneous intervals are unadjusted ones",
        lambda patch: patch.setattr(intervals, "simultaneous_level", lambda covariance, df, alpha=0.05: alpha),
        "test_all_slots_are_no_member_of_the_single_slots_family",
    ),
    _in(
        "standard errors lack their donor term",
        "analysis: donors that recur are taken for new ones",
        arguments(intervals, "twoway", _without_donors),
        "test_donors_that_differ_widen_every_interval",
    ),
    _in(
        "verdicts by twice the margin",
        "analysis: what is called small is not what the table says",
        arguments(estimate, "verdict", lambda low, high, margin: (low, high, 2 * margin)),
        "test_every_verdict_is_that_of_its_own_simultaneous_interval",
    ),
)
