"""Edits of residual streams: engine and reference agree, only what is edited changes, and nothing stays behind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from tests.engine.tiny import EARLY_ENDS, FAMILIES, Case, Oracle, difference, own_op, questions, run_cases, tiny
from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.edit import named
from thoughtgraft.edits.known import Project, Projection
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.site import Resid
from thoughtgraft.engine.rows import Source
from thoughtgraft.engine.run import run
from thoughtgraft.engine.states import states_of
from thoughtgraft.engine.verify.records import CHECKS, Records
from thoughtgraft.engine.verify.trial import Trial
from thoughtgraft.errors import PlanError
from thoughtgraft.tasks.problem import Problem, ProblemSet

K = 6
EVERY = pytest.mark.parametrize("family", FAMILIES)
SLOTS = ((0,), (2,), (5,), (1, 4), tuple(range(K)))


@functools.cache
def oracle(family: str) -> Oracle:
    model = tiny(family, max_new_tokens=6, ends=EARLY_ENDS[family])
    return Oracle(model, [model.prompt(q) for q in questions(family)[:4]])


@functools.cache
def linear(width: int, seed: int = 0) -> Project:
    """A random affine projection at each slot, far from orthogonal."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u, v = draw(K, width, 2), draw(K, width, 2)
    return Project({k: Projection(u[k] / width**0.5, v[k] / width**0.5, draw(width)) for k in range(K)}, "erase")


def identity(live: Tensor, context: EditContext) -> Tensor:
    return live


def cases(family: str) -> list[Case]:
    """Random linear edits at every layer, zeros, and edits of what is fed, mixed on the same hosts."""
    model = oracle(family).model
    depth, op = len(model.layers), linear(model.d_model)
    arms = [Arm("random", slots, op=op, site=Resid(layer)) for layer in range(depth) for slots in SLOTS]
    arms += [Arm("zero", (3,), site=Resid(layer)) for layer in range(depth)]
    arms += [Arm("zero", (3,)), Arm("swap", (1, 4)), Arm("baseline"), Arm("noop"), Arm("own", (2,), op=own_op)]
    return [
        Case(arm, i % 3, (i + 1) % 3 if arm.change.name in ("swap", "own") else None, f"cell-{i}")
        for i, arm in enumerate(arms)
    ]


@EVERY
def test_engine_and_reference_agree_at_every_layer_and_slot(family: str) -> None:
    runs, chosen = oracle(family), cases(family)
    source = Source.from_fed(runs.fed())
    whole = run_cases(runs.model, runs.prompts, chosen, source)
    assert whole.answers.first_logits is not None
    last = len(runs.model.layers) - 1
    for i, case in enumerate(chosen):
        wanted = runs.run(case.arm, case.host, case.donor, case.key)
        assert difference(whole.answers.first_logits[i], wanted.first_logits) < 1e-9, case
        assert whole.answers.token_ids[i] == wanted.token_ids, case
        gap = difference(wanted.first_logits, runs.clean(case.host).first_logits)
        # After the last block of the last thought nothing reads the stream any more.
        dead = case.arm.layer == last and case.arm.slots == (K - 1,)
        assert (gap == 0) == (dead or case.arm.change.takes == "none"), case
    alone = run_cases(runs.model, runs.prompts, chosen[:3], source)
    assert alone.answers.first_logits is not None
    assert difference(alone.answers.first_logits, whole.answers.first_logits[:3]) < 1e-9


@EVERY
def test_the_identity_changes_nothing_and_hooks_do_not_stay(family: str) -> None:
    runs = oracle(family)
    depth = len(runs.model.layers)
    arms = [Arm("same", slots, op=identity, site=Resid(layer)) for layer in range(depth) for slots in SLOTS]
    result = run_cases(runs.model, runs.prompts, [Case(arm, 0) for arm in arms], Source.from_fed(runs.fed()))
    assert result.answers.first_logits is not None
    for logits in result.answers.first_logits:
        assert difference(logits, runs.clean(0).first_logits) < 1e-9

    def broken(live: Tensor, context: EditContext) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case = Case(Arm("broken", (1,), op=broken, site=Resid(0)), 0)
        run_cases(runs.model, runs.prompts, [case], Source.from_fed(runs.fed()))
    assert not any(block._forward_hooks for block in runs.model.layers)


def test_an_edit_receives_the_features_of_its_layer_and_position() -> None:
    """What a study fits on is what the edit is given."""
    runs = oracle("codi-gpt2")
    depth = len(runs.model.layers)
    resid, _ = states_of(runs.model, runs.prompts, range(depth))
    heard: dict[tuple[int, int], Tensor] = {}

    def listener(layer: int) -> object:
        def listen(live: Tensor, context: EditContext) -> Tensor:
            heard[layer, context.slot] = live.clone()
            return live

        return listen

    arms = [Arm(f"l{layer}", (k,), op=listener(layer), site=Resid(layer)) for layer in range(depth) for k in range(K)]
    run_cases(runs.model, runs.prompts, [Case(arm, 2) for arm in arms], Source.from_fed(runs.fed()))
    assert len(heard) == depth * K
    for (layer, slot), live in heard.items():
        assert difference(live[0], resid[2, slot + 1, layer]) < 1e-9


