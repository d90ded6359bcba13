"""The Python door: what a user passes is taken or refused in one sentence, never by another library's exception."""

from __future__ import annotations

import math
import os
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import thoughtgraft
from thoughtgraft import Resid
from thoughtgraft.arguments import (
    LARGEST_SEED,
    answers_for_calls,
    choice,
    closest,
    path_of,
    positive,
    seed_of,
    shown,
    typed_number,
    whole,
)
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.errors import PlanError, ProblemError, RunError, ThoughtgraftError
from thoughtgraft.records.store import check_folder, prove_writable
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.numbers import as_number, format_number, parse_number
from thoughtgraft.tasks.problem import Problem, ProblemSet, Ref, Step


def an_edit(live: Any, context: Any) -> Any:
    return live


# ---- numbers, choices, paths, calls ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_of_every_library_are_ints(value: Any) -> None:
    found = whole(value, "it", PlanError)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize(
    "value", [True, np.True_, np.array(True), torch.tensor(True), 3.0, np.float32(3), "3", None, [3], np.array([3, 4])]
)
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(PlanError, match=r"it is not usable; got .*; expected a whole number"):
        whole(value, "it", PlanError)


def test_bounds_are_both_allowed_and_named() -> None:
    assert [whole(k, "it", PlanError, least=0, most=5) for k in (0, 5)] == [0, 5]
    for value, options, told in [
        (6, {"least": 0, "most": 5}, r"got 6; expected a whole number, 0\.\.5"),
        (-1, {"least": 0}, "expected a whole number, 0 or more"),
        (6, {"most": 5}, "expected a whole number, at most 5"),
    ]:
        with pytest.raises(PlanError, match=told):
            whole(value, "it", PlanError, **options)


def test_seeds_are_those_that_records_can_keep_and_that_differ() -> None:
    assert seed_of(LARGEST_SEED, PlanError) == LARGEST_SEED
    for seed in (-1, LARGEST_SEED + 1, 1.5, None, "a", True):
        with pytest.raises(PlanError, match=r"the seed is not usable; got .*; expected a whole number, 0\.\."):
            seed_of(seed, PlanError)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "32", True, None, [1.0]])
def test_what_is_no_positive_number_is_refused(value: Any) -> None:
    assert positive(np.float32(0.5), "it", PlanError) == 0.5
    with pytest.raises(PlanError, match=r"it is not usable; got .*; expected a number above 0"):
        positive(value, "it", PlanError)


def test_a_choice_that_is_nearly_right_is_told() -> None:
    assert choice("full", "preset", ("pilot", "full"), PlanError) == "full"
    with pytest.raises(PlanError) as told:
        choice("Pilot", "preset", ("pilot", "full"), PlanError)
    assert str(told.value) == "unknown preset; got 'Pilot'; expected pilot, full. Fix: did you mean 'pilot'?"
    with pytest.raises(PlanError, match=r"Fix: think again"):
        choice("zebra", "preset", ("pilot", "full"), PlanError, fix="think again")
    assert closest(["pilot"], ("pilot",)) is None


def test_paths_begin_at_home_where_they_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/x", "it") == path_of(Path("~/x"), "it") == tmp_path / "x"
    with pytest.raises(RunError, match=r"it begins with a home folder that does not exist; got '~nosuchuser/x'"):
        path_of("~nosuchuser/x", "it")
    for value in ("", "  ", "a\0b", None, 3, True, ["x"]):
        with pytest.raises(RunError, match=r"it is not usable; got .*; expected text that is not empty, or a Path"):
            path_of(value, "it")
    with pytest.raises(RunError, match=r"it is not usable; got 'a\\udcff'; expected text in UTF-8"):
        path_of("a\udcff", "it")


def test_a_number_is_typed_in_digits_and_not_without_end() -> None:
    assert [typed_number(text) for text in ("0", "12", "", "-1", "1.0", "x", "9" * 5_000)] == [0, 12, *[None] * 5]


@pytest.mark.parametrize(
    "value", [10**5000, "a\nb" * 100, Fraction(10**5000, 3), pd.DataFrame({"a": range(99)})], ids=shown
)
def test_whatever_is_shown_is_one_short_line(value: Any) -> None:
    text = shown(value)
    assert len(text) <= 80 and len(text.splitlines()) == 1


def test_a_call_that_does_not_fit_is_answered_and_errors_from_inside_are_not_touched() -> None:
    @answers_for_calls(PlanError)
    def f(slots: int, *, seed: int = 0) -> int:
        return slots + seed

    assert f(1, seed=2) == 3
    with pytest.raises(PlanError) as told:
        f(slot=1)  # type: ignore[call-arg]
    assert str(told.value) == (
        "f was called with other arguments than it has; got missing a required argument: 'slots'; "
        "expected f(slots, seed). Fix: did you mean 'slots'?"
    )
    with pytest.raises(TypeError, match=r"can only concatenate str"):
        f("a")  # type: ignore[arg-type]


