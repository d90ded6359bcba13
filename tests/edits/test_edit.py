"""A stored run is never continued with another edit; an edit in memory needs no identity at all."""

from __future__ import annotations
import __future__

import linecache
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.edits.test_plan import IDENTITY, problems
from torch import Tensor

from thoughtgraft.edits import known
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.edit import EDITS, Custom, Edit, written
from thoughtgraft.edits.known import Project, Swap
from thoughtgraft.edits.plan import Plan
from thoughtgraft.errors import PlanError

FACTOR = 2.0


def scaled(live: Any, at: Any) -> Any:
    return FACTOR * live


def by(s: Any) -> Any:
    return lambda live, at: s * live


@dataclass(frozen=True)
class Times:
    by: float
    identity: str = "times"

    def __call__(self, live: Any, at: Any) -> Any:
        return self.by * live

    def edit(self, live: Any, at: Any) -> Any:
        return self.by * live


def plan_of(op: Any, identity: str | None = None) -> Plan:
    return Plan([Arm("mine", [3], op=op, identity=identity)])


def from_text(text: str, name: str) -> Any:
    """A function whose source Python can show, as notebooks' cells are."""
    file = f"<{name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {}
    exec(compile(text, file, "exec"), space)
    return space["f"]


def test_in_memory_a_function_needs_no_identity_and_in_a_folder_it_does() -> None:
    bare, named = plan_of(by(2)), plan_of(by(2), "doubled, v1")
    assert bare.arms[0].change.stored_as() is None
    with pytest.raises(
        PlanError,
        match=r"the edit of mine CT3 has no identity.*Fix: Arm\('mine', \[3\], op=\.\.\., identity='mine, v1'\), or",
    ):
        bare.require_identities()
    named.require_identities()
    plan_of(Times(2)).require_identities()
    Plan([Arm("swap", [3]), Arm(Project(torch.eye(2)), [2])]).require_identities()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (by(2), by(9)),
        (by((1, "a")), by((1, "b"))),
        (partial(by(2), at=1), partial(by(2), at=2)),
        (Times(2), Times(3)),
        (Times(2).edit, Times(3).edit),
        (
            from_text("def f(live, at):\n    return 2 * live\n", "a"),
            from_text("def f(live, at):\n    return -live\n", "b"),
        ),
        (lambda live, at, s=2: s * live, lambda live, at, s=3: s * live),
    ],
)
def test_another_text_another_source_and_another_number_are_another_edit(one: Any, other: Any) -> None:
    hashes = {plan_of(op, text).plan_hash for op in (one, other) for text in ("v1", "v2")}
    assert len(hashes) == 4, "a stored run of one is not continued by another"
    assert plan_of(one, "v1").plan_hash == plan_of(one, "v1").plan_hash


def test_a_changed_global_number_is_another_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_of(scaled, "v1").plan_hash
    assert before == plan_of(scaled, "v1").plan_hash
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert plan_of(scaled, "v1").plan_hash != before


def test_where_python_cannot_show_the_source_the_text_and_the_numbers_count() -> None:
    space: dict[str, Any] = {}
    exec("def f(live, at, s=2): return s * live", space)
    assert plan_of(space["f"], "v1").plan_hash != plan_of(space["f"], "v2").plan_hash
    assert written(torch.zeros_like) == written(torch.zeros_like)
    assert plan_of(by(torch.ones(2)), "v1").plan_hash == plan_of(by(torch.zeros(2)), "v1").plan_hash, "said in Custom"


def test_cells_of_one_plan_differ_whether_or_not_they_are_stored() -> None:

    arms = [Arm("a", [3], op=by(2)), Arm("b", [3], op=by(2)), Arm("a", [4], op=by(2))]
    cells = Plan(arms, hosts=1).cells(problems(), IDENTITY)
    assert len({cell.key for cell in cells}) == 3


def test_a_class_of_ones_own_says_who_it_is_and_its_source_is_added() -> None:
    try:

        class Flip(Edit):
            name, words = "flip", "the slot receives minus its own thought"

            def __call__(self, live: Tensor, at: EditContext) -> Tensor:
                return -live

        assert Arm("flip", [2]) != Arm(Flip(), [2])
        with pytest.raises(PlanError, match="the edit of flip CT2 has no identity"):
            Plan([Arm("flip", [2])]).require_identities()
        Flip.identity = "flip, v1"
        Plan([Arm("flip", [2])]).require_identities()
        assert Arm("flip", [2]) == Arm(Flip(), [2])
        assert str(Flip().stored_as()).startswith("flip, v1 ") and len(str(Flip().stored_as())) == 9 + 12
    finally:
        EDITS.pop("flip", None)


