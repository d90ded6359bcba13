"""The answer: written token by token, or verified as a draft of the clean one in a single pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thoughtgraft.engine.rows import Failures, Grid
from thoughtgraft.models.attention import ColumnCache, Prefix
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.tasks.grading import Grader

ANSWER_COLUMNS = 16  # columns for an answer that are allocated at a time
LOGITS_AT_ONCE = 1 << 25  # rows x vocabulary
_BLOCK = 128  # columns of logits whose highest is found first
_SPARSE = 0.7  # below this share of rows alive, the rest is packed anew
BROKEN = "the model's logits at the answer are not finite numbers"


@dataclass
class Writing:
    """R rows in the middle of their answers.

    Attributes:
        cache: The rows' own columns.
        prefix: What they share.
        bias: Additive mask over the columns written so far [R, C].
        positions: Position of the next token fed [R].
        token: The next token fed [R].
        place: Which grid place each row answers for [R].
        alive: Whether the row still writes [R].
        ids: What each grid place has written, -1 where nothing [places, length + 1]; the last column is scratch.
        length: How much of `ids` each grid place has written [places].
        limit: How much it may write [places].
        stopped: Whether each grid place has ended by itself [places].
        failures: Which grid places have failed; these write nothing.
        first_logits: Logits of the first answer token [places, V], on the CPU, if kept.
    """

    cache: ColumnCache
    prefix: Prefix
    bias: Tensor
    positions: Tensor
    token: Tensor
    place: Tensor
    alive: Tensor
    ids: Tensor
    length: Tensor
    limit: Tensor
    stopped: Tensor
    failures: Failures
    first_logits: Tensor | None = None

    def take(self, token: Tensor, eos: Tensor, finite: Tensor) -> None:
        """Write the next token of the rows alive, [R]; an end of sequence ends its row and is not written.

        A row whose token has a logit that is not `finite` [R] has failed.
        """
        self.failures.note(self.place, self.alive & ~finite, BROKEN)
        self.alive = self.alive & finite
        ended = self.alive & torch.isin(token, eos)
        self.stopped[self.place] = self.stopped[self.place] | ended
        self.alive = self.alive & ~ended
        length = self.length[self.place]
        self.ids[self.place, torch.where(self.alive, length, self.ids.shape[1] - 1)] = token
        self.length[self.place] = length + self.alive
        self.alive = self.alive & self.unfinished()
        self.token = token

    def unfinished(self) -> Tensor:
        """Whether each row may write more [R]."""
        return self.length[self.place] < self.limit[self.place]


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


def begin(
    model: LatentReasoner,
    grid: Grid,
    cache: ColumnCache,
    prefix: Prefix,
    own_bias: Tensor,
    positions: Tensor,
    max_new_tokens: int,
    failures: Failures,
) -> Writing:
    """Rows about to be fed end-of-thought at `positions` [R]; `own_bias` [R, K] masks the rows' own slots."""
    total, device = len(grid.rows), model.device
    limit = torch.full((total,), max_new_tokens, device=device)
    if model.max_positions is not None:  # each row to the end of its own context, whoever it runs with
        limit = limit.minimum(model.max_positions - positions - 1)
    return Writing(
        cache=cache,
        prefix=prefix,
        bias=own_bias,
        positions=positions,
        token=torch.full((total,), model.end_of_thought, device=device),
        place=torch.arange(total, device=device),
        alive=grid.filled & failures.none(),
        ids=torch.full((total, max_new_tokens + 1), -1, dtype=torch.long, device=device),
        length=torch.zeros(total, dtype=torch.long, device=device),
        limit=limit,
        stopped=torch.zeros(total, dtype=torch.bool, device=device),
        failures=failures,
    )