# ---- arms and plans ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Arm("zero", [2], site=3), r"wrong kind of value for an arm's site; got 3 \(int\).*Fix: site=Resid"),
        (lambda: Arm("swap", "2"), "an arm's slots are not usable; got '2'; expected a number, or a list of them"),
        (lambda: Arm("swap", ["CT2"]), r"an arm's slot is not usable; got 'CT2'.*Arm\('swap', \[2\]\) edits CT2"),
        (lambda: Arm("swap", [2.0]), r"an arm's slot is not usable; got 2\.0"),
        (lambda: Arm("swap", [True]), "an arm's slot is not usable; got True"),
        (lambda: Arm("swap", True), "an arm's slot is not usable; got True"),
        (lambda: Arm("swap", None), "an arm's slots are not usable; got None"),
        (lambda: Arm("swap", {2: 1}), "an arm's slots are not usable; got {2: 1}"),
        (lambda: Arm("swap", np.array([[1, 2]])), r"an arm's slot is not usable; got array\(\[1, 2\]\)"),
        (lambda: Arm(["swap"], [2]), r"unknown edit; got \['swap'\]"),
        (lambda: Arm("", [2], op=an_edit), "an edit of your own needs a name; got ''"),
        (lambda: Arm("a|b", [2], op=an_edit), r"an edit of your own needs a name; got 'a\|b'"),
        (lambda: Arm("mine", [2], op=an_edit, repeats="yes"), "wrong kind of value for an arm's repeats; got 'yes'"),
        (lambda: Arm("swap", [2], ["freeze_kv"]), r"unknown downstream rule; got \['freeze_kv'\]"),
        (lambda: Arm("swap", [2], stratum="Answer"), r"unknown donor stratum; got 'Answer'.*mean 'answer'\?"),
        (lambda: Arm("swap", slot=[2]), r"Arm was called with other arguments.*'slot'.*did you mean 'slots'\?"),
        (lambda: Resid("3"), "the layer of a Resid is not usable; got '3'"),
        (lambda: Resid(True), "the layer of a Resid is not usable; got True"),
        (lambda: Plan(Arm("swap", [2])), r"a plan's arms are not usable; got Arm\(.*expected a list of Arms"),
        (lambda: Plan(["swap"]), r"wrong kind of value for one of the plan's arms; got 'swap' \(str\)"),
        (lambda: Plan(None), "a plan's arms are not usable; got None"),
        (lambda: Plan([Arm("swap", [2])], n_donors=True), "n_donors is not usable; got True"),
        (lambda: Plan([Arm("swap", [2])], n_donors=-1), "n_donors is not usable; got -1.*1 or more"),
        (lambda: Plan([Arm("swap", [2])], n_donors=2.0), r"n_donors is not usable; got 2\.0"),
        (lambda: Plan([Arm("swap", [2])], seed=10**40), "the seed is not usable; got 1000"),
        (lambda: Plan([Arm("swap", [2])], hosts=[0, 1]), r"hosts is not usable; got \[0, 1\]"),
        (lambda: Plan([Arm("swap", [2])], only_correct="no"), "wrong kind of value for only_correct; got 'no'"),
        (lambda: Plan([Arm("swap", [2])], triples=[(0, 1, 2)]), "the plan has both arms and triples"),
        (
            lambda: Plan.from_triples([(0, 1)]),
            r"one of the triples is not usable; got \(0, 1\); expected a list of \(ho",
        ),
        (lambda: Plan.from_triples([(0, 1, 2.7)]), r"the slot of a triple is not usable; got 2\.7"),
        (lambda: Plan.from_triples(None), "a plan's triples are not usable; got None"),
    ],
)
def test_arms_and_plans_refuse_in_one_sentence(call: Any, told: str) -> None:
    with pytest.raises(PlanError, match=told):
        call()


def test_numpys_numbers_generators_and_lists_make_the_same_plan() -> None:
    plain = Plan((Arm("swap", (0,)), Arm("swap", (1,))), n_donors=2, seed=3, hosts=4)
    made = Plan((Arm("swap", np.int64(k)) for k in range(2)), n_donors=np.int32(2), seed=np.int64(3), hosts=np.int8(4))
    assert made == plain and made.plan_hash == plain.plan_hash
    assert Arm("swap", np.arange(2)).slots == Arm("swap", range(2)).slots == (0, 1)
    assert type(Arm("swap", np.arange(2)).slots[0]) is int
    assert Plan.from_triples([[0, np.int64(1), 2]]).triples == ((0, 1, 2),)


# ---- problems ----------------------------------------------------------------------------------------------------

STEP = Step(Fraction(1), "+", Fraction(2), Fraction(3))


