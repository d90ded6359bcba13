"""Erasure: what is linear in a label is gone, exactly; the change is the least; random directions leave it readable."""

from __future__ import annotations

import numpy as np
import pytest

from thoughtgraft.errors import AnalysisError
from thoughtgraft.studies.erasure.analysis import fit_erasure, read_label

CLASSES = ("addition", "mixed", "multiplication")


def planted(n: int, d: int, seed: int = 0, gap: float = 3.0) -> tuple[np.ndarray, list[str]]:
    """Features of unequal spread, correlated, off centre, whose class means differ in two directions."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    mix = rng.standard_normal((d, d)) * np.geomspace(3, 0.1, d)
    x = rng.standard_normal((n, d)) @ mix + gap * rng.standard_normal((3, d))[codes] + 5
    return x, [CLASSES[i] for i in codes]


def slopes(x: np.ndarray, labels: list[str]) -> np.ndarray:
    """Least-squares coefficients of the classes on the features."""
    centred = x - x.mean(0)
    indicator = np.stack([np.array(labels) == name for name in CLASSES], 1).astype(float)
    return np.asarray(np.linalg.lstsq(centred, indicator - indicator.mean(0), rcond=1e-8)[0])


@pytest.mark.parametrize(("n", "d"), [(300, 12), (60, 200)])
def test_nothing_linear_is_left_and_only_two_directions_are_gone(n: int, d: int) -> None:
    x, labels = planted(n, d)
    eraser = fit_erasure(x, labels).eraser
    erased = eraser(x)
    means = np.stack([erased[np.array(labels) == name].mean(0) for name in CLASSES])
    assert np.abs(means - x.mean(0)).max() < 1e-9
    assert np.abs(slopes(x, labels)).max() > 1e-3
    assert np.abs(slopes(erased, labels)).max() < 1e-9
    assert eraser.rank == len(CLASSES) - 1
    np.testing.assert_allclose(eraser.v.T @ eraser.u, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(eraser(erased), erased, atol=1e-9, err_msg="erased twice is erased once")
    # Rank of the difference: what else the features hold is untouched.
    assert np.linalg.matrix_rank(erased - x, tol=1e-6) == 2


def test_the_change_is_the_least_of_all_affine_maps_that_erase() -> None:
    """Closed form with an unshrunk covariance, and dearer alternatives: orthogonal projection, other oblique ones."""
    x, labels = planted(300, 8)
    eraser = fit_erasure(x, labels, shrinkage=0).eraser
    centred = x - x.mean(0)
    covariance = centred.T @ centred / len(x)
    values, vectors = np.linalg.eigh(covariance)
    white, colour = (vectors * values**power @ vectors.T for power in (-0.5, 0.5))
    indicator = np.stack([np.array(labels) == name for name in CLASSES], 1).astype(float)
    shared = centred.T @ (indicator - indicator.mean(0)) / len(x)
    q = np.linalg.svd(white @ shared)[0][:, :2]
    np.testing.assert_allclose(eraser.u @ eraser.v.T, colour @ q @ q.T @ white, atol=1e-7)

    def cost(projection: np.ndarray) -> float:
        assert np.abs((np.eye(8) - projection) @ shared).max() < 1e-9, "it must erase"
        return float(((centred @ projection.T) ** 2).sum(1).mean())

    least = cost(eraser.u @ eraser.v.T)
    assert eraser.removed == pytest.approx(least)
    span = np.linalg.svd(shared)[0][:, :2]
    assert least < cost(span @ span.T)
    rng = np.random.default_rng(1)
    for _ in range(20):
        v = eraser.v + 0.3 * rng.standard_normal(eraser.v.shape) * np.abs(eraser.v).max()
        assert least < cost(span @ np.linalg.inv(v.T @ span) @ v.T)


@pytest.mark.parametrize("d", [12, 200])
def test_random_directions_are_as_large_and_leave_the_label_where_it_was(d: int) -> None:
    x, labels = planted(120, d)
    fit = fit_erasure(x, labels)
    randoms = fit.random(20, (0, 1))
    assert {one.rank for one in randoms} == {fit.eraser.rank}
    assert np.mean([one.removed for one in randoms]) == pytest.approx(fit.eraser.removed, rel=1e-3)
    for one in randoms:
        for name in CLASSES:
            of_class = x[np.array(labels) == name]
            np.testing.assert_allclose(one(of_class).mean(0), of_class.mean(0), atol=1e-8)
    assert not np.allclose(randoms[0].v, randoms[1].v)
    np.testing.assert_array_equal(fit.random(20, (0, 1))[3].v, randoms[3].v)


def test_it_carries_over_to_new_rows() -> None:
    x, labels = planted(1200, 20)
    fit = fit_erasure(x[:600], labels[:600])
    new, names = x[600:], labels[600:]
    assert read_label(new, names, 0) > 0.8
    assert read_label(fit.eraser(new), names, 0) < 0.42
    assert read_label(fit.random(1, (0,))[0](new), names, 0) > 0.75
    assert 0 < fit.eraser.change(new) < 1


def test_what_cannot_be_erased_is_refused() -> None:
    x, labels = planted(30, 4)
    with pytest.raises(AnalysisError, match=r"needs two classes or more.*got 1 classes, 30 rows"):
        fit_erasure(x, ["one"] * 30)
    with pytest.raises(AnalysisError, match="the classes have the same mean"):
        fit_erasure(np.concatenate([x, x]), ["a"] * 30 + ["b"] * 30)
    with pytest.raises(AnalysisError, match=r"no random directions are left.*got 3 directions in all, 2 erased"):
        fit_erasure(planted(30, 3)[0], labels).random(2, (0,))
