"""How much runs at once: packs of whole hosts within the memory that is free, halved when it is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.engine.answer import ANSWER_COLUMNS, LOGITS_AT_ONCE
from thoughtgraft.engine.memory import free_memory, is_out_of_memory, release
from thoughtgraft.errors import ModelError
from thoughtgraft.models.reasoner import LatentReasoner

Item = TypeVar("Item")

_CPU_ROWS = 1024  # more is not faster
_GPU_ROWS = 8192
_MEMORY_SHARE = 0.6
_TOKENS = 12  # tokens of a draft that are verified at once
_STATES = 10  # states of d_model that a layer holds for a token


@dataclass(frozen=True)
class Budget:
    """What may run at once.

    Attributes:
        rows: Rows, P x V.
        memory: Bytes for keys, values and activations; infinite where a row count was asked for.
        row_bytes: What a row takes for itself.
        token_bytes: What a token of a question takes, once for all its variants.
        fixed: What is taken whatever runs: the logits of as many tokens as are unembedded at a time.
    """

    rows: int
    memory: float = math.inf
    row_bytes: int = 0
    token_bytes: int = 0
    fixed: int = 0

    def fits(self, problems: int, variants: int, length: int) -> bool:
        """Whether so many variants of each of so many problems, the longest of `length` tokens, may run."""
        if problems * variants > self.rows:
            return False
        return self.needed(problems, variants, length) <= self.memory

    def needed(self, problems: int, variants: int, length: int) -> int:
        """Bytes that are planned for so many variants of each of so many problems."""
        return self.fixed + problems * (variants * self.row_bytes + length * self.token_bytes)

    def variants(self, length: int) -> int:
        """How many variants of one problem may run; 1 at least."""
        if math.isinf(self.memory):
            return self.rows
        free = int(self.memory - self.fixed - length * self.token_bytes)
        return max(1, min(self.rows, free // max(1, self.row_bytes)))


def plan_budget(model: LatentReasoner, batch_size: int | str, longest: int, sharers: int = 1) -> Budget:
    """The budget for a batch size.

    Args:
        model: The model.
        batch_size: A number of rows, or `auto`: what fits in free memory, up to where more rows stop being faster.
        longest: Tokens of the longest question.
        sharers: How many processes plan with the same free memory.

    Raises:
        ModelError: Neither `auto` nor a positive number.
    """
    rows = rows_at_most(model, batch_size)
    if batch_size != "auto":
        return Budget(rows)
    free = free_memory(model.device)
    if free is None:
        return Budget(rows)
    config, size = model.lm.config, model.dtype.itemsize
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    inner = int(
        getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    )

    vocab = int(model.lm.get_output_embeddings().weight.shape[0])
    keys_values = 2 * int(config.num_hidden_layers) * kv_heads * head_dim * size
    activations = (_STATES * int(config.hidden_size) + 3 * inner) * size
    columns = longest + model.num_latents + 2 * ANSWER_COLUMNS
    scores = 2 * heads * columns * max(size, 4)  # attention scores and weights, in float32 at least
    return Budget(
        rows=rows,
        memory=free * _MEMORY_SHARE / sharers,
        row_bytes=keys_values * (model.num_latents + 2 * ANSWER_COLUMNS) + _TOKENS * (activations + scores),
        token_bytes=keys_values + activations + scores,
        fixed=2 * min(LOGITS_AT_ONCE, rows * _TOKENS * vocab) * max(size, 4),  # and what is summed of them
    )


def rows_at_most(model: LatentReasoner, batch_size: int | str) -> int:
    """Rows that may run at once, whatever memory holds.

    Raises:
        ModelError: The batch size is neither `auto` nor a positive number.
    """
    if batch_size == "auto":
        return _CPU_ROWS if model.device.type == "cpu" else _GPU_ROWS
    return check_batch_size(batch_size)


def check_batch_size(batch_size: int | str) -> int:
    """The rows that a batch size other than `auto` asks for.

    Raises:
        ModelError: It is not a positive number.
    """
    if not (rows := typed_number(str(batch_size))):
        raise ModelError("batch size is not usable", got=shown(batch_size), expected="auto or a number from 1")
    return rows


def packs(
    items: Sequence[Item], rows: Callable[[Item], int], length: Callable[[Item], int], budget: Budget
) -> list[list[Item]]:
    """Items (problems with their rows) in packs that fit, neighbours in size together; one too large stands alone."""
    result: list[list[Item]] = []
    most = longest = 0
    for item in sorted(items, key=lambda i: (rows(i), length(i))):
        most, longest = max(most, rows(item)), max(longest, length(item))
        if not result or not budget.fits(len(result[-1]) + 1, most, longest):
            result.append([])
            most, longest = rows(item), length(item)
        result[-1].append(item)
    return result


def surviving(
    run: Callable[[list[Item]], None],
    packed: Sequence[list[Item]],
    rows: Callable[[Item], int],
    split: Callable[[Item], list[Item]],
    device: torch.device,
    stop: Callable[[], bool] | None = None,
) -> Iterator[list[Item]]:
    """Run packs; one that runs out of memory is halved, and later ones of its size before they run.

    A pack of one problem is halved by its rows. Yields what has been run, as it finishes.

    Args:
        run: Runs a pack.
        packed: The packs.
        rows: How many rows an item has.
        split: An item in two smaller ones; itself alone where it has a single row.
        device: Where memory is given back after a failure.
        stop: Asked before each pack: whether to end here.

    Raises:
        ModelError: A single row does not fit.
        KeyboardInterrupt: `stop` said so.
    """
    waiting, largest = list(reversed(packed)), math.inf
    while waiting:
        if stop is not None and stop():
            raise KeyboardInterrupt
        pack = waiting.pop()
        middle = len(pack) // 2
        halves = [pack[:middle], pack[middle:]] if middle else [[part] for part in split(pack[0])]
        size = len(pack) * max(map(rows, pack))
        if size <= largest or len(halves) == 1:
            if _fits(run, pack):
                yield pack
                continue
            if len(halves) == 1:
                raise ModelError(
                    "a single generation does not fit in memory",
                    fix="use a smaller dtype (--dtype bfloat16), another device, or shorter questions",
                )
            largest = size // 2
            release(device)
        waiting += reversed(halves)


def _fits(run: Callable[[list[Item]], None], pack: list[Item]) -> bool:
    try:
        run(pack)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False  # outside of the handler nothing holds on to the failed run's tensors
    return True
