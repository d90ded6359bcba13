"""Every edit on small tensors: what it returns, that it is pure, and what its randomness hangs on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext, NothingToTake
from thoughtgraft.edits.edit import Edit, named
from thoughtgraft.edits.known import Noise, Project, Shuffle
from thoughtgraft.errors import PlanError

N, K, D = 3, 4, 2
KNOWN = {change.name: change for change in named() if isinstance(change, Edit)}
noise, shuffle = Noise(), Shuffle()


def context(slot: int = 1, keys: tuple[str, ...] = ("a", "b", "c"), k: int = K) -> EditContext:
    return EditContext.of(slot, keys, numbers(1, k), numbers(100, k), numbers(1000, k))


def numbers(start: float, k: int = K) -> Tensor:
    return torch.arange(N * k * D, dtype=torch.float64).view(N, k, D) + start


LIVE = torch.tensor([[0.5, -1.0], [2.0, 0.0], [-3.0, 4.0]], dtype=torch.float64)


def test_the_changes_that_are_no_edits_are_known() -> None:
    assert {change.name for change in named()} - set(KNOWN) == {"baseline", "noop", "skip", "truncate"}


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
    assert KNOWN[name](LIVE, context()).tolist() == wanted


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("slot", range(K))
def test_ops_are_pure_and_keep_the_shape(name: str, slot: int) -> None:
    given, live = context(slot), LIVE.clone()
    taken = [t.states["fed"] for t in (given.host, given.donor, given.mean)]
    before = [t.clone() for t in taken]
    first, second = KNOWN[name](live, given), KNOWN[name](live, given)
    assert first.shape == live.shape
    assert first.dtype == live.dtype
    assert torch.equal(first, second)
    assert torch.equal(live, LIVE)
    assert all(torch.equal(a, b) for a, b in zip(before, taken, strict=True))


def test_noise_has_the_hosts_norm_and_hangs_on_key_and_slot_alone() -> None:
    found = noise(LIVE, context())
    assert torch.allclose(found.norm(dim=-1), context().host().norm(dim=-1), rtol=1e-6)
    assert torch.equal(noise(LIVE + 7, context()), found)
    directions = torch.nn.functional.normalize(found, dim=-1)
    assert not any(torch.allclose(directions[i], directions[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    other_slot = torch.nn.functional.normalize(noise(LIVE, context(2)), dim=-1)
    assert not torch.allclose(directions, other_slot)


def test_noise_does_not_depend_on_what_runs_beside_it() -> None:
    whole = noise(LIVE, context())
    for i, key in enumerate("abc"):
        alone = EditContext.of(1, (key,), numbers(1)[i : i + 1])
        assert torch.equal(noise(LIVE[i : i + 1], alone)[0], whole[i])


@pytest.mark.parametrize("width", [2, 48, 768, 2048])
def test_noise_in_wide_models_is_the_same_bits_in_any_batch(width: int) -> None:
    host = torch.ones(7, 1, width, dtype=torch.float64)
    keys = tuple(f"k{i}" for i in range(7))
    whole = noise(host[:, 0], EditContext.of(0, keys, host))
    for i in range(7):
        one = host[i : i + 1]
        assert torch.equal(noise(one[:, 0], EditContext.of(0, keys[i : i + 1], one))[0], whole[i])


def test_noise_directions_are_uniform_on_the_sphere() -> None:
    """Mean 0 and covariance I/d: of 2,000 draws in 4 dimensions, within five standard errors."""
    host = torch.ones(2000, 1, 4, dtype=torch.float64) / 2
    found = noise(host[:, 0], EditContext.of(0, tuple(map(str, range(2000))), host))
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
        picked = [next(k for k in range(K) if torch.equal(found[i], given.donor(slot=k)[i])) for i in range(N)]
        assert slot not in picked
        sources.append(picked)
    for cell in zip(*sources, strict=True):
        assert sorted(cell) == list(range(K))
    shifts = {int(k) for k in (shuffle(torch.zeros(60, 1), _slots(60)).flatten())}
    assert shifts == {1, 2, 3}, "every other slot is used by some cell"


def _slots(n: int) -> EditContext:
    """A donor whose vector at slot k is k."""
    donor = torch.arange(K, dtype=torch.float32).view(1, K, 1).expand(n, K, 1)
    return EditContext.of(0, tuple(map(str, range(n))), donor, donor)


# What an edit may take.


def test_an_edit_takes_the_vectors_of_its_slot_or_of_another_and_knows_whose_they_are() -> None:
    at = context(2)
    assert torch.equal(at.host(), numbers(1)[:, 2]) and torch.equal(at.donor(slot=0), numbers(100)[:, 0])
    each = at.mean(slot=torch.tensor([0, 1, 3]))
    assert torch.equal(each, torch.stack([numbers(1000)[i, k] for i, k in enumerate((0, 1, 3))]))
    assert at.host_ids == at.donor_ids == ("0", "1", "2") and at.donor and at.donor.n_slots == K
    alone = EditContext.of(2, ("a",), numbers(1)[:1])
    assert not alone.donor and not alone.mean and alone.donor_ids == ()
    with pytest.raises(NothingToTake, match=r"the cell has no donor. Fix: Arm\(\.\.\., repeats=True\), or needs"):
        alone.donor()
    with pytest.raises(NothingToTake, match="there is no other problem to take a mean of"):
        alone.mean()
    with pytest.raises(PlanError, match=r"slot 4 does not exist; got 4; expected 0\.\.3"):
        at.host(slot=4)


def test_where_no_streams_were_kept_the_vectors_that_were_fed_are_asked_for_by_name() -> None:
    at = EditContext.of(2, ("a", "b", "c"), numbers(1), kind="resid")
    with pytest.raises(PlanError, match=r"no clean states of a residual stream here.*Fix: at\.host\(kind='fed'"):
        at.host()
    assert torch.equal(at.host(kind="fed"), numbers(1)[:, 2])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (lambda at: at.host[:, at.slot], r"at\.host is called now.*got at\.host\[\.\.\.\]; expected at\.host\(\)"),
        (lambda at: at.donor.clone(), r"got at\.donor\.clone.*Fix: write at\.donor\(\) for the edited slot"),
        (lambda at: at.donors, r"at\.donors is gone. Fix: write at\.donor\(\)"),
        (lambda at: at.means, r"at\.means is gone. Fix: write at\.mean\(\)"),
    ],
)
def test_the_names_of_an_earlier_version_say_the_new_ones(old: Callable[[EditContext], object], new: str) -> None:
    with pytest.raises(PlanError, match=new):
        old(context())


# Directions.


def test_directions_are_taken_out_whatever_their_length_and_number() -> None:
    live = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    directions = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = Project(directions)(live, EditContext.of(0, ("a", "b"), live[:, None]))
    assert torch.allclose(found, torch.tensor([[0.0, 2.0, 3.0], [0.0, 5.0, 6.0]]), atol=1e-6)
    assert Project(directions) == Project(directions.clone()) != Project(2 * directions)
    with pytest.raises(PlanError, match="there are no directions for slot 0; expected one of"):
        Project({1: directions})(live, EditContext.of(0, ("a", "b"), live[:, None]))
    for wrong in (None, torch.ones(3), torch.ones(2, 3, dtype=torch.long), {0: "x"}):
        with pytest.raises(PlanError, match="what is projected out is not usable"):
            Project(wrong)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"the edit .project. is more than its name.*Fix: Arm"):
        Arm("project", [2])
