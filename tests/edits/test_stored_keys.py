"""Keys and plan hashes of every built-in arm, as stored by an earlier version: runs go on, noise is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.edits.test_plan import IDENTITY, problems

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.edit import EDITS
from thoughtgraft.edits.known import Project
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.schedule import AFTER
from thoughtgraft.edits.site import Resid, Site

STORED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "stored_keys.json").read_text())
ARMS = [name for name in STORED if name.startswith("[")]
PADS = [i % 3 for i in range(12)]


def known_by(plan: Plan) -> dict[str, Any]:
    cells = [[cell.key for cell in plan.cells(problems(), IDENTITY, pads)] for pads in (None, PADS)]
    return {"plan": plan.plan_hash, "cells": cells[0], "padded": cells[1]}


@pytest.mark.parametrize("name", ARMS)
def test_built_in_arms_keep_their_keys(name: str) -> None:
    method, slots, after, layer, donors = json.loads(name)
    short = Arm(method, slots, after, stratum=donors, site=None if layer is None else Resid(layer))
    assert known_by(Plan([short], n_donors=2, seed=7, hosts=1)) == STORED[name]
    if slots:
        site = Site("fed", slots) if layer is None else Site("resid", slots, layer)
        assert Arm(EDITS[method](), site, after, donors) == short


def test_no_edit_that_was_stored_is_gone() -> None:
    found = {(method, after) for method, _, after, _, _ in map(json.loads, ARMS)}
    assert len({method for method, _ in found}) >= 10
    assert {method for method, _ in found} <= set(EDITS)
    assert {after for method, after in found if method == "swap"} == set(AFTER)


def test_triples_keep_their_keys_and_whole_plans_their_hash() -> None:
    assert known_by(Plan.from_triples([(3, 1, 0), (0, 0, 5)], seed=7)) == STORED["triples"]
    methods = ("self", "swap", "mean", "zero", "noise", "skip", "truncate", "shuffle")
    arms = [Arm("baseline"), Arm("noop"), *(Arm(method, [k]) for method in methods for k in range(6))]
    assert Plan(arms, n_donors=3, seed=1).plan_hash == STORED["whole"]["plan"]


class Known(Project):
    """A projection whose numbers were hashed to the text that the stored arm has."""

    def stored_as(self) -> str:
        return "project 0123456789"


Known.__module__ = Project.__module__


def test_projections_keep_theirs() -> None:
    import torch

    arm = Arm(Known(torch.eye(2), "erase"), [2], site=Resid(1))
    assert known_by(Plan([arm], seed=7, hosts=1)) == STORED["own"]
