"""Every edit on small tensors: what it returns, that it is pure, and what its randomness hangs on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thoughtgraft.edits.arms import METHODS
from thoughtgraft.edits.edit import OPS, EditContext, noise, shuffle

N, K, D = 3, 4, 2


def context(slot: int = 1, keys: tuple[str, ...] = ("a", "b", "c"), k: int = K) -> EditContext:
    def numbers(start: float) -> Tensor:
        return torch.arange(N * k * D, dtype=torch.float64).view(N, k, D) + start

    return EditContext(slot, numbers(1), numbers(100), numbers(1000), keys)


LIVE = torch.tensor([[0.5, -1.0], [2.0, 0.0], [-3.0, 4.0]], dtype=torch.float64)


def test_every_method_that_edits_has_an_op() -> None:
    assert set(OPS) == set(METHODS) - {"baseline", "noop", "skip", "truncate"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("swap", [[102, 103], [110, 111], [118, 119]]),
        ("self", [[3, 4], [11, 12], [19, 20]]),
        ("mean", [[1002, 1003], [1010, 1011], [1018, 1019]]),
        ("zero", [[0, 0], [0, 0], [0, 0]]),
    ],
)
def test_each_row_gets_its_own_vector_of_the_slot(name: str, wanted: list[list[int]]) -> None:
    assert OPS[name](LIVE, context()).tolist() == wanted


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("slot", range(K))
def test_ops_are_pure_and_keep_the_shape(name: str, slot: int) -> None:
    given, live = context(slot), LIVE.clone()
    before = [t.clone() for t in (given.host, given.donor, given.mean)]
    first, second = OPS[name](live, given), OPS[name](live, given)
    assert first.shape == live.shape
    assert first.dtype == live.dtype
    assert torch.equal(first, second)
    assert torch.equal(live, LIVE)
    assert all(torch.equal(a, b) for a, b in zip(before, (given.host, given.donor, given.mean), strict=True))


def test_noise_has_the_hosts_norm_and_hangs_on_key_and_slot_alone() -> None:
    found = noise(LIVE, context())
    assert torch.allclose(found.norm(dim=-1), context().host[:, 1].norm(dim=-1), rtol=1e-6)
    assert torch.equal(noise(LIVE + 7, context()), found)
    directions = torch.nn.functional.normalize(found, dim=-1)
    assert not any(torch.allclose(directions[i], directions[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    other_slot = torch.nn.functional.normalize(noise(LIVE, context(2)), dim=-1)
    assert not torch.allclose(directions, other_slot)


def test_noise_does_not_depend_on_what_runs_beside_it() -> None:
    whole = noise(LIVE, context())
    for i, key in enumerate("abc"):
        c = context()
        alone = EditContext(1, c.host[i : i + 1], c.donor[i : i + 1], c.mean[i : i + 1], (key,))
        assert torch.equal(noise(LIVE[i : i + 1], alone)[0], whole[i])


@pytest.mark.parametrize("width", [2, 48, 768, 2048])
def test_noise_in_wide_models_is_the_same_bits_in_any_batch(width: int) -> None:
    host = torch.ones(7, 1, width, dtype=torch.float64)
    keys = tuple(f"k{i}" for i in range(7))
    whole = noise(host[:, 0], EditContext(0, host, host, host, keys))
    for i in range(7):
        one = host[i : i + 1]
        assert torch.equal(noise(one[:, 0], EditContext(0, one, one, one, keys[i : i + 1]))[0], whole[i])


def test_noise_directions_are_uniform_on_the_sphere() -> None:
    """Mean 0 and covariance I/d: of 2,000 draws in 4 dimensions, within five standard errors."""
    host = torch.ones(2000, 1, 4, dtype=torch.float64) / 2
    found = noise(host[:, 0], EditContext(0, host, host, host, tuple(map(str, range(2000)))))
    assert float(found.mean(0).abs().max()) < 5 * 0.5 / 2000**0.5
    # Var(x^2) = 2 (d - 1) / (d^2 (d + 2)) = 1/16 for d = 4.
    assert float((found.T @ found / 2000 - torch.eye(4, dtype=torch.float64) / 4).abs().max()) < 5 * 0.25 / 2000**0.5


def test_noise_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    noise(LIVE, context())
    assert torch.equal(torch.get_rng_state(), before)


def test_shuffle_takes_the_donors_vector_of_another_slot_and_permutes_slots() -> None:
    """For each cell, slot -> source slot is a permutation without a fixed point; cells use different ones."""
    keys = tuple(f"cell-{i}" for i in range(N))
    sources = []
    for slot in range(K):
        given = context(slot, keys)
        found = shuffle(LIVE, given)
        picked = [next(k for k in range(K) if torch.equal(found[i], given.donor[i, k])) for i in range(N)]
        assert slot not in picked
        sources.append(picked)
    for cell in zip(*sources, strict=True):
        assert sorted(cell) == list(range(K))
    shifts = {int(k) for k in (shuffle(torch.zeros(60, 1), _slots(60)).flatten())}
    assert shifts == {1, 2, 3}, "every other slot is used by some cell"


def _slots(n: int) -> EditContext:
    """A donor whose vector at slot k is k."""
    donor = torch.arange(K, dtype=torch.float32).view(1, K, 1).expand(n, K, 1)
    return EditContext(0, donor, donor, donor, tuple(map(str, range(n))))
