"""Which problems run together: whole problems, sorted by length, up to a number of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from thoughtgraft.errors import ModelError
from thoughtgraft.models.reasoner import LatentReasoner

Item = TypeVar("Item")

_CPU_ROWS = 1024
_MEMORY_SHARE = 0.6


def row_budget(model: LatentReasoner, batch_size: int | str, columns: int) -> int:
    """How many rows may run at once.

    Args:
        model: The model.
        batch_size: A number of rows, or `auto`: what fits in memory on a GPU, a cache-friendly number on a CPU.
        columns: Columns of keys and values that each row keeps for itself.

    Raises:
        ModelError: Neither `auto` nor a positive number.
    """
    if batch_size != "auto":
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ModelError("batch size is not usable", got=repr(batch_size), expected="auto or a number from 1")
        return int(batch_size)
    if model.device.type != "cuda":
        return _CPU_ROWS
    config = model.lm.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys_values = 2 * config.num_hidden_layers * heads * width * columns
    activations = 24 * config.hidden_size
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, int(free * _MEMORY_SHARE) // ((keys_values + activations) * model.dtype.itemsize))


def packs(
    items: Sequence[Item], rows: Callable[[Item], int], length: Callable[[Item], int], budget: int
) -> list[list[Item]]:
    """Items in packs of at most `budget` rows, neighbours in length together; an item too large stands alone."""
    result: list[list[Item]] = []
    filled = 0
    for item in sorted(items, key=length):
        size = rows(item)
        if not result or filled + size > budget:
            result.append([])
            filled = 0
        result[-1].append(item)
        filled += size
    return result


def halving(run: Callable[[list[Item]], None], items: list[Item]) -> Iterator[list[Item]]:
    """Run items together; on out-of-memory run each half instead. Yields what has been run, as it finishes.

    Raises:
        torch.OutOfMemoryError: A single item does not fit.
    """
    try:
        run(items)
    except (torch.OutOfMemoryError, MemoryError):
        if len(items) == 1:
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    else:
        yield items
        return
    middle = len(items) // 2
    yield from halving(run, items[:middle])
    yield from halving(run, items[middle:])
