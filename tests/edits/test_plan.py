"""Plans: arms that make sense, donors that are never the host, keys that hang on what defines a cell alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.donors import STRATA, draw_donors
from thoughtgraft.edits.edit import named
from thoughtgraft.edits.known import Swap
from thoughtgraft.edits.plan import Cell, Plan, check_slots
from thoughtgraft.edits.site import Resid, Site, slots_label
from thoughtgraft.errors import PlanError
from thoughtgraft.tasks.problem import Problem, ProblemSet, Ref, Step

IDENTITY: dict[str, Any] = {"model": "weights", "protocol": "official", "dtype": "float32", "num_latents": 6}


def step(op: str, left: int | Ref = 1) -> Step:
    return Step(left if isinstance(left, Ref) else Fraction(left), op, Fraction(1), Fraction(1))


def problem(i: int) -> Problem:
    """Two operations in turn, one step or two, three answers."""
    op = "+*"[i % 2]
    steps = (step(op), step(op, Ref(0)))[: 1 + (i // 2) % 2]
    return Problem(f"p{i}", f"Question {i}?", Fraction(i % 3), steps=steps)


def problems(n: int = 12) -> ProblemSet:
    return ProblemSet(tuple(problem(i) for i in range(n)))


def swaps(*slots: int) -> tuple[Arm, ...]:
    return tuple(Arm("swap", (k,)) for k in slots)


def donors_by_arm(cells: list[Cell]) -> dict[tuple[str, tuple[int, ...]], dict[int, list[int | None]]]:
    found: dict[tuple[str, tuple[int, ...]], dict[int, list[int | None]]] = {}
    for cell in cells:
        found.setdefault((cell.arm.change.name, cell.arm.slots), {}).setdefault(cell.host, []).append(cell.donor)
    return found


# Arms.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"change": "swop", "slots": (0,)},
            r"unknown edit; got 'swop'; expected baseline, noop, self.*did you mean 'swap'\?",
        ),
        (
            {"change": "swap", "slots": (0,), "after": "thaw"},
            "unknown downstream rule; got 'thaw'; expected recompute",
        ),
        (
            {"change": "swap", "slots": 1, "after": "freeze_kv", "downstream": "freeze_input"},
            "downstream is given twice",
        ),
        ({"change": "skip", "slots": 1, "site": Resid(0)}, "'skip' has no meaning at a residual stream"),
        ({"change": "swap", "slots": 1, "site": Site("fed", [1])}, "slots are given twice"),
        ({"change": Swap, "slots": 1}, r"an arm's change is not usable; got Swap; expected Swap\(\), an edit"),
        ({"change": "swap", "slots": 1, "site": 3}, "wrong kind of value for an arm's site; got 3"),
        ({"change": "swap"}, r"arm 'swap' has the wrong slots; got \[\]; expected at least one"),
        ({"change": "baseline", "slots": (1,)}, r"arm 'baseline' has the wrong slots; got \[1\]; expected none"),
        ({"change": "noop", "slots": (1,)}, "arm 'noop' has the wrong slots"),
        ({"change": "swap", "slots": (2, 1)}, r"slots must be ascending, distinct and 0 or more; got \[2, 1\]"),
        ({"change": "swap", "slots": (1, 1)}, "slots must be ascending, distinct"),
        ({"change": "swap", "slots": (-1,)}, "slots must be ascending, distinct and 0 or more"),
        ({"change": "truncate", "slots": (1, 2)}, "truncate names the one slot before which the thoughts end"),
        ({"change": "skip", "slots": (1, 2)}, "skip leaves out one slot.*Fix: use one slot"),
        (
            {"change": "skip", "slots": (1,), "after": "freeze_input"},
            "skip leaves out one slot.*after=freeze_input",
        ),
        (
            {"change": "skip", "slots": (1,), "after": "freeze_kv"},
            "skip leaves out one slot.*after='recompute'",
        ),
    ],
)
def test_arms_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Arm(**arguments)


def test_a_method_of_ones_own_needs_nothing_but_an_op() -> None:
    arm = Arm("mine", [0, 2], op=lambda live, context: live)  # type: ignore[arg-type]
    assert arm.slots == (0, 2)
    assert not arm.needs_donor
    assert Arm("mine", [0, 2], op=arm.change, repeats=True).needs_donor


@pytest.mark.parametrize(
    ("slots", "label"), [((), "-"), ((3,), "CT3"), ((0, 1, 2), "CT0-CT2"), ((0, 2), "CT0,CT2"), ((4, 5), "CT4-CT5")]
)
def test_labels_are_for_people(slots: tuple[int, ...], label: str) -> None:
    assert slots_label(slots) == label
    if slots:
        assert Arm("swap", slots).label == f"swap {label}"
        assert Arm("swap", slots, "freeze_kv").label == f"swap {label} freeze_kv"


# Donors.


@given(n=st.integers(2, 15), seed=st.integers(0, 1000), stratum=st.sampled_from(sorted(STRATA)), data=st.data())
def test_donors_are_distinct_never_the_host_and_of_its_stratum(
    n: int, seed: int, stratum: str, data: st.DataObject
) -> None:
    wanted = data.draw(st.integers(1, n - 1))
    pool = problems(n)
    for host, donors in draw_donors(pool, wanted, seed, stratum).items():
        assert host not in donors
        assert len(set(donors)) == len(donors)
        same = [i for i in range(n) if i != host and STRATA[stratum](pool[i]) == STRATA[stratum](pool[host])]
        assert set(donors) <= set(same)
        assert len(donors) == min(wanted, len(same)), "a small stratum is used up and never filled"


def test_a_small_stratum_is_not_filled_up() -> None:
    same = (Arm("swap", (0,), donors="answer"),)
    cells = Plan(same, n_donors=5).cells(problems(), IDENTITY)
    assert Counter(c.host for c in cells) == dict.fromkeys(range(12), 3)
    alone = ProblemSet((Problem("a", "a?", Fraction(1)), Problem("b", "b?", Fraction(2))))
    assert Plan(same).cells(alone, IDENTITY) == []


def test_every_slot_and_method_gets_the_same_donors() -> None:
    arms = (*swaps(0, 3, 5), Arm("shuffle", (2,)), Arm("swap", (1, 2), "freeze_kv"))
    arms += (Arm("mine", (1,), op=lambda live, context: live, repeats=True),)
    by_arm = list(donors_by_arm(Plan(arms, n_donors=4).cells(problems(), IDENTITY)).values())
    assert len(by_arm) == 6
    assert all(found == by_arm[0] for found in by_arm)
    assert all(len(donors) == 4 for donors in by_arm[0].values())


def test_more_donors_than_other_problems_is_refused_and_exactly_as_many_is_not() -> None:
    with pytest.raises(
        PlanError,
        match=r"12 donors for each of 12 problems; expected 1\.\.11\. Fix: ask for fewer donors, or load more",
    ):
        Plan(swaps(0), n_donors=12).cells(problems(), IDENTITY)
    assert len(Plan(swaps(0), n_donors=11).cells(problems(), IDENTITY)) == 12 * 11
    with pytest.raises(PlanError, match="expected at least 2 problems"):
        Plan(swaps(0)).cells(problems(1), IDENTITY)
    with pytest.raises(PlanError, match="n_donors is not usable; got 0; expected a whole number, 1 or more"):
        Plan(swaps(0), n_donors=0)


def test_one_donor_of_two_problems_is_legal() -> None:
    cells = Plan(swaps(0), n_donors=1).cells(problems(2), IDENTITY)
    assert [(c.host, c.donor) for c in cells] == [(0, 1), (1, 0)]


def test_arms_without_donors_need_only_one_problem() -> None:
    arms = (Arm("baseline"), Arm("zero", (0,)), Arm("noise", (0,)))
    cells = Plan(arms, n_donors=3).cells(problems(1), IDENTITY)
    assert [(c.arm.change.name, c.draw) for c in cells] == [
        ("baseline", None),
        ("zero", None),
        *(("noise", i) for i in range(3)),
    ]


def test_donors_hang_on_the_seed_and_on_content_not_on_other_hosts() -> None:
    first, again, other = (draw_donors(problems(), 3, seed) for seed in (1, 1, 2))
    assert first == again != other
    renamed = ProblemSet(tuple(replace(p, id=f"x{i}") for i, p in enumerate(problems())))
    assert draw_donors(renamed, 3, 1) == first
    few = Plan(swaps(0), n_donors=3, seed=1, hosts=2).cells(problems(), IDENTITY)
    assert {c.host: [d.donor for d in few if d.host == c.host] for c in few} == {h: first[h] for h in (0, 1)}


def test_unknown_strata_are_refused() -> None:
    with pytest.raises(
        PlanError, match="unknown donor stratum; got 'colour'; expected random, operation, steps, answer"
    ):
        Arm("swap", (0,), donors="colour")
    with pytest.raises(PlanError, match=r"'mean' takes nothing from a donor.*Fix: leave donors out"):
        Arm("mean", (0,), donors="steps")


def test_a_donor_that_serves_two_strata_is_one_generation_and_two_records() -> None:
    arms = (Arm("swap", (0,)), Arm("swap", (0,), donors="operation"))
    cells = Plan(arms, n_donors=11, hosts=1).cells(problems(), IDENTITY)
    by_stratum = {name: {c.key for c in cells if c.stratum == name} for name in ("random", "operation")}
    assert len(by_stratum["random"]) == 11
    assert by_stratum["operation"] < by_stratum["random"]
    assert len({c.record for c in cells}) == len(cells) == 11 + 5
    assert Plan.from_triples([(2, 2, 0)]).cells(problems(), IDENTITY)[0].stratum == "self"
    assert Plan((Arm("baseline"),)).cells(problems(), IDENTITY)[0].stratum is None


def test_hosts_right_at_baseline_are_filtered_before_they_are_counted() -> None:
    plan = Plan(swaps(0), n_donors=2, hosts=2, only_correct=True)
    cells = plan.cells(problems(), IDENTITY, None, [i in (3, 5, 8) for i in range(12)])
    assert list(dict.fromkeys(c.host for c in cells)) == [3, 5]
    everyone = {c.key for c in Plan(swaps(0), n_donors=2).cells(problems(), IDENTITY)}
    assert {c.key for c in cells} <= everyone, "donors are drawn from all problems, whoever is a host"
    with pytest.raises(PlanError, match="need the clean answers"):
        plan.cells(problems(), IDENTITY)
    with pytest.raises(PlanError, match=r"no problem is answered right.*got 0 of 12 right"):
        plan.cells(problems(), IDENTITY, None, [False] * 12)


# Cells.


def test_a_plan_is_host_by_host_and_complete() -> None:
    arms = (Arm("baseline"), Arm("noop"), Arm("self", (0,)), *swaps(0, 1), Arm("noise", (2,)), Arm("skip", (5,)))
    cells = Plan(arms, n_donors=2, hosts=3).cells(problems(), IDENTITY)
    assert [c.host for c in cells] == sorted(c.host for c in cells)
    assert Counter(c.host for c in cells) == dict.fromkeys(range(3), 2 + 1 + 4 + 2 + 1)
    assert len({c.key for c in cells}) == len(cells)
    assert len(Plan((Arm("baseline"),), hosts=99).cells(problems(), IDENTITY)) == 12


def test_an_empty_plan_is_refused() -> None:
    with pytest.raises(
        PlanError, match="the plan has nothing to run; expected at least one arm, or at least one triple"
    ):
        Plan(())


@pytest.mark.parametrize("method", [change.name for change in named() if change.takes != "none"])
def test_slot_six_is_refused_for_every_method(method: str) -> None:
    with pytest.raises(
        PlanError, match=r"slot 6 does not exist; got slot 6; expected 0\.\.5 \(CT0\.\.CT5\); the vector after"
    ):
        Plan((Arm(method, (6,)),)).cells(problems(), IDENTITY)


def test_slots_that_do_not_exist_are_refused_with_the_fix() -> None:
    with pytest.raises(
        PlanError, match=r"slot 9 .*Fix: choose an existing slot, or load the model with another num_latents"
    ):
        check_slots((0, 9), 6)
    with pytest.raises(PlanError, match="there is no slot to edit; got slot 0, and a model that is fed no thoughts"):
        check_slots((0,), 0)
    check_slots((), 0)
    check_slots((0, 6), 7)


def test_triples_run_as_given_with_self_and_share_keys_with_the_same_swaps() -> None:
    cells = Plan.from_triples([(3, 1, 0), (0, 0, 5), (3, 1, 4)]).cells(problems(), IDENTITY)
    assert [(c.host, c.donor, c.arm.slots) for c in cells] == [(3, 1, (0,)), (0, 0, (5,)), (3, 1, (4,))]
    assert all(c.arm.change.name == "swap" for c in cells)
    ids = [p.id for p in problems()]
    named = Plan.from_triples([(ids[3], ids[1], 0), (ids[0], ids[0], 5), (ids[3], ids[1], 4)])
    assert named.cells(problems(), IDENTITY) == cells
    assert json.loads(json.dumps(named.describe()))["triples"][0] == [ids[3], ids[1], 0]
    planned = Plan(swaps(0), n_donors=11).cells(problems(), IDENTITY)
    assert cells[0].key in {c.key for c in planned if (c.host, c.donor) == (3, 1)}


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ((0, 1, 6), "slot 6 does not exist.*never fed"),
        ((0, 1, -1), "slot -1 does not exist"),
        ((0, 12, 0), r"a problem that is not there; got 12; expected an id of .*, or a place 0\.\.11"),
        (("nobody", 0, 0), "a triple names a problem that is not there; got 'nobody'; expected an id of"),
        ((-1, 0, 0), "a triple names a problem that is not there; got -1"),
    ],
)
def test_triples_that_do_not_exist_are_refused(triple: tuple[int, int, int], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.from_triples([triple]).cells(problems(), IDENTITY)


# Keys.

PINNED = {
    ("baseline", None): "7d5d8a909f3fb6737187",
    ("swap", 1): "dcc38b1d159ea36ffdee",
    ("noise", None): "be56465cac6628ae3265",
    ("mean", None): "10112c103aaf58c38f69",
}


def test_keys_are_the_same_in_every_version() -> None:
    """Resuming compares keys with those on disk: if this fails, old runs can no longer be continued."""
    arms = (Arm("baseline"), Arm("swap", (2,)), Arm("noise", (0, 1)), Arm("mean", (5,), "freeze_kv"))
    cells = Plan(arms, seed=7, hosts=1).cells(problems(2), IDENTITY)
    assert {(c.arm.change.name, c.donor): c.key for c in cells} == PINNED


def key(
    arm: Arm,
    *,
    identity: dict[str, Any] | None = None,
    seed: int = 0,
    pads: list[int] | None = None,
    donor: int = 1,
    pool: ProblemSet | None = None,
) -> str:
    """The key of one cell: host 0, donor as given."""
    pool = problems() if pool is None else pool
    cells = Plan((arm,), n_donors=len(pool) - 1, seed=seed, hosts=1).cells(pool, {**IDENTITY, **(identity or {})}, pads)
    return next(c.key for c in cells if c.donor in (None, donor) and c.draw in (None, 0))


BASE = Arm("swap", (2,))


def test_keys_differ_when_anything_differs_that_defines_a_cell() -> None:
    shorter = ProblemSet((replace(problem(0), question="Another?"), *problems()[1:]))
    other_donor = ProblemSet((problem(0), replace(problem(1), question="Another?"), *problems()[2:]))
    other_gold = ProblemSet((replace(problem(0), gold=Fraction(77)), *problems()[1:]))
    keys = [
        key(BASE),
        key(Arm("shuffle", (2,))),
        key(Arm("self", (2,))),
        key(Arm("zero", (2,))),
        key(Arm("swap", (3,))),
        key(Arm("swap", (2, 3))),
        key(Arm("swap", (2,), "freeze_input")),
        key(Arm("swap", (2,), "freeze_kv")),
        key(BASE, donor=2),
        key(BASE, pool=shorter),
        key(BASE, pool=other_donor),
        key(BASE, pool=other_gold),
        *(
            key(BASE, identity=change)
            for change in ({"model": "x"}, {"protocol": "official-padded"}, {"dtype": "float64"}, {"num_latents": 7})
        ),
        key(BASE, pads=[0] * 12),
        key(BASE, pads=[1] + [0] * 11),
        key(BASE, pads=[0, 1] + [0] * 10),
    ]
    assert len(set(keys)) == len(keys)


def test_keys_do_not_hang_on_seed_stratum_ids_order_or_what_else_is_planned() -> None:
    pool = problems()
    cells = Plan((BASE,), n_donors=11).cells(pool, IDENTITY)
    wanted = {(pool[c.host].content_hash, pool[c.donor or 0].content_hash): c.key for c in cells}
    turned = ProblemSet(tuple(reversed([replace(p, id=p.id + "x", split="train") for p in pool])), "other name")
    for plan in (
        Plan((BASE,), n_donors=11, seed=5),
        Plan((Arm("baseline"), Arm("noise", (1,)), BASE), n_donors=11),
        Plan((BASE,), n_donors=2, hosts=3),
        Plan((replace(BASE, donors="operation"),), n_donors=3),
    ):
        for block in (pool, turned):
            for cell in plan.cells(block, IDENTITY):
                if replace(cell.arm, donors="random") == BASE and cell.donor is not None:
                    assert cell.key == wanted[block[cell.host].content_hash, block[cell.donor].content_hash]


def test_other_problems_pads_do_not_matter_to_a_swap() -> None:
    assert key(BASE, pads=[1, 2] + [0] * 10) == key(BASE, pads=[1, 2] + [9] * 10)


@pytest.mark.parametrize("method", [change.name for change in named() if change.takes != "none"])
def test_the_seed_matters_only_to_random_edits(method: str) -> None:
    arm = Arm(method, (2,))
    assert (key(arm, seed=0) != key(arm, seed=1)) == (method == "noise")


def test_a_users_op_hangs_on_the_seed_because_it_may_draw() -> None:
    arm = Arm("mine", (2,), op=lambda live, context: live)
    assert key(arm, seed=0) != key(arm, seed=1)


def test_draws_of_one_host_have_different_keys() -> None:
    cells = Plan((Arm("noise", (0,)),), n_donors=4, hosts=1).cells(problems(), IDENTITY)
    assert len({c.key for c in cells}) == 4


@pytest.mark.parametrize("arm", [Arm("mean", (2,)), Arm("mine", (2,), op=lambda live, context: context.mean())])
def test_what_may_use_the_mean_hangs_on_the_set_of_problems_but_not_on_its_order(arm: Arm) -> None:
    pool = problems()
    turned = ProblemSet((pool[0], *reversed(pool[1:])))
    assert key(arm) == key(arm, pool=turned) != key(arm, pool=pool[:11])
    assert key(BASE) == key(BASE, pool=pool[:11])
    assert key(arm, pads=[0] * 12) != key(arm, pads=[0] * 11 + [1])


def test_the_plan_hash_hangs_on_everything_in_the_plan() -> None:
    plan = Plan(swaps(0, 1), n_donors=2)
    others = [
        Plan(swaps(1, 0), n_donors=2),
        replace(plan, n_donors=3),
        replace(plan, seed=1),
        replace(plan, arms=tuple(replace(arm, donors="steps") for arm in plan.arms)),
        replace(plan, only_correct=True),
        replace(plan, hosts=4),
        Plan.from_triples([(0, 1, 0)]),
        Plan.from_triples([(0, 1, 1)]),
    ]
    assert len({p.plan_hash for p in (plan, *others)}) == 1 + len(others)
    assert Plan(swaps(0, 1), n_donors=2).plan_hash == plan.plan_hash
