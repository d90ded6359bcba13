"""Verify the clean answer as a draft in one pass, and score given numbers against it.

Greedy decoding would write the draft up to the first token that is not the argmax; everything before
is accepted at once, exactly. The same pass yields the distribution at the number, and a short second pass
the log-probability of any other number put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.engine.answer import BROKEN, Draft, Writing, best_token, feed, forbid, rows_at_once
from thoughtgraft.models.reasoner import LatentReasoner


@dataclass(frozen=True)
class Scores:
    """Natural-log probabilities and nats of R rows; NaN where undefined.

    Attributes:
        logp_gold: The gold number and the stop, after the clean answer's own words [R].
        logp_donor: The same for the donor's number [R].
        kl: KL(clean || edited) at the number's first token [R].
        clean_logp_gold: `logp_gold` of the same problem, not edited [R].
    """

    logp_gold: Tensor
    logp_donor: Tensor
    kl: Tensor
    clean_logp_gold: Tensor

    def at(self, index: Tensor) -> Scores:
        """The scores of these rows, in this order."""
        return Scores(self.logp_gold[index], self.logp_donor[index], self.kl[index], self.clean_logp_gold[index])


def verify_drafts(
    model: LatentReasoner,
    state: Writing,
    drafts: Sequence[Draft],
    donor_tails: Sequence[tuple[int, ...]],
    clean_place: Tensor,
    *,
    keep_logits: bool = False,
) -> Scores:
    """Feed end-of-thought and the draft of each row, take what greedy decoding would take, and score.

    Args:
        model: The model.
        state: Rows about to be fed end-of-thought; they come back with their accepted tokens written.
        drafts: One for each row.
        donor_tails: The donor's number and the end of sequence for each row, as they would stand at the
            draft's number; empty where there is none.
        clean_place: A row of the same problem that is not edited, for each row [R].
        keep_logits: Keep the first answer token's logits.
    """
    device, start = state.bias.device, state.bias.shape[1]
    width = max(len(d.ids) for d in drafts)
    ids = torch.tensor([d.ids + (-1,) * (width - len(d.ids)) for d in drafts], device=device)
    fed = torch.cat([state.token[:, None], ids[:, :-1].clamp_min(0)], 1)
    hidden = feed(model, state, fed, _causal(state.bias, width), start)

    wanted = ids.flatten().clamp_min(0)
    best, finite, chosen, first = _read(model, hidden.flatten(0, 1), wanted, keep_every=width if keep_logits else None)
    best, finite, chosen = best.view_as(ids), finite.view_as(ids), chosen.view_as(ids)
    if keep_logits:
        state.first_logits = first

    logp = _tails(model, state, drafts, [d.gold for d in drafts], chosen, ids, start)
    logp_donor = _tails(model, state, drafts, donor_tails, chosen, ids, start)
    kl = _kl(model, state, hidden, drafts, clean_place)
    clean = logp[clean_place]
    state.failures.note(state.place, ~logp.isnan() & ~clean.isfinite(), BROKEN)
    scores = Scores(logp.cpu(), logp_donor.cpu(), kl.cpu(), clean.cpu())
    _accept(model, state, ids, best, finite)
    return scores


def _accept(model: LatentReasoner, state: Writing, ids: Tensor, best: Tensor, finite: Tensor) -> None:
    """Write what greedy decoding would have written so far, and hide the columns of refused tokens.

    A row takes its draft up to the first token that is not the best one, and there the best one. It has failed if
    one of the tokens that it takes has no `finite` logit.
    """
    width = ids.shape[1]
    columns = torch.arange(width, device=ids.device)
    agreed = ((best == ids) & (ids >= 0)).int().cumprod(1).sum(1)
    last = torch.minimum(agreed, (ids >= 0).sum(1) - 1)[:, None]
    state.token = best.gather(1, last)[:, 0]
    ended = torch.isin(state.token, torch.tensor(model.decoding.ends, device=ids.device))
    state.failures.note(state.place, (~finite & (columns <= last)).any(1), BROKEN)
    room = state.limit[state.place]
    length = (last[:, 0] + (~ended).long()).minimum(room)
    keep = min(width, state.ids.shape[1] - 1)
    state.ids[state.place, :keep] = best.masked_fill(columns >= length[:, None], -1)[:, :keep]
    state.length[state.place] = length
    state.stopped[state.place] = ended & (last[:, 0] < room)
    state.alive = state.alive & ~ended & (length < room) & state.failures.none()[state.place]
    refused = torch.zeros_like(ids, dtype=state.bias.dtype).masked_fill_(
        columns > last, torch.finfo(state.bias.dtype).min
    )
    state.bias = torch.cat([state.bias, refused], 1)
    state.positions = state.positions + last[:, 0] + 1


def _tails(
    model: LatentReasoner,
    state: Writing,
    drafts: Sequence[Draft],
    tails: Sequence[tuple[int, ...]],
    chosen: Tensor,
    ids: Tensor,
    start: int,
) -> Tensor:
    """Log-probability [R] of each row's tail in the place of the draft's from its number on; NaN without one."""
    device, rows = ids.device, len(drafts)
    at = torch.tensor([d.number_at or 0 for d in drafts], device=device)
    has = [d.number_at is not None and bool(t) for d, t in zip(drafts, tails, strict=True)]
    told = [d.number_at is not None and d.ids[d.number_at :] == t for d, t in zip(drafts, tails, strict=True)]
    defined, same = torch.tensor(has, device=device), torch.tensor(told, device=device)
    columns = torch.arange(ids.shape[1], device=device)
    inside = (columns >= at[:, None]) & (ids >= 0)
    total = torch.where(inside, chosen, 0).sum(1)
    if any(a and not b for a, b in zip(has, told, strict=True)):
        total = torch.where(same, total, _forced(model, state, tails, at, ids, start))
    state.failures.note(state.place, defined & ~total.isfinite(), BROKEN)
    return torch.where(defined, total, torch.full((rows,), torch.nan, device=device, dtype=total.dtype))


def _forced(
    model: LatentReasoner, state: Writing, tails: Sequence[tuple[int, ...]], at: Tensor, ids: Tensor, start: int
) -> Tensor:
    """Teacher-force tails after the draft's own words, in columns behind the draft that are overwritten later.

    The state before the number predicts the tail's first token, so the pass feeds the word before it again.
    """
    device, width = ids.device, ids.shape[1]
    longest = max(map(len, tails))
    tail = torch.tensor([list(t) + [-1] * (longest - len(t)) for t in tails], device=device)
    before = torch.cat([torch.full_like(ids[:, :1], model.end_of_thought), ids[:, :-1]], 1).gather(1, at[:, None])
    fed = torch.cat([before, tail[:, :-1].clamp_min(0)], 1)
    # Seen: end-of-thought and the words before the one fed again, that is the first `at` fed columns.
    low = torch.finfo(state.bias.dtype).min
    refused = torch.arange(width, device=device) >= at[:, None]
    words = torch.zeros_like(refused, dtype=state.bias.dtype).masked_fill_(refused, low)
    bias = torch.cat([state.bias, words], 1)
    kept, state.positions = state.positions, state.positions + at
    hidden = feed(model, state, fed, _causal(bias, longest), start + width)
    state.positions = kept
    _, _, chosen, _ = _read(model, hidden.flatten(0, 1), tail.flatten().clamp_min(0))
    return torch.where(tail >= 0, chosen.view_as(tail), 0).sum(1)


def _read(
    model: LatentReasoner, hidden: Tensor, wanted: Tensor, keep_every: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """For states [n, d], what their logits say, and every so-many-th logits.

    That is the best allowed token [n], whether its logit is finite [n], and the log-probability of `wanted` [n].
    """
    parts, kept = [], []
    size = rows_at_once(model)
    size = size if keep_every is None else max(keep_every, size - size % keep_every)
    for part, token in zip(hidden.split(size), wanted.split(size), strict=True):
        logits = model.unembed(part)
        if keep_every is not None:
            kept.append(logits[::keep_every].cpu().clone())
        normaliser = _wide(logits).logsumexp(-1)
        chosen = logits.gather(1, token[:, None])[:, 0].to(normaliser.dtype) - normaliser
        forbid(model, logits)
        parts.append((*best_token(logits), chosen))
    best, finite, chosen = map(torch.cat, zip(*parts, strict=True))
    return best, finite, chosen, torch.cat(kept) if kept else None


def _kl(model: LatentReasoner, state: Writing, hidden: Tensor, drafts: Sequence[Draft], clean_place: Tensor) -> Tensor:
    device = hidden.device
    at = torch.tensor([d.number_at or 0 for d in drafts], device=device)
    states = hidden[torch.arange(len(drafts), device=device), at]
    parts = []
    for part, clean in zip(states.split(rows_at_once(model)), clean_place.split(rows_at_once(model)), strict=True):
        edited, reference = (_wide(model.unembed(x)).log_softmax(-1) for x in (part, states[clean]))
        parts.append((reference.exp() * (reference - edited)).sum(-1))
    kl = torch.cat(parts)
    undefined = torch.tensor([d.number_at is None for d in drafts], device=device)
    state.failures.note(state.place, ~undefined & ~kl.isfinite(), BROKEN)
    return kl.masked_fill(undefined, torch.nan)


def _wide(logits: Tensor) -> Tensor:
    """In the model's own type, float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _causal(bias: Tensor, width: int) -> Tensor:
    """Mask [R, 1, T, C + T] for T tokens behind columns that are masked by `bias` [R, C]."""
    low = torch.finfo(bias.dtype).min
    triangle = torch.full((width, width), low, dtype=bias.dtype, device=bias.device).triu(1)
    rows = len(bias)
    return torch.cat([bias[:, None].expand(rows, width, -1), triangle.expand(rows, width, width)], -1)[:, None]
