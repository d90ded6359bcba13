"""Shared-prefix attention is plain softmax attention over all columns, and the column cache holds what was written."""

from __future__ import annotations

import types

import pytest
import torch
from torch import Tensor

from thoughtgraft.models.attention import ColumnCache, Prefix, _weighted, prefix_attention

LAYER = types.SimpleNamespace(layer_idx=0)
LOW = torch.finfo(torch.float64).min


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Softmax attention, written out; heads share keys in groups."""
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    weights = (query @ key.transpose(-1, -2) * scaling + mask).softmax(-1)
    return (weights @ value).transpose(1, 2)


def masked(*shape: int, seed: int, share: float) -> Tensor:
    hidden = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share
    return torch.zeros(*shape, dtype=torch.float64).masked_fill_(hidden, LOW)


def shared_cache(problems: int, heads: int, columns: int, width: int, scale: float = 1.0) -> ColumnCache:
    cache = ColumnCache(problems, columns)
    cache.at(0).update(
        randn(problems, heads, columns, width, seed=5, scale=scale), randn(problems, heads, columns, width, seed=6), 0
    )
    return cache


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_two_parts_merged_are_softmax_over_all_columns(heads: int, groups: int, tokens: int, scale: float) -> None:
    """Also where scores are so large that one part has all the weight."""
    problems, variants, width, own, common = 2, 3, 8, 5, 7
    rows = problems * variants
    query = randn(rows, heads, tokens, width, seed=1)
    key, value = randn(rows, groups, own, width, seed=2, scale=scale), randn(rows, groups, own, width, seed=3)
    cache = shared_cache(problems, groups, common, width, scale)
    own_mask = masked(rows, 1, tokens, own, seed=7, share=0.4)
    own_mask[..., 0] = 0
    bias = masked(problems, 1, variants, 1, 1, common, seed=8, share=0.4)
    bias[..., 0] = 0

    found, weights = prefix_attention(LAYER, query, key, value, own_mask, prefix=Prefix(cache, bias))

    problem = torch.arange(problems).repeat(variants)
    by_row = bias.permute(2, 0, 1, 3, 4, 5).reshape(rows, 1, 1, common).expand(rows, 1, tokens, common)
    wanted = plain(
        query,
        torch.cat([cache.keys[0][problem], key], 2),
        torch.cat([cache.values[0][problem], value], 2),
        torch.cat([by_row, own_mask], -1),
        width**-0.5,
    )
    assert weights is None
    assert found.shape == (rows, tokens, heads, width)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", ["own", "shared"])
def test_a_part_that_is_masked_altogether_has_no_weight(side: str) -> None:
    query, key, value = randn(4, 2, 1, 6, seed=1), randn(4, 2, 3, 6, seed=2), randn(4, 2, 3, 6, seed=3)
    cache = shared_cache(2, 2, 5, 6)
    own_mask = torch.full((4, 1, 1, 3), LOW if side == "own" else 0.0, dtype=torch.float64)
    bias = torch.full((2, 1, 2, 1, 1, 5), LOW if side == "shared" else 0.0, dtype=torch.float64)
    found, _ = prefix_attention(LAYER, query, key, value, own_mask, prefix=Prefix(cache, bias))
    problem = torch.tensor([0, 1, 0, 1])
    keys, values = (cache.keys[0][problem], cache.values[0][problem]) if side == "own" else (key, value)
    wanted = plain(query, keys, values, torch.zeros(1, dtype=torch.float64), 6**-0.5)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [4, 2])
def test_without_a_prefix_it_is_softmax_over_the_rows_own_columns(groups: int) -> None:
    query, key, value = randn(3, 4, 2, 8, seed=1), randn(3, groups, 5, 8, seed=2), randn(3, groups, 5, 8, seed=3)
    mask = masked(3, 1, 2, 5, seed=4, share=0.3)
    mask[..., 0] = 0
    found, _ = prefix_attention(LAYER, query, key, value, mask, scaling=0.7)
    assert torch.allclose(found, plain(query, key, value, mask, 0.7), rtol=0, atol=1e-12)


def test_attention_leaves_its_inputs_as_they_were() -> None:
    query, key, value = randn(4, 2, 1, 6, seed=1), randn(4, 2, 3, 6, seed=2), randn(4, 2, 3, 6, seed=3)
    cache, mask = shared_cache(2, 2, 5, 6), torch.zeros(4, 1, 1, 3, dtype=torch.float64)
    prefix = Prefix(cache, torch.zeros(2, 1, 2, 1, 1, 5, dtype=torch.float64))
    held = (query, key, value, mask, prefix.bias, cache.keys[0], cache.values[0])
    before = [t.clone() for t in held]
    prefix_attention(LAYER, query, key, value, mask, prefix=prefix)
    assert all(torch.equal(a, b) for a, b in zip(before, held, strict=True))
    assert prefix.variants == 2


def test_bfloat16_scores_are_normalised_in_float32() -> None:
    query, key, value = (randn(4, 2, 1, 16, seed=s) for s in (1, 2, 3))
    cache = shared_cache(2, 2, 9, 16)
    bias = torch.zeros(2, 1, 2, 1, 1, 9, dtype=torch.float64)
    exact, _ = prefix_attention(LAYER, query, key, value, None, prefix=Prefix(cache, bias))
    cache.keys, cache.values = [k.bfloat16() for k in cache.keys], [v.bfloat16() for v in cache.values]
    args = (query.bfloat16(), key.bfloat16(), value.bfloat16())
    found, _ = prefix_attention(LAYER, *args, None, prefix=Prefix(cache, bias.bfloat16()))
    assert found.dtype == torch.bfloat16
    # One rounding of inputs, weights and output: a few times 2^-8; measured 0.012.
    assert float((found.double() - exact).abs().max()) < 0.04


# The cache.


def columns(cache: ColumnCache) -> list[list[float]]:
    """Keys of layer 0 up to the last column that was written, one number for each row and column."""
    return cache.keys[0][:, 0, : cache._used[0], 0].tolist()


def write(cache: ColumnCache, start: int, numbers: list[list[float]], where: slice | Tensor | None = None) -> Tensor:
    key = torch.tensor(numbers, dtype=torch.float32)[:, None, :, None]
    keys, values = cache.at(start, where).update(key, -key, 0)
    assert torch.equal(values, -keys)
    return keys[:, 0, :, 0]


def test_update_writes_columns_and_returns_all_up_to_them() -> None:
    cache = ColumnCache(2, 4)
    assert write(cache, 0, [[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert write(cache, 2, [[5], [6]]).tolist() == [[1, 2, 5], [3, 4, 6]]
    assert cache.get_seq_length() == 2
    assert columns(cache) == [[1, 2, 5], [3, 4, 6]]
    assert write(cache, 1, [[7], [8]]).tolist() == [[1, 7], [3, 8]]
    assert columns(cache) == [[1, 7, 5], [3, 8, 6]]


@pytest.mark.parametrize("where", [slice(1, 3), torch.tensor([1, 2])])
def test_update_touches_only_the_rows_it_points_at(where: slice | Tensor) -> None:
    cache = ColumnCache(4, 2)
    write(cache, 0, [[1], [2], [3], [4]])
    assert write(cache, 1, [[8], [9]], where).tolist() == [[2, 8], [3, 9]]
    assert columns(cache) == [[1, 0], [2, 8], [3, 9], [4, 0]]


def test_update_returns_columns_from_the_first_one_seen() -> None:
    cache = ColumnCache(2, 3)
    write(cache, 0, [[1, 2], [3, 4]])
    key = torch.tensor([5.0]).view(1, 1, 1, 1)
    keys, _ = cache.at(2, slice(1, 2), first=1).update(key, -key, 0)
    assert keys.flatten().tolist() == [4, 5]
    assert cache.at(0).update(keys[:, :, :1].expand(2, 1, 1, 1), -key.expand(2, 1, 1, 1), 0)[0].shape[2] == 1


def test_how_columns_lie_in_memory_changes_nothing_that_is_read() -> None:
    caches = [ColumnCache(4, 3, by_column=kind) for kind in (False, True)]
    for cache in caches:
        write(cache, 0, [[1, 2], [3, 4], [5, 6], [7, 8]])
        write(cache, 2, [[9], [10]], slice(0, 2))
        cache.grow(2)
        cache.keep(torch.tensor([3, 0, 1]))
        write(cache, 3, [[11], [12], [13]])
    assert columns(caches[0]) == columns(caches[1]) == [[7, 8, 0, 11], [1, 2, 9, 12], [3, 4, 10, 13]]
    assert caches[1].keys[0].stride()[2] == max(caches[1].keys[0].stride())
    assert columns(caches[1].select(torch.tensor([1]))) == [[1, 2, 9, 12]]


@pytest.mark.parametrize("columns", [1, 2, 5, 12, 13, 30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weighted_values_are_the_matrix_product_whatever_the_size(columns: int, dtype: torch.dtype) -> None:
    weights, value = randn(6, 2, 1, columns, seed=1), randn(6, 2, columns, 32, seed=2)
    found = _weighted(weights, value.to(dtype))
    assert found.dtype == torch.float64
    assert torch.allclose(found, weights @ value, rtol=0, atol=1e-12 if dtype == torch.float64 else 0.1)


def test_the_first_write_may_be_to_some_rows() -> None:
    cache = ColumnCache(3, 2)
    write(cache, 1, [[5]], torch.tensor([2]))
    assert columns(cache) == [[0, 0], [0, 0], [0, 5]]


def test_columns_that_a_write_leaves_out_are_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is taken comes with anything in it."""
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *shape: self.new_full(shape, torch.nan))
    cache = ColumnCache(3, 4, by_column=True)
    write(cache, 1, [[5]], torch.tensor([2]))
    write(cache, 2, [[6], [7]], slice(0, 2))
    assert columns(cache) == [[0, 0, 6], [0, 0, 7], [0, 5, 0]]
    cache.keep(torch.tensor([1, 2]))
    cache.grow(1)
    assert write(cache, 3, [[8], [9]]).tolist() == [[0, 0, 7, 8], [0, 5, 0, 9]]


def test_keep_drops_rows_and_points_at_all_that_remain() -> None:
    cache = ColumnCache(3, 2)
    write(cache, 0, [[1], [2], [3]])
    cache.at(1, torch.tensor([0])).keep(torch.tensor([2, 0]))
    assert cache.rows == 2
    assert columns(cache) == [[3], [1]]
    assert write(cache, 1, [[8], [9]]).tolist() == [[3, 8], [1, 9]]


def test_select_is_a_copy() -> None:
    cache = ColumnCache(3, 1)
    write(cache, 0, [[1], [2], [3]])
    chosen = cache.select(torch.tensor([1]))
    write(chosen, 0, [[9]])
    assert columns(chosen) == [[9]]
    assert columns(cache) == [[1], [2], [3]]


def test_grow_adds_empty_columns_behind() -> None:
    cache = ColumnCache(2, 1)
    write(cache, 0, [[1], [2]])
    before = cache.nbytes
    cache.grow(2)
    assert cache.columns == 3
    assert cache.nbytes == 3 * before == 2 * 2 * 3 * 4
    assert columns(cache) == [[1], [2]]
    assert write(cache, 2, [[8], [9]]).tolist() == [[1, 0, 8], [2, 0, 9]]
