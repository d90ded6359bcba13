"""Planted truths: what is there is found, noise is not, words and copies are not mistaken for thoughts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.probing.plant import LAYERS, POSITIONS, features, labels

from thoughtgraft.probing.controls import Setup, control_task, map_p, probe_linear
from thoughtgraft.probing.rows import join, make_folds, map_places
from thoughtgraft.probing.scores import label_orders
from thoughtgraft.probing.stratum import Settings
from thoughtgraft.records.states import States
from thoughtgraft.studies.operations.analysis import analyze_operations

QUICK = Settings(folds=5, repeats=2, permutations=99, functions=5, probes=("linear",), n_jobs=1, progress=False)


@pytest.fixture(scope="module")
def planted():
    table = labels(150)
    return analyze_operations(features(table, planted=2.0), table, settings=QUICK)


def test_the_readable_cell_is_found_and_no_other(planted):
    claims = planted.targets[0].claims.set_index("subject")
    assert claims.verdict.to_dict() == {"BOT": "UNRESOLVED", "CT0": "UNRESOLVED", "CT1": "ABOVE"}
    assert claims.loc["CT1", "layers"] == "5" and claims.loc["CT1", "layer"] == 5
    row = claims.loc["CT1"]
    assert row.excess == min(row.delta_vs_text, row.selectivity) and row.sim_low < row.excess < row.sim_high
    cells = planted.targets[0].probes.query("features == 'resid'").set_index(["slot", "layer"])
    assert cells.balanced_acc.idxmax() == ("CT1", 5)
    assert cells.loc[("CT1", 5), "p_maxT"] == pytest.approx(0.01)
    assert (cells.p_maxT.drop(("CT1", 5)) > 0.05).all()


def test_every_score_stands_beside_its_controls(planted):
    row = planted.targets[0].probes.query("features == 'resid' and slot == 'CT1' and layer == 5").iloc[0]
    assert row.majority == pytest.approx(1 / 3)
    assert row.ci_low < row.balanced_acc < row.ci_high
    assert row.delta_vs_text == pytest.approx(row.balanced_acc - row.text_acc)
    assert row.selectivity == pytest.approx(row.balanced_acc - row.control_acc)
    assert row.control_acc < 0.5
    assert row.bot_acc < 0.5
    assert np.isnan(row.logloss)
    assert "no log-loss" in row.note


def test_what_the_words_give_away_is_no_claim():
    """Features that hold what the question says, and no more, are readable and selective, and still support nothing."""
    table = labels(150, leak=True)
    found = analyze_operations(features(table, planted=2.5), table, settings=QUICK)
    row = found.targets[0].probes.query("features == 'resid' and slot == 'CT1' and layer == 5").iloc[0]
    assert row.p_maxT < 0.05
    assert row.selectivity_ci_low > 0
    assert row.text_acc > 0.95
    assert not found.targets[0].claims.verdict.isin(["ABOVE", "PRESENT", "SMALL"]).any()


def test_noise_gives_uniform_p_and_no_claim():
    """200 data sets without anything in them: p of one cell and of the whole map are uniform, false claims are rare."""
    alone, whole = [], []
    table = labels(45)
    for seed in range(200):
        # Labels are drawn anew too; the questions play no part here.
        rng = np.random.default_rng(seed)
        rows = join(table.id.tolist(), table.assign(operation=rng.permutation(table.operation)), "operation")
        source = features(table, d=8, seed=seed)
        folds = make_folds(rows, 5, 1, seed)
        orders = label_orders(rows.groups, rows.split, 99, rng)
        setup = Setup(rows, folds, orders, control_task(rows, 1, rng))
        places = map_places(source)[:3]
        p, p_max = map_p([probe_linear(place.load(source, rows.index), setup) for place in places])
        alone.append(p[0])
        whole.append(p_max.min())
    # The statistic takes few values, so p lies on a grid: spread each over its step before the test.
    jitter = np.random.default_rng(0).uniform(0, 0.01, 200)
    assert stats.kstest(np.array(alone) - jitter, "uniform").pvalue > 0.01
    assert stats.kstest(np.array(whole) - jitter, "uniform").pvalue > 0.01
    assert np.mean(np.array(whole) <= 0.05) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_noise_supports_nothing(seed):
    table = labels(90, seed=seed)
    found = analyze_operations(features(table, seed=seed), table, settings=QUICK)
    assert not found.targets[0].claims.verdict.isin(["ABOVE", "PRESENT", "SMALL"]).any()


def test_copies_of_a_problem_do_not_leak():
    """Each question stands there twice with nearly the same noise: memory of the copy would read any label."""
    half = labels(75)
    table = pd.concat([half, half.assign(id=half.id + "-again")], ignore_index=True)
    rng = np.random.default_rng(1)
    table["operation"] = np.tile(rng.permutation(half.operation), 2)
    noise = np.tile(rng.normal(size=(75, 1, 1, 120)), (2, 1, 1, 1)) + 0.01 * rng.normal(size=(150, 1, 1, 120))
    source = States.of(noise, table.id, (0,), ("CT0",))

    def accuracy(known: pd.DataFrame) -> float:
        return float(analyze_operations(source, known, settings=QUICK).targets[0].main.outcomes.popitem()[1].mean)

    rows = join(table.id.tolist(), table, "operation")
    assert len(set(rows.groups)) == 75
    for fold in make_folds(rows, 5, 2, 0).folds:
        assert not set(rows.groups[fold.train]) & set(rows.groups[fold.test])
    grouped = accuracy(table)
    apart = accuracy(table.assign(question=table.question + table.id))
    assert apart > 0.8
    assert grouped < 0.5


def test_a_number_is_read_by_regression():
    table = labels(120)
    source = features(table)
    values = source.values.copy()
    values[:, 1, 0, 0] += 3 * (table.amount - table.amount.mean()) / table.amount.std()
    settings = Settings(folds=5, repeats=2, permutations=49, functions=3, probes=("linear", "logistic"),
                        probe_layers=(2,), n_jobs=1, progress=False)  # fmt: skip
    found = analyze_operations(
        States.of(values, source.ids, LAYERS, POSITIONS), table, "amount", settings=settings
    ).targets[0]
    assert found.kind == "number"
    cells = found.probes.query("features == 'resid' and probe == 'linear'").set_index(["slot", "layer"])
    assert cells.r2.idxmax() == ("CT0", 2)
    assert cells.loc[("CT0", 2), "r2"] > 0.4
    assert cells.loc[("CT0", 2), "rank_correlation"] > 0.7
    assert found.claims.set_index("subject").verdict["CT0"] == "ABOVE"
    tuned = found.probes.query("slot == 'CT0' and layer == 2 and probe == 'logistic'").iloc[0]
    assert tuned.r2 > 0.4


def test_the_result_is_the_same_again_and_on_more_threads(planted):
    from dataclasses import replace

    table = labels(150)
    again = analyze_operations(features(table, planted=2.0), table, settings=replace(QUICK, n_jobs=2))
    for name, frame in planted.tables().items():
        pd.testing.assert_frame_equal(frame, again.tables()[name])
