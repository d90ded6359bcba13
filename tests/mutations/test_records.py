"""Mistakes between a plan and its records are caught by a trial of that plan, in the right words."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from pytest import MonkeyPatch
from tests.mutations.edit_plants import EDIT_MUTATIONS
from tests.mutations.plant import Mutation
from tests.mutations.record_plants import RECORD_MUTATIONS
from tests.mutations.subjects import ARMS, spaced, trained
from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.donors import STRATA
from thoughtgraft.edits.edit import Edit, named
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.schedule import AFTER
from thoughtgraft.edits.site import Resid
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.verify.records import CELLS, CHECKS, GRADES, SCORES, VECTORS, Records
from thoughtgraft.engine.verify.statements import STATEMENTS
from thoughtgraft.engine.verify.trial import CROWD, Trial, make_trial, standard_plan
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.certificate import Check
from thoughtgraft.records.schema import RECORD_SCHEMA
from thoughtgraft.tasks.load import load_problems


@functools.cache
def trial_of(model: LatentReasoner) -> Trial:
    return make_trial(model, load_problems("arithmetic:test", n=14), Plan(ARMS, seed=7), 12)


def checked(model: LatentReasoner) -> list[Check]:
    records = Records(model, trial_of(model))
    return [check(records) for check in CHECKS]


@pytest.mark.parametrize("make", [lambda: trained()[0], spaced], ids=["as it is", "spaced"])
def test_without_a_mistake_every_record_is_as_it_must_be(make: Any) -> None:
    checks = checked(make())
    assert [check.name for check in checks if not check.passed] == []
    assert {check.name for check in checks} <= set(STATEMENTS)


@pytest.mark.parametrize("mutation", (*EDIT_MUTATIONS, *RECORD_MUTATIONS), ids=lambda m: m.name.replace(" ", "-"))
def test_a_mistake_in_records_is_caught(mutation: Mutation, monkeypatch: MonkeyPatch, record_property: Any) -> None:
    model = spaced() if mutation.spaced else trained()[0]
    trial_of(model)
    mutation.plant(monkeypatch)
    failed = [check for check in checked(model) if not check.passed]
    record_property("mutation", (mutation.name, mutation.caught_by, ", ".join(check.name for check in failed)))
    assert set(mutation.checks) <= {check.name for check in failed}
    assert any(mutation.words in check.detail for check in failed), [check.detail for check in failed]


def test_every_column_of_a_record_is_checked() -> None:
    assert sorted([*CELLS, *GRADES, *SCORES, *VECTORS]) == sorted(RECORD_SCHEMA.names)


def test_a_trial_shows_what_ordinary_problems_hide() -> None:
    model = trained()[0]
    trial = trial_of(model)
    records = Records(model, trial)
    first, second = ([row for row in records.rows if row["problem_id"] == trial.problems[i].id] for i in (0, 1))
    assert "  " in trial.problems[0].question
    assert not first[0]["base_correct"] and float(first[0]["gold"]) == float(first[0]["base_pred"])
    assert any(row["donor_pred"] == row["gold"] != row["base_pred"] and row["adopted"] is None for row in second)
    assert any(row["donor_pred"] == row["base_pred"] and row["adopted"] is None for row in second)
    swaps = [row for row in records.rows if row["method"] in ("swap", "shuffle") and 1 in row["slots"]]
    assert len(swaps) >= CROWD and trial.notes == ()


def test_the_standard_plan_has_every_method_every_rule_and_every_stratum() -> None:
    arms = standard_plan(trained()[0]).arms
    assert {change.name for change in named()} <= {arm.change.name for arm in arms}
    edited = {(arm.change, arm.after) for arm in arms if arm.layer is None}
    assert {(change, rule) for change in named() if isinstance(change, Edit) for rule in AFTER} <= edited
    assert {arm.donors for arm in arms} == set(STRATA)
    assert {arm.layer for arm in arms} == {None, 0, 3}
    assert standard_plan(trained()[0].under("official"), full=False).plan_hash != standard_plan(trained()[0]).plan_hash


def test_a_trial_of_few_problems_and_of_many_arms_says_what_it_left_out() -> None:
    model = trained()[0]
    few = make_trial(model, load_problems("arithmetic:test", n=2), Plan((Arm("swap", 1),)), 12)
    assert any("too few problems for 65 rows of one edit at once: 2 were tried" in note for note in few.notes)
    arms = [Arm(f"own {i}", 1, op=lambda live, context: live) for i in range(900)]
    many = make_trial(model, load_problems("arithmetic:test", n=9), Plan(tuple(arms)), 12)
    assert len(many.plan.arms) == 300 and "300 of the plan's 900 arms were tried" in many.notes[0]


def test_explicit_swaps_are_tried_as_they_are() -> None:
    model = trained()[0]
    trial = make_trial(model, load_problems("arithmetic:test", n=8), Plan.from_triples([(5, 2, 1), (2, 2, 0)]), 6)
    assert len(trial.problems) == 2 and trial.plan.triples == ((1, 0, 1), (0, 0, 0))
    records = Records(model, trial)
    assert [check.name for check in (c(records) for c in CHECKS) if not check.passed] == []


def _of_the_batch(live: Tensor, context: EditContext) -> Tensor:
    return live.mean(0, keepdim=True).expand_as(live).clone()


def _in_place(live: Tensor, context: EditContext) -> Tensor:
    return live.mul_(0.5)


def _of_others_than(host: float) -> Callable[[Tensor, EditContext], Tensor]:
    def op(live: Tensor, context: EditContext) -> Tensor:
        if ((context.host(slot=0, kind="fed")[:, 0] - host).abs() < 1e-3).any():
            raise ValueError("not this one")
        return 2 * live

    return op


def test_edits_of_ones_own_are_called_row_by_row_and_may_fail_but_not_hang_on_their_neighbours() -> None:
    model, problems = trained()[0], load_problems("arithmetic:test", n=5)
    chosen = make_trial(model, problems, Plan((Arm("baseline"),)), 4).problems
    host = float(collect_thoughts(model, chosen, progress=False).fed[1, 0, 0])
    for op, sound in ((_in_place, True), (_of_others_than(host), True), (_of_the_batch, False)):
        arms = (Arm("own", 2, op=op), Arm("own at L1", 2, op=op, site=Resid(1)))
        records = Records(model, make_trial(model, problems, Plan(arms), 4))
        failed = [check.name for check in (check(records) for check in CHECKS) if not check.passed]
        assert (failed == []) == sound, failed
