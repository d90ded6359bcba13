"""Evaluations: per problem and as a table, from thoughts that are reused, and what a model has no condition for."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from tests.engine.tiny import FAMILIES, GOLDEN
from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.known import Zero
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.evaluate import Evaluation, always_explicit, evaluate
from thoughtgraft.engine.run import run
from thoughtgraft.errors import RunError
from thoughtgraft.models.load import load_model
from thoughtgraft.tasks.problem import Problem, ProblemSet, Step
from thoughtgraft.tasks.sets.arithmetic import arithmetic


@pytest.fixture(scope="module")
def model():
    root = GOLDEN / FAMILIES[0]
    loaded = load_model(root / "checkpoint", base=next(root.glob("base-*")), device="cpu", num_latents=2)
    loaded.max_new_tokens = 6
    return loaded


def test_the_table_counts_what_is_kept_per_problem(model) -> None:
    problems = arithmetic("validation")[:4]
    found = evaluate(model, problems, progress=False)
    assert list(found.correct)[:3] == ["thoughts", "0 thoughts", "1 thought"]
    assert {"all thoughts zero", "all thoughts another problem's", "explicit reasoning"} <= set(found.correct)
    assert all(len(values) == 4 for values in found.correct.values())
    assert found.correct["thoughts"] == found.thoughts.correct
    table = found.table().set_index("condition")
    assert all(table.correct[name] == sum(values) for name, values in found.correct.items())
    assert not always_explicit(model)
    model.num_latents = 0
    try:
        none = evaluate(model, problems, progress=False)
    finally:
        model.num_latents = 2
    assert none.main == "answer" and set(none.correct) == {"answer", "explicit reasoning"}
    assert none.correct["answer"] == found.correct["0 thoughts"]


def test_thoughts_that_were_collected_before_give_the_same_records(model) -> None:
    problems = arithmetic("validation")[:3]
    plan = Plan((Arm("baseline"), Arm("swap", (0,))), n_donors=1, seed=0)
    thoughts = collect_thoughts(model, problems, progress=False)
    given = run(model, problems, plan, thoughts=thoughts, progress=False)
    assert given.equals(run(model, problems, plan, progress=False))
    with pytest.raises(RunError, match="the thoughts are of another problem set"):
        run(model, problems[:2], plan, thoughts=thoughts, progress=False)


def test_groups_stand_in_the_order_of_their_numbers_and_unknown_steps_are_called_so(model) -> None:
    def problem(i: int, n_steps: int) -> Problem:
        steps = (Step(Fraction(1), "+", Fraction(1), Fraction(2)),) * n_steps
        return Problem(str(i), f"{i}?", Fraction(1), steps=steps)

    problems = ProblemSet(tuple(problem(i, n) for i, n in enumerate((10, 2, 0, 1, 2))), "made")
    right = (True, False, True, False, True)
    texts = tuple("1" if r else "2" for r in right)
    thoughts = SimpleNamespace(texts=texts)
    rows = Evaluation(problems, thoughts, "thoughts", {"thoughts": right}).table().set_index("condition")
    names = [name.removeprefix("thoughts, ") for name in rows.index[3:]]
    assert names == ["1 step", "2 steps", "10 steps", "steps unknown", "addition"]
    assert rows.n.tolist()[3:] == [1, 2, 1, 1, 4]


def test_an_answer_that_failed_is_in_no_n(model, monkeypatch) -> None:
    """An edit whose numbers the model cannot hold: neither right nor wrong."""
    problems = arithmetic("validation")[:4]
    sound = evaluate(model, problems, progress=False)
    zero = Zero.__call__

    def broken(self: Zero, live: Tensor, at: EditContext) -> Tensor:
        whole = zero(self, live, at)
        whole[:1] = torch.nan
        return whole

    monkeypatch.setattr(Zero, "__call__", broken)
    found = evaluate(model, problems, progress=False)
    values = found.correct["all thoughts zero"]
    assert values.count(None) == 1
    kept = [a == b for a, b in zip(values, sound.correct["all thoughts zero"], strict=True) if a is not None]
    assert len(kept) == 3 and all(kept)
    row = found.table().set_index("condition").loc["all thoughts zero"]
    assert (row.n, row.failed, row.correct) == (3, 1, sum(bool(v) for v in values))
    monkeypatch.setattr(Zero, "__call__", lambda self, live, at: live * torch.inf)
    row = evaluate(model, problems, progress=False).table().set_index("condition").loc["all thoughts zero"]
    assert (row.n, row.failed) == (0, 4) and row[["accuracy", "ci_low", "ci_high"]].isna().all()
