"""What tells two edits of one's own apart, so that a stored run is never continued with another edit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from thoughtgraft.edits.arms import Arm
from thoughtgraft.edits.edit import op_identity
from thoughtgraft.edits.plan import Plan
from thoughtgraft.errors import PlanError

cloudpickle = pytest.importorskip("cloudpickle")  # joblib and Ray bring it
FACTOR = 2.0


def scaled(live, context):
    return FACTOR * live


def outer(live, context):
    return scaled(live, context)


def by(s):
    return lambda live, context: s * live


def recursive(live, context):
    return recursive(live, context) if live is None else live


@dataclass(frozen=True)
class Times:
    by: float

    def __call__(self, live, context):
        return self.by * live


class Keeps:
    def __init__(self, s):
        self.s = s

    def edit(self, live, context):
        return self.s * live


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (by(2.0), by(2.0), by(9.0)),
        (lambda live, context: 2 * live, lambda live, context: 2 * live, lambda live, context: 9 * live),
        (by(torch.ones(3)), by(torch.ones(3)), by(torch.zeros(3))),
        (by(np.ones(3)), by(np.ones(3)), by(np.arange(3.0))),
        (by({"a": [1, {2}]}), by({"a": [1, {2}]}), by({"a": [1, {3}]})),
        (partial(scaled, context=1), partial(scaled, context=1), partial(scaled, context=2)),
        (Times(2.0), Times(2.0), Times(3.0)),
        (by(by(1)), by(by(1)), by(by(2))),
        (by(slice(0, 3)), by(slice(0, 3)), by(slice(3, 6))),
        (by(torch.float16), by(torch.float16), by(torch.float64)),
        (by(torch.tensor([1j])), by(torch.tensor([1j])), by(torch.tensor([2j]))),
        (by({1: 2, "1": [3]}), by({1: 2, "1": [3]}), by({1: 2, "1": [4]})),
        (by(np.array([1, "a"], object)), by(np.array([1, "a"], object)), by(np.array([1, "b"], object))),
        (by(torch.eye(2).to_sparse()), by(torch.eye(2).to_sparse()), by(torch.eye(3).to_sparse())),
        (by(pd.Series([1, 2])), by(pd.Series([1, 2])), by(pd.Series([1, 3]))),
        (by(torch.empty(2, device="meta")),) * 2 + (by(torch.empty(3, device="meta")),),
        (by(torch.ones(2, dtype=torch.bfloat16)), by(torch.ones(2, dtype=torch.bfloat16)), by(torch.ones(2))),
    ],
)
def test_code_and_values_count(one, same, other):
    assert op_identity(one).split()[-1] == op_identity(same).split()[-1]
    assert op_identity(one).split()[-1] != op_identity(other).split()[-1]


def test_a_changed_global_is_another_edit(monkeypatch):
    before = [op_identity(op) for op in (scaled, outer)]
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    after = [op_identity(op) for op in (scaled, outer)]
    assert not set(before) & set(after), "also of a function that it calls"


def test_what_cannot_be_looked_into_is_told_by_its_type():
    assert op_identity(recursive) == op_identity(recursive)
    assert op_identity(by(object())) == op_identity(by(object()))
    assert op_identity(torch.zeros_like).startswith("torch")


class Called:
    def __call__(self, live, context):
        return live


class CalledOtherwise:
    def __call__(self, live, context):
        return -live


CalledOtherwise.__qualname__ = "Called"


def test_objects_are_told_by_their_code_and_attributes():
    assert op_identity(Keeps(1).edit) == op_identity(Keeps(1).edit) != op_identity(Keeps(2).edit)
    assert op_identity(Called()) == op_identity(Called()) != op_identity(CalledOtherwise())
    torch.manual_seed(0)
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert op_identity(one) == op_identity(one) != op_identity(other)


slot = 1


def test_an_attributes_name_is_no_global(monkeypatch):
    def reads(live, context):
        return live * context.slot

    before = op_identity(reads)
    monkeypatch.setitem(globals(), "slot", 2)
    assert op_identity(reads) == before
    again = cloudpickle.loads(cloudpickle.dumps(reads))
    assert op_identity(again).split()[-1] == before.split()[-1]


def test_it_is_the_same_in_another_process():
    code = (
        "from thoughtgraft.edits.edit import op_identity\n"
        "names = {'b', 'a', 'c'}\n"
        "print(op_identity(lambda live, context: [names, 2 * live]))"
    )
    made = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(3)}
    assert len(made) == 1 and made.pop().startswith("__main__.<lambda> ")


def test_a_plan_tells_its_arms_apart():
    with pytest.raises(PlanError, match=r"two arms of the plan have one name.*got scale CT3"):
        Plan([Arm("scale", [3], op=by(2)), Arm("scale", [3], op=by(9))])
    with pytest.raises(PlanError, match="got zero CT3"):
        Plan([Arm("zero", [3]), Arm("zero", [3])])
    Plan([Arm("swap", [3]), Arm("swap", [3], "freeze_kv"), Arm("swap", [3], stratum="steps"), Arm("swap", [4])])
    hashes = {Plan([Arm("scale", [3], op=by(s))]).plan_hash for s in (2, 9)}
    assert len(hashes) == 2, "a stored run of one is not continued by the other"


def test_names_and_slots_of_arms():
    assert Arm("swap", 3).slots == (3,)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="'swap' is a method of its own"):
        Arm("swap", [3], op=by(2))
    with pytest.raises(PlanError, match="an arm's op is a function; got 2"):
        Arm("mine", [3], op=2)  # type: ignore[arg-type]
