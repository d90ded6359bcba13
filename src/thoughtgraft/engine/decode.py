"""Greedy answers for a grid of rows; finished rows are dropped while the rest goes on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.engine.grid import Grid
from thoughtgraft.models.prefix import ColumnCache, Prefix
from thoughtgraft.models.reasoner import LatentReasoner

_GROW = 16  # answer columns added at a time
_LOGITS_AT_ONCE = 1 << 25  # rows x vocabulary


@dataclass(frozen=True)
class Answers:
    """Greedy answers of n rows.

    Attributes:
        token_ids: Each answer without its end of sequence.
        stopped: Whether the end of sequence was written [n]; else the limit was reached.
        first_logits: Logits of the first answer token [n, V], on the CPU, if kept.
    """

    token_ids: tuple[tuple[int, ...], ...]
    stopped: tuple[bool, ...]
    first_logits: Tensor | None

    def at(self, index: Tensor) -> Answers:
        """The answers of these rows, in this order."""
        order = index.tolist()
        return Answers(
            tuple(self.token_ids[i] for i in order),
            tuple(self.stopped[i] for i in order),
            None if self.first_logits is None else self.first_logits[index],
        )


def greedy(
    model: LatentReasoner,
    grid: Grid,
    cache: ColumnCache,
    prefix: Prefix,
    own_bias: Tensor,
    positions: Tensor,
    *,
    max_new_tokens: int,
    keep_logits: bool,
) -> Answers:
    """Feed end-of-thought, then write greedily until the end of sequence or the limit.

    Args:
        model: The model.
        grid: Where rows lie.
        cache: The rows' own columns; slots 0..K-1 are filled.
        prefix: What they share.
        own_bias: Additive mask over the rows' own slots [R, K].
        positions: Position of end-of-thought in each row [R].
        max_new_tokens: The longest answer.
        keep_logits: Keep the first answer token's logits.
    """
    device, total = model.device, len(grid.rows)
    place = torch.arange(total, device=device)  # which grid place each remaining row answers for
    alive = torch.tensor([i >= 0 for i in grid.order], device=device)
    written = torch.full((total, max_new_tokens), -1, dtype=torch.long, device=device)
    stopped = torch.zeros(total, dtype=torch.bool, device=device)
    eos = torch.tensor(model.eos_ids, device=device)
    token = torch.full((total,), model.end_of_thought, device=device)
    column, kept = model.num_latents, None
    if model.max_positions is not None:
        max_new_tokens = min(max_new_tokens, model.max_positions - int(positions.max()) - 1)
    for step in range(max_new_tokens):
        if column >= cache.columns:
            cache.grow(_GROW)
        bias = torch.cat([own_bias, own_bias.new_zeros(len(own_bias), step + 1)], 1)[:, None, None]
        out = model.forward(model.embed(token)[:, None], positions[:, None], bias, cache.at(column), prefix)[:, 0]
        token, logits = next_token(model, out, keep_logits=keep_logits and step == 0)
        kept = logits if logits is not None else kept
        ended = alive & torch.isin(token, eos)
        stopped[place[ended]] = True
        alive = alive & ~ended
        written[place[alive], step] = token[alive]
        column, positions = column + 1, positions + 1
        remaining = int(alive.sum())
        if remaining == 0:
            break
        if remaining < 0.7 * len(alive):
            rows, problems, variants = _pack(alive, prefix)
            cache.keep(rows)
            prefix = _shrink(prefix, rows, problems, variants)
            own_bias, positions, token, place = own_bias[rows], positions[rows], token[rows], place[rows]
            # A place that only fills up the grid repeats a row that is alive elsewhere or has ended.
            first = torch.zeros(len(rows), dtype=torch.bool, device=device)
            first[_first_occurrence(rows)] = True
            alive = alive[rows] & first
    ids = tuple(tuple(row[row >= 0].tolist()) for row in written.cpu())
    return Answers(ids, tuple(stopped.tolist()), kept)


def next_token(model: LatentReasoner, hidden: Tensor, *, keep_logits: bool = False) -> tuple[Tensor, Tensor | None]:
    """The allowed token with the highest logit [n], unembedding a bounded number of rows at a time."""
    vocabulary = model.lm.get_output_embeddings().weight.shape[0]
    chunk = max(1, _LOGITS_AT_ONCE // vocabulary)
    tokens, kept = [], []
    for part in hidden.split(chunk):
        logits = model.unembed(part)
        if keep_logits:
            kept.append(logits.cpu().clone())
        logits[:, list(model.forbidden_ids)] = -torch.inf
        tokens.append(logits.argmax(-1))
    return torch.cat(tokens), torch.cat(kept) if keep_logits else None


def _pack(alive: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor, int]:
    """A smaller grid for the rows alive: (rows to keep, problems to keep, variants)."""
    problems = prefix.bias.shape[0]
    table = alive.view(-1, problems).cpu()
    counts = table.sum(0)
    keep = counts.nonzero().flatten()
    variants = int(counts.max())
    # Alive rows first in each column; the fillers behind them are ended rows of the same problem.
    order = table[:, keep].int().argsort(dim=0, descending=True, stable=True)[:variants]
    rows = order * problems + keep[None]
    return rows.flatten().to(alive.device), keep.to(alive.device), variants


def _first_occurrence(rows: Tensor) -> Tensor:
    seen: dict[int, int] = {}
    for i, row in enumerate(rows.tolist()):
        seen.setdefault(row, i)
    return torch.tensor(list(seen.values()), device=rows.device)


def _shrink(prefix: Prefix, rows: Tensor, problems: Tensor, variants: int) -> Prefix:
    before = prefix.bias.shape[0]
    shared = prefix.cache
    if len(problems) < before:
        shared = shared.select(problems)
    # [P, 1, V, 1, 1, L] -> rows -> the same for the smaller grid
    by_row = prefix.bias.permute(2, 0, 1, 3, 4, 5).flatten(0, 1)[rows]
    bias = by_row.view(variants, len(problems), *by_row.shape[1:]).permute(1, 2, 0, 3, 4, 5)
    return Prefix(shared, bias)