def finish(model: LatentReasoner, state: Writing, *, keep_logits: bool = False) -> Answers:
    """Write until every row has ended or reached the limit."""
    eos = torch.tensor(model.decoding.ends, device=model.device)
    every = look_every(model.device)
    for step in itertools.count():
        if step % every == 0:
            alive = int(state.alive.sum())
            if alive == 0:
                break
            if alive < _SPARSE * len(state.alive):
                state = packed(state)
        write_token(model, state, eos, keep_logits=keep_logits)
    ids = tuple(tuple(row[:n].tolist()) for row, n in zip(state.ids.cpu(), state.length.tolist(), strict=True))
    return Answers(ids, tuple(state.stopped.tolist()), state.first_logits)


def look_every(device: torch.device) -> int:
    """Tokens written between looks at which rows have ended: to look, the host must wait for the device."""
    return 1 if device.type == "cpu" else 4


def write_token(model: LatentReasoner, state: Writing, eos: Tensor, *, keep_logits: bool = False) -> None:
    """Feed every row its token and write the next one of those alive."""
    column = state.bias.shape[1]
    state.bias = torch.cat([state.bias, state.bias.new_zeros(len(state.bias), 1)], 1)
    hidden = feed(model, state, state.token[:, None], state.bias[:, None, None], column)[:, 0]
    keep = keep_logits and state.first_logits is None
    token, finite, logits = next_token(model, hidden, keep_logits=keep)
    if keep and logits is not None:
        state.first_logits = logits.new_full((len(state.ids), logits.shape[1]), torch.nan)
        state.first_logits[state.place.cpu()] = logits
    state.positions = state.positions + 1
    state.take(token, eos, finite)


def feed(model: LatentReasoner, state: Writing, tokens: Tensor, mask: Tensor, column: int) -> Tensor:
    """Feed `tokens` [R, T] at `column` and the rows' next positions; returns final-normed states [R, T, d]."""
    width = tokens.shape[1]
    while column + width > state.cache.columns:
        state.cache.grow(ANSWER_COLUMNS)
    positions = state.positions[:, None] + torch.arange(width, device=tokens.device)
    if model.max_positions is not None:  # rows that have ended still run until they are packed away
        positions = positions.clamp_max(model.max_positions - 1)
    return model.forward(model.embed(tokens), positions, mask, state.cache.at(column), state.prefix)


