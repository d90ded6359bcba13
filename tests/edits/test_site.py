"""Residual-stream sites: part of an arm's identity, refused where they mean nothing; projections know their numbers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.known import Project, Projection
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.site import Resid, Site
from thoughtgraft.errors import PlanError
from thoughtgraft.tasks.problem import Problem, ProblemSet

IDENTITY: dict[str, Any] = {"model": "weights", "protocol": "official", "dtype": "float32", "num_latents": 6}
PROBLEMS = ProblemSet((Problem("a", "One?", Fraction(1)), Problem("b", "Two?", Fraction(2))))


def project(scale: float = 1.0, slot: int = 2) -> Project:
    u, mean = torch.zeros(3, 1), torch.tensor([1.0, 1.0, 1.0])
    u[0] = scale
    return Project({slot: Projection(u, torch.tensor([[1.0], [0.0], [0.0]]), mean)})


def context(n: int, slot: int = 2) -> EditContext:
    return EditContext.of(slot, ("",) * n, torch.zeros(n, 6, 3))


def keys(*arms: Arm) -> list[str]:
    return [cell.key for cell in Plan(arms).cells(PROBLEMS, IDENTITY) if cell.host == 0]


def test_a_projection_takes_out_its_direction_and_nothing_else() -> None:
    live = torch.tensor([[5.0, 6.0, 7.0], [1.0, 2.0, 3.0]])
    assert torch.equal(project()(live, context(2)), torch.tensor([[1.0, 6.0, 7.0], [1.0, 2.0, 3.0]]))
    assert torch.equal(project(0.0)(live, context(2)), live)
    half = project()(live.bfloat16(), context(2))
    assert half.dtype is torch.bfloat16 and torch.equal(half.float()[:, 0], torch.ones(2))


def test_sites_layers_and_numbers_tell_cells_apart() -> None:
    arms = [
        Arm("zero", (2,)),
        Arm("zero", (2,), site=Resid(0)),
        Arm("zero", (2,), site=Resid(1)),
        Arm(replace(project(), name="erase"), (2,), site=Resid(1)),
        Arm(replace(project(2.0), name="erase twice"), (2,), site=Resid(1)),
    ]
    assert len(set(keys(*arms))) == len(arms)
    assert len({Plan((arm,)).plan_hash for arm in arms}) == len(arms)
    assert keys(Arm(replace(project(), name="erase"), (2,), site=Resid(1))) == [keys(*arms)[3]], (
        "equal numbers are one edit"
    )
    assert project().stored_as() != project(slot=3).stored_as()
    assert Arm("zero", (2,)) != Arm("zero", (2,), site=Resid(0))
    assert [arm.label for arm in arms[:3]] == ["zero CT2", "zero CT2 after L0", "zero CT2 after L1"]
    assert "resid" not in Plan((Arm("zero", (2,)),)).describe()["arms"][0]
    assert Plan((arms[2],)).describe()["arms"][0]["resid"] == 1


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"change": "skip", "slots": (0,)}, "'skip' has no meaning at a residual stream; .*expected self, swap, mean"),
        ({"change": "zero", "slots": (-1,)}, r"begin-of-thought cannot be edited; got position 0 .*slot -1"),
        ({"change": "zero", "slots": (0,), "after": "freeze_kv"}, "always recomputed; got zero CT0 after L1 fr"),
        ({"change": "zero", "slots": (0,), "after": "freeze_input"}, "Fix: use after='recompute'"),
    ],
)
def test_what_has_no_meaning_there_is_refused(arm: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Arm(**arm, site=Resid(1))
    with pytest.raises(
        PlanError, match="the layer of a Resid is not usable; got -1; expected a whole number, 0 or more"
    ):
        Resid(-1)


def test_an_own_edit_may_do_what_the_named_ones_may_not() -> None:
    arm = Arm("mine", (0,), op=project(slot=0), site=Resid(1))
    assert arm.label == "mine CT0 after L1" and arm.layer == 1
    assert replace(arm, site=Site("fed", [0])).label == "mine CT0"


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (("head", [3]), "unknown kind of site; got 'head'; expected fed, resid"),
        (
            ("fed", [3], 2),
            r"a residual stream has a layer.*got Site\('fed', \[3\], 2\); expected Site\('fed', \[3\]\) or",
        ),
        (("resid", [3]), r"a residual stream has a layer.*got Site\('resid', \[3\], None\)"),
        (("resid", [3], -1), "the layer of a Resid is not usable; got -1"),
        (("fed", []), r"slots must be ascending, distinct and 0 or more; got \[\]; expected at least one slot"),
        (("fed", [2, 1]), r"slots must be ascending, distinct and 0 or more; got \[2, 1\]"),
        (("fed", "CT3"), "an arm's slots are not usable; got 'CT3'"),
    ],
)
def test_sites_that_are_none_are_refused(site: tuple[Any, ...], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Site(*site)


def test_sites_are_shown_in_one_way_and_stand_in_order() -> None:
    assert [Site("fed", s).label() for s in ([3], [0, 1, 2], [0, 2])] == ["CT3", "CT0-CT2", "CT0,CT2"]
    assert [Site("fed", range(6)).label(6), Site("resid", [2], 4).label(6)] == ["all", "CT2 after L4"]
    assert Site("fed", [0]).label(1) == "CT0", "one slot is called by its name"
    sites = [Site("resid", [2], 4), Site("fed", [5]), Site("resid", [2], 1), Site("fed", [1, 2]), Site("fed", [1])]
    assert sorted(sites) == [sites[i] for i in (4, 3, 1, 2, 0)]