def test_records_name_the_site_and_a_layer_that_is_not_there_is_refused() -> None:
    model = tiny("codi-gpt2", "float32", max_new_tokens=3)
    problems = ProblemSet(tuple(Problem(f"p{i}", text, None) for i, text in enumerate(questions("codi-gpt2")[:2])))
    op = linear(model.d_model)
    arms = (Arm("baseline"), Arm(op, (1,), site=Resid(0)), Arm(op, (1,), site=Resid(1)))
    records = run(model, problems, Plan(arms), progress=False)
    assert list(records["arm"])[:3] == ["baseline", "erase CT1 after L0", "erase CT1 after L1"]
    assert list(records["method"])[1:3] == ["erase", "erase"] and list(records["site_layer"])[1:3] == [0, 1]
    assert list(records["site_kind"].astype(object))[1:3] == ["resid", "resid"] and records["site_kind"].isna()[0]
    assert records["fed_norm"].isna().all()
    with pytest.raises(PlanError, match=r"has no layer 9; got erase CT1 after L9; expected layers 0..\d"):
        run(model, problems, Plan((Arm(op, (1,), site=Resid(9)),)), progress=False)


# Edits that read clean streams.


@functools.cache
def exact() -> tuple[Any, ProblemSet, Tensor]:
    """A float64 model, problems, and their clean streams [N, K + 1, L, d]."""
    model = tiny("codi-llama", max_new_tokens=4)
    asked = questions("codi-llama")[:4]
    problems = ProblemSet(tuple(Problem(f"p{i}", text, "7") for i, text in enumerate(asked)))
    return model, problems, states_of(model, [model.prompt(text) for text in asked], range(len(model.layers)))[0]


def records_of(*arms: Arm) -> pd.DataFrame:
    model, problems, _ = exact()
    return run(model, problems, Plan((Arm("baseline"), *arms), n_donors=2), progress=False)


def test_ones_own_stream_changes_nothing_and_a_donors_does_what_its_vectors_do() -> None:
    model, problems, streams = exact()
    number = {problem.id: i for i, problem in enumerate(problems)}
    depth = len(model.layers)

    def own(layer: int) -> Callable[[Tensor, EditContext], Tensor]:
        return lambda live, at: streams[[number[name] for name in at.donor_ids], at.slot + 1, layer]

    places = [(slots, layer) for layer in range(depth) for slots in ([0], [2, 4])]
    same = records_of(*(Arm("self", slots, site=Resid(layer)) for slots, layer in places))
    assert not same["changed"].any() and float(same["kl"].abs().max()) < 1e-12
    swapped = records_of(*(Arm("swap", slots, site=Resid(layer)) for slots, layer in places))
    written = records_of(*(Arm("put", s, op=own(layer), repeats=True, site=Resid(layer)) for s, layer in places))
    assert swapped["text"].tolist() == written["text"].tolist()
    moved = swapped["donor_id"].notna()
    measured = swapped.loc[moved, "kl"].dropna()
    assert len(measured) > 10 and (measured > 1e-9).all(), "a donor's stream reaches the answer"
    assert float((swapped["kl"] - written["kl"]).abs().max()) < 1e-12


def test_an_edit_is_given_the_clean_streams_of_its_site_and_what_was_fed_by_name() -> None:
    _, problems, streams = exact()
    others = [torch.cat([streams[:i], streams[i + 1 :]]).mean(0) for i in range(len(problems))]
    seen: list[int] = []

    def listen(live: Tensor, at: EditContext) -> Tensor:
        for i, (host, donor) in enumerate(zip(at.host_ids, at.donor_ids, strict=True)):
            h, d = int(host[1:]), int(donor[1:])
            for k in (None, 0):
                p = (at.slot if k is None else k) + 1
                assert difference(at.host(slot=k)[i], streams[h, p, 1]) < 1e-12
                assert difference(at.donor(slot=k)[i], streams[d, p, 1]) < 1e-12
                assert difference(at.mean(slot=k)[i], others[h][p, 1]) < 1e-12
            assert at.host(kind="fed")[i].shape == live[i].shape
            assert not torch.equal(at.host(kind="fed")[i], at.host()[i])
            seen.append(h)
        return live

    records = records_of(Arm("listens", [1, 3], op=listen, repeats=True, site=Resid(1)))
    assert records["error"].isna().all() and set(seen) == set(range(len(problems)))


def test_the_certificate_knows_these_edits_and_sees_streams_of_another_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    model, problems, _ = exact()
    there = [change for change in named() if "resid" in change.kinds]
    arms = [Arm(change, slots, site=Resid(1)) for change in there for slots in ([1], [0, 3])]
    trial = Trial(problems, Plan(arms, n_donors=2), 4)
    assert [found.name for found in (check(Records(model, trial)) for check in CHECKS) if not found.passed] == []
    honest = Source.at

    def late(self: Source, layer: int | None) -> Any:
        states, means = honest(self, layer)
        return {kind: x if kind == "fed" else x.roll(1, 1) for kind, x in states.items()}, means

    monkeypatch.setattr(Source, "at", late)
    failed = [found.name for found in (check(Records(model, trial)) for check in CHECKS) if not found.passed]
    assert "scores by definition" in failed


def test_where_positions_are_not_slots_no_edit_reads_there() -> None:
    model = tiny("codi-gpt2", "float32", protocol="cot-exploration-fixed", max_new_tokens=3)
    problems = ProblemSet(tuple(Problem(f"p{i}", text, None) for i, text in enumerate(questions("codi-gpt2")[:2])))
    with pytest.raises(PlanError, match=r"a slot's position does not consume .* its name; got swap CT1 after L0"):
        run(model, problems, Plan([Arm("swap", [1], site=Resid(0))]), progress=False)
