"""Attention to one shared prefix and each row's own suffix, and the last layer's work that nothing reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "thoughtgraft_prefix"

# A weight of e^-80 beside one of 1 is lost in rounding, in float64 too; an exponential that underflows is slow on CPUs.
_VANISHING = -80.0

# On CPUs PyTorch multiplies a batch of matrices with fewer multiplications than this in a slow loop of its own.
_SLOW_PRODUCT = 400


class ColumnCache:
    """Keys and values of R rows in columns that are allocated once; a step writes some rows at some columns.

    Args:
        rows: R.
        columns: How many tokens each row can hold.
        by_column: Keep each column's rows together in memory instead of each row's columns. For many rows that hold few
            columns a step then writes one block and reads nothing that is not yet written.
    """

    def __init__(self, rows: int, columns: int, *, by_column: bool = False) -> None:
        self.rows, self.columns, self.by_column = rows, columns, by_column
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._used: list[int] = []  # columns of each layer that hold something
        self._where: slice | Tensor = slice(0, rows)
        self._start = self._first = 0

    def at(self, start: int, where: slice | Tensor | None = None, first: int = 0) -> ColumnCache:
        """Point the next forward pass at column `start` of the rows `where` (all if None), to see from `first` on."""
        self._start, self._where, self._first = start, slice(0, self.rows) if where is None else where, first
        return self

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store [R', H, T, hd] and return the columns seen, up to them; Hugging Face attention calls this."""
        if layer_idx == len(self.keys):
            self.keys.append(self._empty(key))
            self.values.append(self._empty(value))
            self._used.append(0)
        end, used = self._start + key.shape[2], self._used[layer_idx]
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        whole = isinstance(self._where, slice) and self._where == slice(0, self.rows)
        if end > used and not (whole and self._start <= used):
            # What this pass leaves out may be read: a masked column has weight 0, and 0 x NaN would still be NaN.
            keys[:, :, used:end] = 0
            values[:, :, used:end] = 0
        self._used[layer_idx] = max(end, used)
        keys[self._where, :, self._start : end] = key
        values[self._where, :, self._start : end] = value
        return keys[self._where, :, self._first : end], values[self._where, :, self._first : end]

    def _empty(self, like: Tensor) -> Tensor:
        """[R, H, C, hd], not filled."""
        _, heads, _, width = like.shape
        if self.by_column:
            return like.new_empty(self.columns, self.rows, heads, width).permute(1, 2, 0, 3)
        return like.new_empty(self.rows, heads, self.columns, width)

    def written(self, columns: int) -> tuple[Tensor, ...]:
        """Copies of what the last pass of so many columns wrote: keys, values [R', H, T, hd] of each layer in turn."""
        at = slice(self._start, self._start + columns)
        both = zip(self.keys, self.values, strict=True)
        return tuple(t[self._where, :, at].clone() for pair in both for t in pair)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self._become(self.select(rows))

    def select(self, rows: Tensor) -> ColumnCache:
        """A copy that holds these rows only."""
        return self._copy(len(rows), self.columns, lambda t: t[rows])

    def grow(self, columns: int) -> None:
        """Add empty columns."""
        self._become(self._copy(self.rows, self.columns + columns, lambda t: t))

    def _copy(self, rows: int, columns: int, part: Callable[[Tensor], Tensor]) -> ColumnCache:
        copy = ColumnCache(rows, columns, by_column=self.by_column)
        for old, new in ((self.keys, copy.keys), (self.values, copy.values)):
            for tensor, used in zip(old, self._used, strict=True):
                new.append(copy._empty(tensor))
                new[-1][:, :, :used] = part(tensor[:, :, :used])
        copy._used = list(self._used)
        return copy.at(self._start)

    def _become(self, other: ColumnCache) -> None:
        self.rows, self.columns, self.keys, self.values = other.rows, other.columns, other.keys, other.values
        self.at(self._start)

    def get_seq_length(self, *_: Any) -> int:
        """Columns before the next write."""
        return self._start

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