def test_numbers_that_an_edit_holds_are_part_of_its_identity() -> None:
    @dataclass
    class Scale(Edit):
        by: float
        name, words, identity = "scale by", "the thought is scaled", "scaled, v1"

        def __call__(self, live: Tensor, at: EditContext) -> Tensor:
            return self.by * live

    try:
        assert Scale(2).stored_as() != Scale(3).stored_as()
        assert {Scale(2).together: 1} != {Scale(2).together: 1}, "rows of each are edited in a call of their own"
        Scale.__module__ = Custom.__module__
        assert Scale(2).stored_as() == "scale by by=2"
        assert Scale(torch.ones(2)).stored_as() is None  # type: ignore[arg-type]
    finally:
        EDITS.pop("scale by", None)


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(PlanError, match="the name 'swap' is taken"):
        type("Swap", (Swap,), {"name": "swap"})
    with pytest.raises(PlanError, match=r"an edit of your own needs a name; got 'a\|b'"):
        type("Odd", (Swap,), {"name": "a|b"})
    assert EDITS["swap"] is Swap


def test_a_plan_tells_its_arms_apart() -> None:
    with pytest.raises(PlanError, match=r"two arms of the plan have one name.*got scale CT3"):
        Plan([Arm("scale", [3], op=by(2)), Arm("scale", [3], op=by(9))])
    with pytest.raises(PlanError, match="got zero CT3"):
        Plan([Arm("zero", [3]), Arm("zero", [3])])
    Plan([Arm("swap", [3]), Arm("swap", [3], "freeze_kv"), Arm("swap", [3], stratum="steps"), Arm("swap", [4])])


def test_names_and_slots_of_arms() -> None:
    assert Arm("swap", 3).slots == (3,)
    with pytest.raises(PlanError, match="'swap' is an edit of its own"):
        Arm("swap", [3], op=by(2))
    with pytest.raises(PlanError, match="an arm's op is a function; got 2"):
        Arm("mine", [3], op=2)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="an edit's identity is text; got 3"):
        Arm("mine", [3], op=by(2), identity=3)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="an arm's identity belongs to an op; got identity, and no op"):
        Arm("swap", [3], identity="mine")


def test_custom_edits_are_equal_where_they_call_one_function() -> None:
    f = by(2)
    assert Custom("a", f) == Custom("a", f) != Custom("a", by(2))
    assert Custom("a", f) != Custom("b", f) and Custom("a", f).together == Custom("b", f).together
    assert Arm("a", [2], op=f) == Arm("a", [2], op=f)


def test_the_edit_of_contributing_is_one_as_it_stands_there() -> None:
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = page.split("## Add an edit")[1].split("```python\n")[1].split("```")[0]
    try:
        strings = __future__.annotations.compiler_flag  # as in the file that the class would stand in
        exec(compile(code, "page", "exec", strings, dont_inherit=True), dict(vars(known)))
        flip = Arm("flip", [2]).change
        assert isinstance(flip, Edit)
        assert torch.equal(flip(torch.ones(2, 3), None), -torch.ones(2, 3))  # type: ignore[arg-type]
    finally:
        EDITS.pop("flip", None)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"words": None}, "the edit 'odd' lacks words; got None; expected str"),
        ({"look": ("#AA3377", "v")}, "the edit 'odd' lacks look; got .*; expected Look"),
        ({"needs": "donor"}, "the edit 'odd' lacks needs; got 'donor'; expected frozenset"),
        ({"needs": frozenset({"doner"})}, "unknown needs of the edit 'odd'; got {'doner'}; expected donor, mean, draw"),
    ],
)
def test_an_edit_whose_facts_cannot_be_used_is_refused_where_it_is_made(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        type("Odd", (Swap,), {"name": "odd", "words": "something odd"} | facts)
    assert "odd" not in EDITS


def test_functions_without_a_source_are_told_apart_by_what_they_were_compiled_to() -> None:
    made = [eval(text) for text in ("lambda live, at: 5 * live", "lambda live, at: -live", "lambda live, at: -live")]
    assert written(made[0]) != written(made[1]) == written(made[2])
    inner = [eval(f"lambda live, at: (lambda x: {n} * x)(live)") for n in (2, 3)]
    assert written(inner[0]) != written(inner[1])


def test_a_helper_that_a_function_calls_is_part_of_how_it_is_written() -> None:
    found = []
    for n in (2, 3):
        space: dict[str, Any] = {}
        exec(f"def helper(x): return {n} * x\ndef f(live, at): return helper(live)", space)
        found.append(written(space["f"]))
    assert found[0] != found[1]
    space = {}
    exec("def f(live, at): return g(live)\ndef g(live): return f(live, None)", space)
    assert len(written(space["f"])) == 12, "functions that call each other end"
