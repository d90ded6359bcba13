"""The controls: words, numbers, the control task; and what cannot be probed, said in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.probing.plant import LAYERS, POSITIONS, features, labels
from tests.probing.test_planted import QUICK

from thoughtgraft.errors import AnalysisError, RunError
from thoughtgraft.probing.controls import control_task, numbers_of, surface_types
from thoughtgraft.probing.rows import content, join, make_folds
from thoughtgraft.probing.stratum import Settings, chosen_layers
from thoughtgraft.records.states import States
from thoughtgraft.studies.operations.analysis import analyze_operations, never_judged


def test_the_control_task_is_a_function_of_the_surface_type():
    table = labels(120)
    rows = join(table.id.tolist(), table, "operation")
    task = control_task(rows, 4, np.random.default_rng(0))
    assert task.surface == "object"
    types = surface_types(rows)["object"]
    for values in task.values:
        for kind in set(types):
            assert len(set(values[types == kind])) == 1
    # Several functions, and not the target in disguise.
    assert len({tuple(v) for v in task.values}) == 4


def test_the_control_task_is_undefined_where_nothing_repeats():
    table = labels(30)
    table["question"] = [f"Question {w} of a kind" for w in "abcdefghijklmnopqrstuvwxyzäöüß"]
    rows = join(table.id.tolist(), table, "operation")
    task = control_task(rows, 4, np.random.default_rng(0))
    assert not task.defined
    assert "no surface type" in task.note
    claims = analyze_operations(features(table, planted=3.0), table, settings=QUICK).targets[0].claims
    assert claims.verdict.tolist() == ["UNDEFINED"]
    assert "no surface type" in claims.note[0]


def test_a_copy_of_a_question_is_no_repeat_of_its_surface():
    table = labels(60)
    table["question"] = [f"{i // 2 + 100} unlike {i // 2}" for i in range(60)]
    rows = join(table.id.tolist(), table, "operation")
    assert set(surface_types(rows)["object"]) == {"unlike"}
    assert not control_task(rows, 2, np.random.default_rng(0)).defined


def test_numbers_only():
    found = numbers_of(["Tom has 3 bags of 1,200 and 3.5", "none"])
    assert found[0, 0] == pytest.approx(np.log10(4))
    assert found[0, 6] == 3
    assert found[0, 10] == 1  # One fraction.
    assert not found[1].any()


def test_labels_join_by_id_and_say_what_is_left_out():
    table = labels(30)
    table.loc[:4, "operation"] = "unknown"
    shuffled = table.sample(frac=1, random_state=0)
    rows = join(table.id.tolist(), shuffled, "operation")
    assert rows.ids == tuple(table.id[5:])
    np.testing.assert_array_equal(rows.index, np.arange(5, 30))
    assert rows.note.startswith("5 of 30 problems have no label 'operation'")
    assert content(" A  question ") == content("a question")


def test_rare_classes_are_left_out_and_named():
    table = labels(64)
    table.loc[:1, "operation"] = "division"
    rows = join(table.id.tolist(), table, "operation").without_rare(5)
    assert "division" not in rows.classes
    assert rows.note == "classes with fewer than 5 distinct questions are left out: division (2)"


def test_kinds_of_targets():
    table = labels(40).assign(steps=np.arange(40) % 4, right=np.arange(40) % 2 == 0, big=10.0 ** np.arange(40))
    ids = table.id.tolist()
    assert join(ids, table, "steps").classes == ("0", "1", "2", "3")
    assert join(ids, table, "right").classes == ("False", "True")
    assert join(ids, table, "amount").kind == "number"
    logs = join(ids, table, "big", "log-number").values
    np.testing.assert_allclose(np.diff(logs[3:]), 1, atol=1e-3)


def test_that_no_claim_can_come_of_a_design_is_known_before_anything_is_read():
    """What is said beforehand and what the analysis then does agree, on designs of every kind."""
    said = {}
    for repeats, seed in ((10, 0), (34, 0), (34, 1), (34, 2), (34, 3), (60, 0)):
        table = labels(60, seed=seed)
        # So many problems have one of eight types that repeat; the others' types are met once.
        table["question"] = [
            f"{i % 8} apples in box {i}" if i < repeats else f"{100 + i} of kind{i} in box {i}" for i in range(60)
        ]
        settings = replace(QUICK, folds=10, permutations=9, seed=seed)
        before = never_judged(table, "operation", settings)
        claims = analyze_operations(features(table, planted=3.0), table, settings=settings).targets[0].claims
        assert bool(before) is (claims.subject.tolist() == ["every position"]), (repeats, seed, before)
        said[repeats, seed] = before
    assert "no surface type" in said[10, 0] and not said[60, 0]
    of_34 = [why for (repeats, _), why in said.items() if repeats == 34]
    assert {why[:32] for why in of_34} == {"", "control task undefined in a fold"}
    assert "'test'" in never_judged(labels(90, split="train"), "operation", QUICK)
    assert "only one value" in never_judged(labels(90).assign(operation="mixed"), "operation", QUICK)


def test_claims_need_test_problems():
    table = labels(90, split="train")
    found = analyze_operations(features(table, planted=3.0), table, settings=QUICK).targets[0]
    assert [s.name for s in found.strata] == ["all"]
    assert found.claims.verdict.tolist() == ["UNDEFINED"]
    assert "'test'" in found.claims.note[0]


def test_both_strata_where_splits_mix():
    table = labels(120)
    table["split"] = np.where(np.arange(120) < 60, "test", "train")
    found = analyze_operations(features(table, planted=3.0), table, settings=QUICK).targets[0]
    assert [(s.name, len(s.rows)) for s in found.strata] == [("test", 60), ("all", 120)]
    assert set(found.probes.stratum) == {"test", "all"}
    assert (found.claims.stratum == "test").all()


def test_an_untrained_model_stands_beside():
    table = labels(60)
    found = analyze_operations(features(table, planted=3.0), table, settings=QUICK, untrained=features(table, seed=9))
    rows = found.targets[0].probes.query("features == 'untrained'")
    assert len(rows) == 6
    assert rows.p_maxT.isna().all()
    with pytest.raises(AnalysisError, match="the untrained model's features lack problems"):
        analyze_operations(features(table), table, settings=QUICK, untrained=features(labels(30)))


def test_the_final_state_at_bot_is_a_control_where_it_was_kept():
    table = labels(60)
    plain = features(table, planted=3.0, place=(1, 0))
    values = plain.values
    last = values[:, :, plain.layers.index(5)]
    source = States.of(values, plain.ids, plain.layers, plain.positions, hidden=last)
    probes = analyze_operations(source, table, settings=QUICK).targets[0].probes
    final = probes.query("features == 'hidden'").iloc[0]
    same = probes.query("features == 'resid' and slot == 'BOT' and layer == 5").iloc[0]
    assert final.slot == "BOT"
    assert final.balanced_acc == same.balanced_acc


def test_fitted_probes_read_the_planted_cell():
    table = labels(90)
    settings = Settings(folds=3, repeats=1, permutations=9, functions=2, probe_layers=(5,), n_jobs=1, progress=False)
    probes = analyze_operations(features(table, planted=3.0, d=12), table, settings=settings).targets[0].probes
    rows = probes.query("slot == 'CT1' and layer == 5 and features == 'resid'").set_index("probe")
    assert set(rows.index) == {"linear", "logistic", "forest", "mlp"}
    assert (rows.balanced_acc > 0.7).all()
    assert rows.logloss.drop("linear").between(0, 1.1).all()
    assert rows.control_acc.notna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="operation"), r"no column 'operation'.*Fix: name one of their columns"),
        (lambda t: t.drop(columns="id"), r"no column 'id'"),
        (lambda t: t.assign(id="x" + t.id), r"no problem has both features and a label 'operation'"),
        (lambda t: t.assign(operation="addition"), r"only one value; got 'addition'"),
        (lambda t: pd.concat([t, t]), r"name problems twice; got 60 repeated ids"),
        (lambda t: t.assign(question="the same"), r"too few problems to probe 'operation'"),
    ],
)
def test_labels_that_cannot_be_used(change, message):
    table = labels(60)
    with pytest.raises(AnalysisError, match=message):
        analyze_operations(features(table), change(table), settings=QUICK)


def test_other_mistakes_are_named():
    table = labels(30)
    rows = join(table.id.tolist(), table, "operation")
    with pytest.raises(AnalysisError, match="unknown kind of target"):
        join(table.id.tolist(), table, "operation", "words")
    with pytest.raises(AnalysisError, match="holds what is not a number"):
        join(table.id.tolist(), table, "operation", "number")
    with pytest.raises(AnalysisError, match="unknown probe; got svm"):
        Settings(probes=("linear", "svm"))
    with pytest.raises(AnalysisError, match="folds is too small"):
        Settings(folds=2)
    with pytest.raises(AnalysisError, match="at least 3"):
        make_folds(rows.take(np.arange(5)), 10, 1, 0)
    with pytest.raises(AnalysisError, match=r"lack layers; got \[9\]"):
        chosen_layers((2, 5), (9,))
    assert chosen_layers(tuple(range(16)), None) == (4, 8, 14)
    values = features(table).values
    values[3, 0, 0, 0] = np.nan
    broken = States.of(values, table.id, LAYERS, POSITIONS)
    with pytest.raises(RunError, match=rf"are not finite; got problem {table.id[3]}, layer {LAYERS[0]}, position BOT"):
        analyze_operations(broken, table, settings=QUICK)