@pytest.mark.parametrize(
    "gold", ["3.5", 3.5, Decimal("3.5"), Fraction(7, 2), np.float32(3.5), np.float64(3.5), "$3.50", " 7/2 "]
)
def test_a_gold_answer_of_any_kind_is_exact(gold: Any) -> None:
    assert Problem("a", "q?", gold) == Problem("a", "q?", Fraction(7, 2))
    assert Problem("a", "q?", np.float32(0.1)).gold == Problem("a", "q?", 0.1).gold == "0.1"


@pytest.mark.parametrize(
    "gold",
    [
        "three",
        "",
        True,
        [3],
        math.nan,
        -math.inf,
        Decimal("NaN"),
        Decimal("1E+999999999999"),
        10**5000,
        1e300 * 10,
        b"3",
    ],
    ids=shown,
)
def test_what_is_no_number_is_no_gold_answer(gold: Any) -> None:
    with pytest.raises(
        ProblemError, match=r"the gold answer of problem 'a' is no number; got .*; expected a number, or"
    ):
        Problem("a", "q?", gold)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Problem(gold="3"), "Problem was called with other arguments than it has; got missing a required arg"),
        (lambda: Problem("a", None, 3), r"wrong kind of value for the question of problem 'a'; got None \(NoneType\)"),
        (lambda: Problem(1, "q?", 3), "a problem needs an id; got 1; expected text"),
        (lambda: Problem("a", "q?", 3, None), "wrong kind of value for the solution of problem 'a'"),
        (lambda: Problem("a", "q?", 3, split=None), "wrong kind of value for the split of problem 'a'"),
        (lambda: Problem("a", "q?", 3, steps="1+2=3"), "the steps of problem 'a' are not usable; got '1"),
        (lambda: Problem("a", "q?", 3, steps=["1+2=3"]), "wrong kind of value for a step of problem 'a'; got '1"),
        (
            lambda: Problem("a", "q?", 3, steps=[Step(Ref(0), "+", 1, 2)]),
            r"step 0 of problem 'a' rests on a step that does not come before it; got Ref\(0\); expected numbers alone",
        ),
        (lambda: Step("x", "+", 1, 2), "the left of a step is no number; got 'x'"),
        (lambda: Step(1, ["+"], 1, 2), r"a step has an unknown operator; got \['\+'\]"),
        (lambda: Ref(-1), "the step that an operand names is not usable; got -1"),
        (lambda: Problem("a", "q?", 3, steps=[STEP]).answer_with("0", 3), "the step is not usable; got '0'"),
        (lambda: Problem("a", "q?", 3, steps=[STEP]).answer_with(0, "x"), "in the place of a step's is no number"),
        (lambda: ProblemSet(Problem("a", "q?", 3)), "problems are not usable; got Problem"),
        (lambda: ProblemSet([{"question": "q", "answer": 3}]), "one of the problems .*load_problems makes one of rows"),
        (lambda: ProblemSet(None), "problems are not usable; got None"),
        (lambda: ProblemSet((), 3), "wrong kind of value for the name of a problem set; got 3"),
        (lambda: ProblemSet([Problem("a", "q?", 3)])["a"], r"no such place; got 'a'.*problems.by_id\('test_51'\)"),
        (lambda: load_problems(None), "problems are not usable; got None"),
        (lambda: load_problems({"question": ["q"], "answer": [3]}), "problems are not usable; got {.*take one"),
        (lambda: load_problems([]), "there are no problems; got an empty list"),
        (lambda: load_problems([{"q": "x", "answer": 3}]), "row 0: the field 'question' is missing"),
        (lambda: load_problems(["q"]), "row 0: not an object with fields; got 'q'"),
        (lambda: load_problems("arithmetic", n="3"), "the number of problems is not usable; got '3'"),
        (lambda: load_problems("arithmetic", n=1, seed=-1), "the seed is not usable; got -1"),
        (lambda: load_problems("arithmetik"), r"unknown problems; got 'arithmetik'.*did you mean 'arithmetic'\?"),
        (lambda: load_problems("GSM8K"), r"did you mean 'gsm8k:test'\?"),
        (lambda: load_problems("a\0b.jsonl"), "the file of problems is not usable"),
        (lambda: load_problems("./nothere"), "nothere: not a file of problems; got ''; expected .jsonl or .json"),
    ],
)
def test_problems_refuse_in_one_sentence(call: Any, told: str) -> None:
    with pytest.raises(ProblemError, match=told):
        call()


def test_rows_lists_and_tables_are_problems() -> None:
    rows = [{"question": f"{i} and 1?", "answer": i + 1} for i in range(3)]
    found = load_problems(rows)
    assert found == load_problems(pd.DataFrame(rows)) == load_problems(list(found)) == load_problems(found)
    assert [p.id for p in found] == ["given_0", "given_1", "given_2"] and found[2].gold == "3"
    assert load_problems(rows, n=2, seed=1) == load_problems(pd.DataFrame(rows), n=2, seed=1)
    assert ProblemSet(p for p in found) == ProblemSet(tuple(found)) and hash(found)


