"""Donor strata through the engine: one generation may serve several strata, and each of them has its record."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.planted.reasoner import Planted, planted_problems

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.effects.frame import build_frame
from thoughtgraft.effects.gates import RULE
from thoughtgraft.engine import cells as engine_cells
from thoughtgraft.engine import run as engine
from thoughtgraft.errors import PlanError, RunError
from thoughtgraft.records.spec import arms_planned
from thoughtgraft.records.store import RunStore
from thoughtgraft.studies.resampling.design import resampling_plan

PLAN = Plan(
    (Arm("baseline"), *(Arm("swap", (2,), stratum=s) for s in ("random", "operation", "steps", "answer"))), n_donors=4
)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each cell was generated."""
    counts: Counter[str] = Counter()
    original = engine_cells.rollout

    def counting(model, prompts, rows, *args, **kwargs):  # type: ignore[no-untyped-def]
        counts.update(row.key for row in rows)
        return original(model, prompts, rows, *args, **kwargs)

    monkeypatch.setattr(engine_cells, "rollout", counting)
    return counts


def test_each_stratum_draws_its_own_donors_and_shares_generations(generated: Counter[str]) -> None:
    problems = planted_problems(30)
    records = engine.run(Planted(), problems, PLAN, progress=False)
    swaps = records[records.method == "swap"]
    assert (swaps.groupby(["problem_id", "donor_stratum"]).size().drop("answer", level=1) == 4).all()
    few = swaps[swaps.donor_stratum == "answer"].groupby("problem_id").size().reindex(records.problem_id.unique())
    assert (few.fillna(0) < 4).all(), "a small stratum is not filled up"
    same = {"operation": lambda p: p.operation, "steps": lambda p: len(p.steps), "answer": lambda p: p.gold}
    for row in swaps.itertuples():
        host, donor = problems.by_id(row.problem_id), problems.by_id(row.donor_id)
        assert row.donor_stratum == "random" or same[row.donor_stratum](host) == same[row.donor_stratum](donor)
    twice = swaps[swaps.duplicated("cell", keep=False)]
    assert len(twice), "some pair serves two strata"
    assert (twice.groupby("cell").pred.nunique() == 1).all()
    assert set(generated.values()) == {1}, "and is generated once"
    assert build_frame(records).duplicates == 0


def test_a_run_is_continued_record_by_record(tmp_path: Path, generated: Counter[str]) -> None:
    problems, model, out = planted_problems(30), Planted(), tmp_path / "run"
    whole = engine.run(model, problems, PLAN, out, batch_size=64, progress=False)
    shards = sorted((out / "records").glob("*.parquet"))
    for shard in shards[::3]:
        shard.unlink()
    left = len(RunStore.open(out).stored_cells())
    generated.clear()
    again = engine.run(model, problems, PLAN, out, batch_size=64, progress=False)
    assert 0 < left < len(whole)
    assert 0 < sum(generated.values()) <= len(whole) - left
    assert again.drop(columns="unit").equals(whole.drop(columns="unit"))
    assert len(again) == sum(arms_planned(RunStore.open(out).spec.plan).values())


def test_a_new_stratum_of_stored_generations_makes_new_records(tmp_path: Path) -> None:
    """The units are named by cell and stratum: the same cells under another stratum are not taken for stored."""
    cells = PLAN.cells(planted_problems(6), {"num_latents": 5})
    by_key: dict[str, set[str | None]] = {}
    for cell in cells:
        by_key.setdefault(cell.key, set()).add(cell.stratum)
    shared = {key for key, strata in by_key.items() if {"random", "steps"} <= strata}
    assert shared
    names = [engine._unit_name([c for c in cells if c.key in shared and c.stratum == s]) for s in ("random", "steps")]
    assert names[0] != names[1]


def test_only_correct_keeps_the_hosts_that_are_right_unedited(tmp_path: Path) -> None:
    problems, plan = planted_problems(24), Plan(PLAN.arms, n_donors=3, only_correct=True)
    records = engine.run(Planted(), problems, plan, tmp_path / "run", progress=False)
    right = {p.id for i, p in enumerate(problems) if i % 8}
    assert set(records.problem_id) == right
    assert not set(records.donor_id.dropna()) <= right, "every problem may donate"
    spec = RunStore.open(tmp_path / "run").spec
    assert spec.plan["only_correct"] is True
    assert spec.n_hosts == len(right)
    assert len(engine.run(Planted(), problems, plan, tmp_path / "run", progress=False)) == len(records)
    with pytest.raises(PlanError, match=r"no problem is answered right.*got 0 of 6 right.*Fix: leave --only-correct"):
        engine.run(Planted(), planted_problems(6, wrong_every=1), plan, progress=False)


def test_the_rule_is_fixed_before_the_run_and_cannot_change_under_it(tmp_path: Path) -> None:
    arguments = (Planted(), planted_problems(6), Plan((Arm("swap", (0,)),)), tmp_path / "run")
    engine.run(*arguments, progress=False, rule=RULE.to_json())
    assert RunStore.open(tmp_path / "run").spec.decision_hash == RULE.hash
    assert (tmp_path / "run" / "decision.json").read_text() == RULE.to_json()
    with pytest.raises(RunError, match=rf"(?s)holds another run.*decision_hash: '{RULE.hash}' there") as caught:
        engine.run(*arguments, progress=False, rule=RULE.to_json().replace("0.05", "0.5"))
    assert "use --out another folder" in str(caught.value)
    (tmp_path / "run" / "decision.json").write_text("{}")
    with pytest.raises(RunError, match=r"not the rule that the run began with.*Fix: restore it"):
        engine.run(*arguments, progress=False, rule=RULE.to_json())


@pytest.mark.parametrize("num_latents", [1, 2, 5])
def test_the_whole_design_runs(num_latents: int) -> None:
    """Every arm of the study, cell by cell, without a failure, a duplicate or a failed gate of the records."""
    model = Planted(reads=num_latents - 1, leaks=tuple(range(num_latents - 1)), num_latents=num_latents)
    problems = planted_problems(8)
    plan = resampling_plan(num_latents, 2, 0)
    records = engine.run(model, problems, plan, progress=False)
    assert len(records) == len(plan.cells(problems, model.identity))
    assert records.error.isna().all()
    frame = build_frame(records)
    assert frame.duplicates == 0
    assert {key.method for key in frame.arms} >= {"baseline", "noop", "self", "swap", "mean", "zero", "noise", "skip"}
    last = records[(records.method == "swap") & (records.donor_stratum == "random")]
    last = last[last.slots.map(list).map(lambda slots: slots == [num_latents - 1])]
    preds = last.pivot(index=["problem_id", "donor_id"], columns="downstream", values="pred")
    assert (preds.nunique(axis=1) == 1).all(), "nothing follows the last slot, so freezing changes nothing there"