@dataclass(frozen=True)
class Prefix:
    """The shared columns of P problems, as V variants of each see them.

    Rows are variant-major: row `v * P + p` is variant v of problem p.

    Attributes:
        cache: P rows of keys and values.
        bias: Additive mask [P, 1, V, 1, 1, L] over the shared columns.
    """

    cache: ColumnCache
    bias: Tensor

    @property
    def variants(self) -> int:
        """V."""
        return self.bias.shape[2]


def _normalised(scores: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax-weighted values [..., q, hd] and the log-sum-exp [..., q, 1] of scores [..., q, s]; scores are consumed.

    The weights stay unnormalised until after the product, which is the cheaper place to divide.
    """
    scores = scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).clamp_min_(_VANISHING).exp_()
    total = weights.sum(-1, keepdim=True)
    return _weighted(weights, value).div_(total), total.log_().add_(top)


def _weighted(weights: Tensor, value: Tensor) -> Tensor:
    """Weights [..., q, s] times values [..., s, hd], in the weights' type."""
    queries, columns = weights.shape[-2:]
    if value.device.type == "cpu" and queries == 1 and columns * value.shape[-1] < _SLOW_PRODUCT:
        total = weights[..., :1] * value[..., :1, :]
        for column in range(1, columns):
            total.addcmul_(weights[..., column, None], value[..., column, None, :])
        return total
    return (weights.to(value.dtype) @ value).to(weights.dtype)


def prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    prefix: Prefix | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over a row's own columns and, with `prefix`, over the columns it shares with its siblings.

    Args:
        module: The calling attention module.
        query: [R, H, T, hd].
        key: The row's own keys [R, Hkv, S, hd].
        value: The row's own values, the same shape.
        attention_mask: Additive [R or 1, 1, T, S].
        scaling: Factor on the scores.
        dropout: Unused; models run in eval mode.
        prefix: Shared columns.

    Returns:
        [R, T, H, hd] and no weights.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if prefix is None:
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        return out.transpose(1, 2), None

    rows, heads, tokens, width = query.shape
    groups, shared = key.shape[1], heads // key.shape[1]
    grouped = (query * scaling).reshape(rows, groups, shared * tokens, width)

    scores = grouped @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores.view(rows, groups, shared, tokens, -1).add_(attention_mask[:, :, None])
    own, own_lse = _normalised(scores, value)

    layer: int = module.layer_idx  # type: ignore[assignment]
    keys, values = prefix.cache.keys[layer], prefix.cache.values[layer]
    variants, problems = prefix.variants, keys.shape[0]
    by_problem = grouped.view(variants, problems, groups, shared * tokens, width).permute(1, 2, 0, 3, 4)
    scores = by_problem.reshape(problems, groups, -1, width) @ keys.transpose(-1, -2)
    scores.view(problems, groups, variants, shared, tokens, -1).add_(prefix.bias)
    common, common_lse = _normalised(scores, values)

    def to_rows(x: Tensor) -> Tensor:
        split = x.view(problems, groups, variants, shared * tokens, -1).permute(2, 0, 1, 3, 4)
        return split.reshape(rows, groups, shared * tokens, -1)

    merged = torch.lerp(own, to_rows(common), torch.sigmoid(to_rows(common_lse) - own_lse))
    return merged.to(query.dtype).view(rows, heads, tokens, width).transpose(1, 2), None


AttentionInterface.register(ATTENTION, prefix_attention)


@contextmanager
def last_token_alone(block: nn.Module) -> Iterator[None]:
    """While it lasts, a block's MLP is given the last token only; the others' states miss what it would add."""
    mlp, width = block.get_submodule("mlp"), 0

    def before(module: nn.Module, args: tuple[Tensor]) -> Tensor:
        nonlocal width
        width = args[0].shape[1]
        return args[0][:, -1:]

    def after(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        return nn.functional.pad(output, (0, 0, width - 1, 0))

    handles = mlp.register_forward_pre_hook(before), mlp.register_forward_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