# ---- junk --------------------------------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.decimals(),
    st.fractions(),
    st.sampled_from(
        ["swap", "zero", "baseline", "recompute", "freeze_kv", "random", "answer", Resid(1), Ref(0), Ref, STEP, an_edit]
    ),
    st.sampled_from(
        [10**5000, np.int64(2), np.float32(2), np.True_, np.array([1, 2]), np.array(2), Path("x"), object()]
    ),
    st.sampled_from(
        [torch.tensor(2), torch.tensor([1.0]), pd.NA, pd.NaT, pd.DataFrame({"a": [1]}), slice(1), range(3)]
    ),
)
ANY = st.one_of(
    JUNK,
    st.lists(JUNK, max_size=3),
    st.lists(st.lists(JUNK, max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=3), JUNK, max_size=2),
    st.sets(st.integers(0, 5), max_size=3),
)


def ours_or_none(call: Any, *args: Any, **options: Any) -> Any:
    """What a call gives; None where it was refused by an error of ours with words in it."""
    try:
        return call(*args, **options)
    except ThoughtgraftError as error:
        assert str(error).strip() and "\n" not in str(error)
        return None


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY, max_size=3), st.dictionaries(st.sampled_from(["op", "repeats", "stratum", "site", "slots"]), ANY))
def test_junk_makes_a_sound_arm_or_is_refused(args: list[Any], options: dict[str, Any]) -> None:
    arm = ours_or_none(Arm, *args, **options)
    if arm is not None:
        assert all(type(slot) is int and slot >= 0 for slot in arm.slots) and isinstance(arm.label, str)
        assert Plan([arm]).describe()["arms"][0]["slots"] == list(arm.slots) and hash(arm)


@settings(max_examples=300, deadline=None)
@given(ANY, st.dictionaries(st.sampled_from(["n_donors", "seed", "hosts", "only_correct", "triples", "n"]), ANY))
def test_junk_makes_a_sound_plan_or_is_refused(arms: Any, options: dict[str, Any]) -> None:
    for given_arms in (arms, [Arm("swap", [2])]):
        plan = ours_or_none(Plan, given_arms, **options)
        assert plan is None or len(plan.plan_hash) == 20


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["id", "question", "gold", "solution", "steps", "split", "template"]), ANY),
    st.booleans(),
)
def test_junk_makes_a_sound_problem_or_is_refused(options: dict[str, Any], named: bool) -> None:
    problem = ours_or_none(Problem, **({"id": "a", "question": "q?", "gold": 3} if named else {}) | options)
    if problem is not None:
        assert problem.gold is None or NUMBER.canonical(problem.gold) == problem.gold
        assert len(problem.content_hash) == 16 and problem.operation


@settings(max_examples=300, deadline=None)
@given(ANY, st.dictionaries(st.sampled_from(["n", "seed", "sampling"]), ANY))
def test_junk_makes_problems_or_is_refused(spec: Any, options: dict[str, Any]) -> None:
    found = ours_or_none(load_problems, spec, **options)
    assert found is None or len(found)
    row = {"question": "q?", "answer": spec}
    assert (found := ours_or_none(load_problems, [row])) is None or found[0].gold is not None
    ours_or_none(ProblemSet, spec)
    ours_or_none(Step, spec, "+", 1, spec)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.fractions(), st.integers(), st.decimals(), st.floats()))
def test_every_number_that_is_taken_can_be_written_and_read_again(value: Any) -> None:
    number = as_number(value)
    assert number is None or parse_number(format_number(number)) == number
    assert number is None or math.isfinite(float(number))


# ---- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_is_proved_writable_and_nothing_is_left(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new", tmp_path / "a" / "b" / "c"):
        prove_writable(folder)
        check_folder(folder)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place, told in [
        (file, "file is a file; expected a folder"),
        (file / "below" / "it", "file is a file; expected a folder"),
        (tmp_path / ("x" * 300), "cannot be written; got File name too long.*Fix: choose a shorter name"),
    ]:
        with pytest.raises(RunError, match=told):
            check_folder(place)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes nobody's files, not root's either")
def test_permissions_alone_are_not_believed() -> None:
    assert os.access("/proc", os.X_OK)
    with pytest.raises(RunError, match=r"the folder /proc/nothere/x cannot be written; got "):
        check_folder("/proc/nothere/x")


def test_a_misspelt_name_of_the_package_is_told_by_python() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'load_modle'") as told:
        thoughtgraft.load_modle  # noqa: B018
    assert (told.value.name, told.value.obj) == ("load_modle", thoughtgraft)
