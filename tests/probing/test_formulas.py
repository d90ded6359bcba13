"""Each formula against its plainest form: ridge, leave-one-out, corrected t, CKA, PERMANOVA, Mantel, scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from tests.probing.plant import labels

from thoughtgraft.probing.picture import components, debiased_cka, gram_of, label_gram
from thoughtgraft.probing.probes import RidgeFold, classify
from thoughtgraft.probing.rows import Fold, Folds, join, make_folds
from thoughtgraft.probing.scores import (
    balanced_accuracy,
    class_scores,
    confusion_matrix,
    corrected_t,
    label_orders,
    r_squared,
)
from thoughtgraft.probing.similarity import cosines, mantel, permanova, similarity_rows


@pytest.mark.parametrize("d", [12, 80])
def test_the_closed_form_is_ridge_and_leave_one_out_is_exact(d):
    rng = np.random.default_rng(0)
    x, y = rng.normal(2, 3, size=(60, d)).astype(np.float32), rng.normal(size=(50, 3)).astype(np.float32)
    x[:, 0] = 7  # A constant feature must change nothing.
    fold = RidgeFold(x[:50], x[50:])
    asked, own = fold.scores(y)
    scaler = StandardScaler().fit(x[:50])
    z, t = scaler.transform(x[:50]), scaler.transform(x[50:])
    penalty = float((z**2).sum()) / min(49, d)
    np.testing.assert_allclose(asked, Ridge(alpha=penalty).fit(z, y).predict(t), atol=2e-5)
    for row in (0, 17):
        rest = np.arange(50) != row
        alone = Ridge(alpha=penalty).fit(z[rest], y[rest]).predict(z[[row]])
        np.testing.assert_allclose(own[row], alone[0], atol=2e-5)


def test_many_labellings_at_once_are_each_labelling_alone():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 90)).astype(np.float32)
    many = rng.integers(0, 3, size=(60, 7))
    fold = RidgeFold(x[:50], x[50:])
    said, score = classify(fold, many[:50], many[50:], np.full(3, 1 / 3))
    for column in range(7):
        one, single = classify(fold, many[:50, [column]], many[50:, [column]], np.full(3, 1 / 3))
        np.testing.assert_array_equal(said[:, [column]], one)
        assert score[column] == pytest.approx(single[0])


def test_a_rare_class_is_named_as_readily_as_a_common_one():
    rng = np.random.default_rng(2)
    y = (np.arange(400) % 10 == 0).astype(int)
    x = rng.normal(size=(400, 50)).astype(np.float32)
    x[:, 0] += 4 * y
    said, score = classify(RidgeFold(x[:300], x[300:]), y[:300, None], y[300:, None], np.array([0.9, 0.1]))
    recall = [np.mean(said[y[300:] == code] == code) for code in (0, 1)]
    assert score[0] == pytest.approx(np.mean(recall))
    assert min(recall) > 0.7


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    truth, said = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    score, details = class_scores(confusion_matrix(truth, said, 3)[None])
    assert score[0] == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    assert details["macro_f1"] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert details["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, said))
    assert details["acc"] == pytest.approx(metrics.accuracy_score(truth, said))
    assert balanced_accuracy(truth[:, None], said[:, None], 3)[0] == pytest.approx(score[0])
    y = rng.normal(size=40)
    assert r_squared(y[:, None], y[:, None] * 0.5, y.mean())[0] == pytest.approx(metrics.r2_score(y, y * 0.5))


def folds(k: int, r: int, n: int = 100) -> Folds:
    made = [
        Fold(i // k, np.setdiff1d(np.arange(n), part), part)
        for i, part in enumerate(np.tile(np.arange(n).reshape(k, -1), (r, 1)))
    ]
    return Folds(tuple(made), k, r)


def test_the_corrected_t_is_nadeau_and_bengios():
    scores = np.random.default_rng(4).normal(0.6, 0.1, 20)
    found = corrected_t(scores, folds(10, 2))
    error = np.sqrt((1 / 20 + 10 / 90) * scores.var(ddof=1))
    assert found.error == pytest.approx(error)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 19, scores.mean(), error))
    assert found.p == pytest.approx(stats.t.sf(scores.mean() / error, 19))
    same = corrected_t(np.full(20, 0.5), folds(10, 2))
    assert same.value == 0.5
    assert np.isnan(same.low)
    assert "no interval" in same.note


def test_debiased_cka_is_the_unbiased_hsic_and_has_no_bias():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(9, 40)), rng.normal(size=(9, 30))

    def hsic(k, q):
        n = len(k)
        k, q = k - np.diag(np.diag(k)), q - np.diag(np.diag(q))
        one = np.ones(n)
        middle = (one @ k @ one) * (one @ q @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ q) + middle - 2 / (n - 2) * (one @ k @ q @ one)) / (n * (n - 3))

    k, q = x @ x.T, y @ y.T
    expected = hsic(k, q) / np.sqrt(hsic(k, k) * hsic(q, q))
    assert debiased_cka([gram_of(x), gram_of(y)])[0, 1] == pytest.approx(expected, abs=1e-5)
    turned = x @ np.linalg.qr(rng.normal(size=(40, 40)))[0] * 3
    assert debiased_cka([gram_of(x), gram_of(turned)])[0, 1] == pytest.approx(1, abs=1e-5)
    wide = [debiased_cka([gram_of(rng.normal(size=(30, 500))) for _ in range(2)])[0, 1] for _ in range(40)]
    assert abs(np.mean(wide)) < 0.02
    assert np.isnan(debiased_cka([np.eye(3), np.eye(3)])).all()


def rows_and_orders(n=60, permutations=199):
    table = labels(n)
    rows = join(table.id.tolist(), table, "operation")
    return rows, label_orders(rows.groups, rows.split, permutations, np.random.default_rng(0))


def test_permanova_and_mantel_are_their_definitions():
    rows, orders = rows_and_orders()
    x = np.random.default_rng(6).normal(size=(60, 10)) + 2 * np.eye(10)[rows.values]
    distance = ((x[:, None] - x[None]) ** 2).sum(2)
    total = distance[np.triu_indices(60, 1)].sum() / 60
    within = 0.0
    for code in range(3):
        part = distance[np.ix_(rows.values == code, rows.values == code)]
        within += part[np.triu_indices(len(part), 1)].sum() / len(part)
    found = permanova(x, rows, orders)
    assert found["pseudo_f"] == pytest.approx(((total - within) / 2) / (within / 57))
    assert found["p_permanova"] == pytest.approx(1 / 200)
    cosine, mask = cosines(x), ~np.eye(60, dtype=bool)
    same = rows.values[:, None] == rows.values[None]
    r = np.corrcoef(cosine[mask], same[mask])[0, 1]
    shown = mantel(cosine, mask, rows, orders)
    assert shown["mantel_r"] == pytest.approx(r, abs=1e-5)
    assert shown["gap"] == pytest.approx(cosine[mask & same].mean() - cosine[~same].mean())


def test_similarity_of_noise_is_not_significant_and_numbers_have_their_mantel():
    rows, orders = rows_and_orders()
    noise = np.random.default_rng(7).normal(size=(60, 30)).astype(np.float32)
    made = make_folds(rows, 5, 1, 0)
    found = similarity_rows(noise, rows, made, orders)
    assert [row["view"] for row in found] == ["raw", "centred", "whitened"]
    assert all(row["p_mantel"] > 0.01 for row in found)
    table = labels(60)
    numbers = join(table.id.tolist(), table, "amount", "number")
    signal = noise.copy()
    signal[:, 0] += 4 * (numbers.values - numbers.values.mean()) / numbers.values.std()
    first = similarity_rows(signal, numbers, make_folds(numbers, 5, 1, 0), orders)[0]
    assert first["p_mantel"] == pytest.approx(1 / 200)
    assert np.isnan(first["within"])
    assert "for classes" in first["note"]


def test_labels_of_one_question_move_together_and_stay_in_their_split():
    groups = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    split = np.array(["test"] * 5 + ["train"] * 3, dtype=object)
    orders = label_orders(groups, split, 200, np.random.default_rng(0))
    np.testing.assert_array_equal(orders[0], np.arange(8))
    for order in orders:
        assert sorted(order) == list(range(8))
        assert list(order[:4]) in ([0, 1, 2, 3], [2, 3, 0, 1])
        assert order[4] == 4  # The only single question of its split.
        assert set(order[5:]) == {5, 6, 7}
    assert len({tuple(o) for o in orders}) == 12


def test_label_kernels_and_components():
    kernel = label_gram(np.array([0, 1, 0]), "class")
    np.testing.assert_array_equal(kernel, [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    rng = np.random.default_rng(8)
    x = np.outer(rng.normal(size=50), rng.normal(size=20)) + 0.01 * rng.normal(size=(50, 20))
    found = components(x.astype(np.float32))
    assert found.explained[0] > 0.99
    assert found.explained.sum() <= 1 + 1e-9
    assert found.coordinates.shape == (50, 3)


def test_similarity_without_two_of_a_class_in_a_fold_is_undefined_and_says_so():
    rows, orders = rows_and_orders(9, 9)
    x = np.random.default_rng(9).normal(size=(9, 5)).astype(np.float32)
    raw, centred, _ = similarity_rows(x, rows, make_folds(rows, 3, 1, 0), orders)
    assert np.isfinite(raw["mantel_r"])
    assert np.isnan(centred["mantel_r"])
    assert "too few pairs" in centred["note"]
