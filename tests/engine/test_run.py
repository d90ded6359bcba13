"""`run`: records hold what happened, whatever the packing; a run continues where it stopped."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from tests.engine.tiny import loaded, questions

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine import cells as cells_module
from thoughtgraft.engine.collect import answer_identity, collect_thoughts
from thoughtgraft.engine.run import run
from thoughtgraft.engine.setup import make_spec
from thoughtgraft.errors import PlanError, RunError
from thoughtgraft.records.schema import RECORD_SCHEMA
from thoughtgraft.records.store import RunStore
from thoughtgraft.tasks.numbers import extract_answer, format_number
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.thoughts import Thoughts

TOKENS = 8


@pytest.fixture(scope="module")
def model():
    return loaded("codi-llama", "float64")


@pytest.fixture(scope="module")
def problems():
    answers = [4, 8, 15, 16, 23, 42]
    return ProblemSet(
        tuple(
            Problem(str(i), q, extract_answer(str(a)))
            for i, (q, a) in enumerate(zip(questions("codi-llama"), answers, strict=False))
        )
    )


@pytest.fixture(scope="module")
def plan():
    arms = [Arm("baseline"), Arm("noop"), *(Arm(m, (k,)) for m in ("self", "swap", "zero", "noise") for k in (0, 5))]
    return Plan((*arms, Arm("mean", tuple(range(6))), Arm("skip", (2,))), n_donors=2, seed=3)


@pytest.fixture(scope="module")
def records(model, problems, plan):
    return run(model, problems, plan, max_new_tokens=TOKENS, progress=False)


def same(a, b):
    exact = ["cell", "arm", "problem_id", "donor_id", "text", "pred", "correct", "changed", "adopted", "stop_reason"]
    for name in exact:
        assert a[name].astype(str).tolist() == b[name].astype(str).tolist(), name
    for name in ("logp_gold", "dlogp_gold", "logp_donor", "kl", "fed_norm", "donor_cos"):
        gap = (a[name].astype(float) - b[name].astype(float)).abs()
        assert a[name].isna().equals(b[name].isna()) and not (gap > 1e-7).any(), name


def test_there_is_one_record_per_cell_with_the_schema_columns(records, plan, model, problems):
    cells = plan.cells(problems, answer_identity(model, TOKENS))
    assert list(records.columns) == RECORD_SCHEMA.names
    assert records["cell"].tolist() == [c.key for c in cells] and records["cell"].is_unique


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_records_do_not_depend_on_the_batch_size(model, problems, plan, records, batch_size):
    same(records, run(model, problems, plan, batch_size=batch_size, max_new_tokens=TOKENS, progress=False))


def test_controls_change_nothing_and_baseline_is_the_clean_run(records, model, problems):
    thoughts = collect_thoughts(model, problems, max_new_tokens=TOKENS, progress=False)
    controls = records[records["method"].isin(["baseline", "noop", "self"])]
    assert not controls["changed"].any()
    base = records[records["method"] == "baseline"]
    assert base["text"].tolist() == list(thoughts.texts)
    assert (base["kl"].dropna().abs() < 1e-12).all() and (base["dlogp_gold"].dropna().abs() < 1e-12).all()


def test_columns_mean_what_they_say(records):
    for row in records.to_dict("records"):
        number = extract_answer(row["text"])
        assert pd.isna(row["pred"]) if number is None else row["pred"] == format_number(number)
        assert row["valid"] == (number is not None)
        assert row["correct"] == (number is not None and format_number(number) == row["gold"])
        if row["method"] == "swap":
            assert row["donor_id"] != row["problem_id"] and -1 <= row["donor_cos"] <= 1
            eligible = pd.notna(row["donor_pred"]) and row["donor_pred"] not in (row["base_pred"], row["gold"])
            assert pd.notna(row["adopted"]) == eligible
        if row["method"] == "zero":
            assert row["fed_norm"] == 0


def test_a_donor_serves_every_slot(records):
    swaps = records[records["method"] == "swap"]
    pairs = [set(zip(g["problem_id"], g["donor_id"], strict=True)) for _, g in swaps.groupby("slots")]
    assert len(pairs) == 2 and pairs[0] == pairs[1]


def test_a_stopped_run_continues_and_ends_the_same(tmp_path, model, problems, plan, records, monkeypatch):
    written = RunStore.write_unit

    def stop_after_two(self, unit, rows):
        if len(self.stored_units()) == 2:
            raise KeyboardInterrupt
        written(self, unit, rows)

    monkeypatch.setattr(RunStore, "write_unit", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run(model, problems, plan, tmp_path / "r", batch_size=16, max_new_tokens=TOKENS, progress=False)
    monkeypatch.undo()
    calls = []
    honest = cells_module.rollout
    monkeypatch.setattr(
        cells_module, "rollout", lambda m, p, rows, *a, **k: (calls.append(len(rows)), honest(m, p, rows, *a, **k))[1]
    )
    same(records, run(model, problems, plan, tmp_path / "r", max_new_tokens=TOKENS, progress=False))
    assert 0 < sum(calls) < len(records)
    calls.clear()
    same(records, run(model, problems, plan, tmp_path / "r", max_new_tokens=TOKENS, progress=False))
    assert not calls


def test_another_plan_in_the_same_folder_is_refused_and_harms_nothing(tmp_path, model, problems, plan):
    small = Plan((Arm("baseline"), Arm("swap", (1,))), n_donors=1)
    first = run(model, problems, small, tmp_path, max_new_tokens=TOKENS, progress=False)
    with pytest.raises(RunError, match="holds another run"):
        run(model, problems, plan, tmp_path, max_new_tokens=TOKENS, progress=False)
    same(first, run(model, problems, small, tmp_path, max_new_tokens=TOKENS, progress=False))


def test_triples_and_own_ops_run(model, problems):
    swaps = run(model, problems, Plan.from_triples([(0, 1, 5), (2, 2, 0)]), max_new_tokens=TOKENS, progress=False)
    assert swaps["donor_stratum"].tolist()[1] == "self" and not swaps["changed"][1]
    doubled = Plan((Arm("double", (0,), op=lambda live, context: 2 * live),))
    norms = run(model, problems, doubled, max_new_tokens=TOKENS, progress=False)["fed_norm"]
    thoughts = collect_thoughts(model, problems, max_new_tokens=TOKENS, progress=False)
    assert norms.tolist() == pytest.approx((2 * thoughts.fed[:, 0].norm(dim=-1)).tolist())


def test_a_stored_run_is_never_continued_with_another_edit(tmp_path, model, problems):
    def scaled(by: float):
        return lambda live, at: by * live

    def go(op, identity, out=tmp_path / "r"):
        plan = Plan([Arm("scaled", [0], op=op, identity=identity)])
        return run(model, problems, plan, out, max_new_tokens=TOKENS, progress=False)

    with pytest.raises(PlanError, match=r"the edit of scaled CT0 has no identity.*identity='scaled, v1'"):
        go(scaled(2), None)
    assert not (tmp_path / "r").exists(), "it is said before anything is made"
    first = go(scaled(2), "v1")
    same(first, go(scaled(2), "v1"))
    for op, identity in ((scaled(3), "v1"), (scaled(2), "v2"), (lambda live, at: live / 2, "v1")):
        with pytest.raises(RunError, match="holds another run"):
            go(op, identity)
    assert go(scaled(2), None, None)["pred"].tolist() == first["pred"].tolist(), "in memory it needs none"


def test_an_edit_knows_whose_cells_it_has(model, problems, plan):
    heard: set[tuple[str, str]] = set()

    def listen(live, at):
        heard.update(zip(at.host_ids, at.donor_ids, strict=True))
        return live

    plan = Plan([Arm("listens", [1], op=listen, repeats=True)], n_donors=2)
    records = run(model, problems, plan, max_new_tokens=TOKENS, progress=False)
    assert heard == set(zip(records["problem_id"], records["donor_id"], strict=True))


def test_kept_logits_are_the_first_answer_tokens(model, problems):
    records = run(model, problems, Plan((Arm("baseline"),)), keep_logits=True, max_new_tokens=TOKENS, progress=False)
    for row in records.to_dict("records"):
        allowed = row["first_logits"].copy()
        allowed[list(model.forbidden_ids)] = -1e9
        first = row["token_ids"][0] if len(row["token_ids"]) else model.decoding.ends[0]
        assert allowed.argmax() == first


def test_run_json_says_where_it_ran_and_not_who(model, problems, plan, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ana")
    monkeypatch.setattr(model, "name", "/home/ana/models/codi")
    named = ProblemSet(problems.problems, "/home/ana/x.jsonl")
    spec = make_spec(model, named, plan, plan.cells(named, model.identity))
    assert (spec.model, spec.problems) == ("~/models/codi", "~/x.jsonl")
    assert "/home/" not in spec.model_dump_json()
    assert spec.provenance["threads"] == torch.get_num_threads()


def test_no_problems_is_a_clear_error(model, plan):
    with pytest.raises(PlanError, match="no problems"):
        run(model, ProblemSet(()), plan)


def test_thoughts_survive_the_disk_and_refuse_another_model(tmp_path, model, problems):
    thoughts = collect_thoughts(model, problems, max_new_tokens=TOKENS, progress=False)
    thoughts.save(tmp_path / "t.safetensors")
    back = Thoughts.load(
        tmp_path / "t.safetensors", identity=answer_identity(model, TOKENS), problem_hash=problems.content_hash
    )
    assert back.fed.equal(thoughts.fed) and back.token_ids == thoughts.token_ids and back.pred == thoughts.pred
    with pytest.raises(RunError, match="made from another model"):
        Thoughts.load(
            tmp_path / "t.safetensors", identity=answer_identity(model, TOKENS) | {"protocol": "official-padded"}
        )
    (tmp_path / "t.safetensors").write_bytes(b"cut")
    with pytest.raises(RunError, match="not a readable thoughts file"):
        Thoughts.load(tmp_path / "t.safetensors")


def test_a_run_is_not_continued_with_other_ids(tmp_path, model, problems):
    plan = Plan((Arm("baseline"), Arm("zero", (0,))))
    run(model, problems, plan, tmp_path / "run", progress=False, max_new_tokens=2)
    renamed = ProblemSet(tuple(replace(p, id=f"b{p.id}") for p in problems))
    with pytest.raises(RunError, match=r"have other ids there.*got 'b0'; expected '0'"):
        run(model, renamed, plan, tmp_path / "run", progress=False, max_new_tokens=2)