def next_token(
    model: LatentReasoner, hidden: Tensor, *, keep_logits: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The allowed token with the highest logit [n], whether that is finite [n], and the logits [n, V] if asked for.

    A bounded number of rows is unembedded at a time.
    """
    tokens, finite, kept = [], [], []
    for part in hidden.split(rows_at_once(model)):
        logits = model.unembed(part)
        if keep_logits:
            kept.append(logits.cpu().clone())
        forbid(model, logits)
        token, sound = best_token(logits)
        tokens.append(token)
        finite.append(sound)
    return torch.cat(tokens), torch.cat(finite), torch.cat(kept) if keep_logits else None


def forbid(model: LatentReasoner, logits: Tensor) -> None:
    """Give the ids that are never written the lowest logits [n, V]."""
    for token in model.decoding.forbidden:  # one by one: a list of them would have to be copied to the device
        logits[:, token] = -torch.inf


def best_token(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The first highest column of [n, V], as `argmax(-1)`, and whether what stands there is finite [n].

    NaN counts as higher than any number, so that one NaN in a row is seen. `argmax` is several times slower on CPUs
    than `amax`.
    """
    n_columns = logits.shape[1]
    whole = n_columns // _BLOCK * _BLOCK
    tops = [logits[:, :whole].unflatten(1, (-1, _BLOCK)).amax(-1)] if whole else []
    tops += [logits[:, whole:].amax(-1, keepdim=True)] if whole < n_columns else []
    block = torch.cat(tops, 1).argmax(-1, keepdim=True)
    columns = (block * _BLOCK + torch.arange(_BLOCK, device=logits.device)).clamp_max(n_columns - 1)
    in_block = logits.gather(1, columns)
    best = in_block.argmax(-1, keepdim=True)
    return columns.gather(1, best)[:, 0], in_block.gather(1, best)[:, 0].isfinite()


def rows_at_once(model: LatentReasoner) -> int:
    """How many rows may be unembedded at a time."""
    return max(1, LOGITS_AT_ONCE // model.lm.get_output_embeddings().weight.shape[0])


def packed(state: Writing) -> Writing:
    """The rows alive in a smaller grid; ended rows of the same problem fill it up where problems differ in number."""
    problems = state.prefix.bias.shape[0]
    table = state.alive.view(-1, problems).cpu()
    keep = table.any(0).nonzero().flatten()
    variants = int(table.sum(0).max())
    order = table[:, keep].int().argsort(dim=0, descending=True, stable=True)[:variants]
    rows = (order * problems + keep[None]).flatten().to(state.alive.device)
    state.cache.keep(rows)
    shared = state.prefix.cache if len(keep) == problems else state.prefix.cache.select(keep.to(rows.device))
    by_row = state.prefix.bias.permute(2, 0, 1, 3, 4, 5).flatten(0, 1)[rows]
    bias = by_row.view(variants, len(keep), *by_row.shape[1:]).permute(1, 2, 0, 3, 4, 5)
    return replace(
        state,
        prefix=Prefix(shared, bias),
        bias=state.bias[rows],
        positions=state.positions[rows],
        token=state.token[rows],
        place=state.place[rows],
        alive=state.alive[rows],
    )


@dataclass(frozen=True)
class Draft:
    """The clean answer of one problem, to be verified and scored against.

    Attributes:
        ids: Its token ids, end of sequence included if it was written.
        number_at: 0-based index in `ids` of the token its last number begins in; None without a number.
        gold: The gold number's tokens and the end of sequence, as they would stand from `number_at` on;
            empty where there is nothing to score.
    """

    ids: tuple[int, ...]
    number_at: int | None = None
    gold: tuple[int, ...] = ()


def make_draft(model: LatentReasoner, answer: Sequence[int], stopped: bool, gold: str | None, grader: Grader) -> Draft:
    """The draft of a clean answer.

    Args:
        model: Whose tokenizer wrote it.
        answer: The clean answer's ids, without the end of sequence.
        stopped: Whether it ended by itself.
        gold: The gold answer as canonical text.
        grader: Says where in the text the answer stands.
    """
    ids = (*answer, model.decoding.ends[0]) if stopped else tuple(answer)
    at = answer_token(model, answer, grader)
    return Draft(ids, at, () if at is None or gold is None else answer_tail(model, answer, at, gold, grader))


def answer_token(model: LatentReasoner, answer: Sequence[int], grader: Grader) -> int | None:
    """The 0-based index of the token in which what the grader reads begins; None where it reads nothing."""
    start = grader.scored(model.decode(answer))
    if start is None:
        return None
    return next(i for i in range(len(answer)) if len(model.decode(answer[: i + 1])) > start)


def answer_tail(model: LatentReasoner, answer: Sequence[int], at: int, given: str, grader: Grader) -> tuple[int, ...]:
    """The answer `given` and the end of sequence, tokenized as a continuation of `answer[:at]`.

    Text and tokens need not be cut at the same places, so the whole text is tokenized and the known
    prefix taken off; where that changes the prefix, the answer is tokenized by itself.
    """
    text, words = model.decode(answer), model.decode(answer[:at])
    start = grader.scored(text)
    assert start is not None, "a text with an answer token has an answer"
    glue = text[len(words) : start]
    whole = model.tokenizer(words + glue + given, add_special_tokens=False)["input_ids"]
    prefix = list(answer[:at])
    tail = whole[at:] if whole[:at] == prefix else model.tokenizer(glue + given, add_special_tokens=False)["input_ids"]
    return (*tail, model.decoding.ends[0])
