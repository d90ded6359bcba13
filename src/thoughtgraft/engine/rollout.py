"""The one loop: question, clean thoughts, forked thoughts, end of thought, greedy answer.

Every question is encoded once and its clean thoughts are computed once; all variants of it attend to that
one copy and keep only what differs. Results do not depend on how problems and rows are packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.engine.clean import CleanState, additive, think_clean
from thoughtgraft.engine.decode import ANSWER_COLUMNS, Answers, begin, finish
from thoughtgraft.engine.drafts import Draft
from thoughtgraft.engine.edits import apply_op, edited_streams
from thoughtgraft.engine.grid import Grid, Row
from thoughtgraft.engine.memory import keep_freed_memory
from thoughtgraft.engine.score import Scores, verify_drafts
from thoughtgraft.errors import ModelError
from thoughtgraft.interventions.ops import Op
from thoughtgraft.interventions.schedule import Feed
from thoughtgraft.models.prefix import ATTENTION, ColumnCache, Prefix
from thoughtgraft.models.reasoner import LatentReasoner, Prompt, attention_implementation


@dataclass(frozen=True)
class Source:
    """Clean thoughts that edits draw on, on the model's device: `fed` and `mean` (of the others) [N, K, d]."""

    fed: Tensor
    mean: Tensor

    @classmethod
    def from_fed(cls, fed: Tensor) -> Source:
        """Means leave the host out; with one problem they are undefined (NaN)."""
        others = fed.shape[0] - 1
        return cls(fed, (fed.sum(0, keepdim=True) - fed) / others if others else torch.full_like(fed, torch.nan))


@dataclass(frozen=True)
class RolloutResult:
    """Clean thoughts of P problems and the answers of R rows, in the order asked for.

    Attributes:
        fed: `project(hidden[k])` for slots 0..K-1 [P, K, d].
        hidden: [P, K+1, d]; [P, K, d] where the loop's first step is begin-of-thought, and `fed[K-1]` is then made
            and never fed.
        answers: One per row.
        edit_norm: Norm of the first edited vector that a slot is fed [R]; NaN where none is.
        edit_cosine: Cosine of that vector with the host's clean one [R].
        scores: Log-probabilities and divergences [R], where drafts were given.
    """

    fed: Tensor
    hidden: Tensor
    answers: Answers
    edit_norm: Tensor
    edit_cosine: Tensor
    scores: Scores | None = None


@torch.inference_mode()
def rollout(
    model: LatentReasoner,
    prompts: Sequence[Prompt],
    rows: Sequence[Row],
    source: Source | None = None,
    *,
    drafts: Sequence[Draft] | None = None,
    max_new_tokens: int | None = None,
    keep_logits: bool = False,
) -> RolloutResult:
    """Run rows over prompts.

    Args:
        model: The model.
        prompts: P encoded questions.
        rows: R generations; each names its prompt.
        source: Clean thoughts for edits; rows without an op do not need it.
        drafts: The clean answer of each prompt: it is verified in one pass instead of being written token by
            token (the answers are the same), and scored against.
        max_new_tokens: The longest answer; None takes the model's.
        keep_logits: Keep the first answer token's logits.

    Raises:
        ModelError: A prompt does not fit the model's context.
    """
    check_lengths(model, prompts)
    if model.device.type == "cpu":
        keep_freed_memory()
    with attention_implementation(model.lm, ATTENTION):
        return _rollout(model, prompts, rows, source, drafts, max_new_tokens, keep_logits)


def _rollout(
    model: LatentReasoner,
    prompts: Sequence[Prompt],
    rows: Sequence[Row],
    source: Source | None,
    drafts: Sequence[Draft] | None,
    max_new_tokens: int | None,
    keep_logits: bool,
) -> RolloutResult:
    limit = model.max_new_tokens if max_new_tokens is None else max_new_tokens
    # 1. Encode each question once, 2. think its clean thoughts once.
    clean = think_clean(model, prompts)
    # 3. Fork: variants keep their own columns and share everything before.
    grid = Grid(rows, len(prompts), model.num_latents, model.device, with_clean=drafts is not None)
    where = grid.problem_of(model.device)
    cache = ColumnCache(len(grid.rows), model.num_latents + min(limit, ANSWER_COLUMNS), by_column=True)
    prefix = Prefix(clean.cache, _shared_bias(clean, grid))
    own_bias = additive(grid.own, model.dtype)
    # 4. Feed the slots that differ.
    edits = _think_forked(model, clean, grid, cache, prefix, own_bias, source)
    # 5. Close the thoughts and 6. write the answer, first as far as it agrees with the draft.
    state = begin(model, grid, cache, prefix, own_bias, clean.next_position[where] + grid.thoughts, limit)
    scores = None
    if drafts is not None:
        by_place = [drafts[place % grid.n_problems] for place in range(len(grid.rows))]
        tails = [row.donor_tail for row in grid.rows]
        scores = verify_drafts(model, state, by_place, tails, grid.clean_place(), keep_logits=keep_logits)
    answers = finish(model, state, keep_logits=keep_logits)
    back = grid.places(len(rows))
    return RolloutResult(
        clean.fed,
        clean.hidden,
        answers.at(back),
        edits[0].cpu()[back],
        edits[1].cpu()[back],
        None if scores is None else scores.at(back),
    )


def check_lengths(model: LatentReasoner, prompts: Sequence[Prompt]) -> None:
    """Raise a ModelError for the first prompt that leaves no room for thoughts and an answer."""
    for index, prompt in enumerate(prompts):
        if not fits(model, prompt):
            raise too_long(model, prompt, f"problem {index} of the batch is")


def fits(model: LatentReasoner, prompt: Prompt) -> bool:
    """Whether the model's context holds a prompt, the thoughts, end-of-thought and one answer token."""
    return model.max_positions is None or _needed(model, prompt) <= model.max_positions


def too_long(model: LatentReasoner, prompt: Prompt, who: str) -> ModelError:
    """The error for a prompt that does not fit; `who` names it, with its verb."""
    return ModelError(
        f"{who} too long for {model.name}",
        got=f"{len(prompt)} prompt tokens, {_needed(model, prompt)} with thoughts and one answer token",
        expected=f"at most {model.max_positions}",
        fix="shorten or drop that question",
    )


def _needed(model: LatentReasoner, prompt: Prompt) -> int:
    return len(prompt) + model.num_latents + 2


def _think_forked(
    model: LatentReasoner,
    clean: CleanState,
    grid: Grid,
    cache: ColumnCache,
    prefix: Prefix,
    own_bias: Tensor,
    source: Source | None,
) -> tuple[Tensor, Tensor]:
    device = model.device
    problem = grid.problem_of(device)
    last = clean.steps.new_zeros(len(grid.rows), model.d_model)
    norms = torch.full((len(grid.rows),), torch.nan, device=device, dtype=torch.float32)
    cosines = norms.clone()
    for slot in range(model.num_latents):
        places = grid.active(slot)
        if places is None:
            continue
        on_device = places.to(device)
        at = clean.steps[problem[on_device], slot]
        if slot > 0:
            ran = grid.own[on_device, slot - 1, None]
            made = model.project(last[on_device], slot)
            if (ahead := grid.ahead[places, slot]).any():
                made = torch.where(ahead.to(device)[:, None], model.project(last[on_device], slot + 1), made)
            live = torch.where(ran, made, at)
        else:
            live = at
        fed = _feed(grid, places.tolist(), slot, model.protocol.edit_delay, live, clean, source, norms, cosines)
        n_variants = len(places) // grid.n_problems
        everything = len(places) == int(places[-1]) + 1
        some = Prefix(prefix.cache, prefix.bias[:, :, places[:: grid.n_problems].to(device) // grid.n_problems])
        # Clean thoughts that `freeze_kv` keeps stand in later columns: this slot must not see them yet.
        some.bias[..., clean.question_bias.shape[1] + slot :] = torch.finfo(some.bias.dtype).min
        assert some.variants == n_variants
        rows = [grid.rows[place] for place in places.tolist()]
        with edited_streams(model, rows, slot, model.protocol.edit_delay, source):
            out = model.forward(
                fed[:, None],
                (clean.next_position[problem[on_device]] + slot)[:, None],
                own_bias[on_device, None, None, : slot + 1],
                cache.at(slot, slice(0, len(places)) if everything else on_device),
                some,
            )
        last[on_device] = out[:, 0]
    return norms, cosines


def _feed(
    grid: Grid,
    places: list[int],
    slot: int,
    delay: int,
    live: Tensor,
    clean: CleanState,
    source: Source | None,
    norms: Tensor,
    cosines: Tensor,
) -> Tensor:
    """What each place is fed at this step [n, d]: its live vector, a replayed one, or the edit of slot - delay."""
    fed = live.clone()
    edits: dict[Op | None, list[int]] = {}
    for i, place in enumerate(places):
        action = grid.rows[place].actions[slot]
        if action.feed is Feed.REPLAY:
            fed[i] = clean.steps[place % grid.n_problems, action.slot]
        elif action.feed is Feed.EDIT and grid.rows[place].layer is None:
            edits.setdefault(grid.rows[place].op, []).append(i)
    for op, members in edits.items():
        rows = [grid.rows[places[i]] for i in members]
        edited = apply_op(op, live[members], rows, slot - delay, source)
        fed[members] = edited.to(fed)
        first = [n for n, r in enumerate(rows) if all(a.feed is not Feed.EDIT for a in r.actions[:slot])]
        at = torch.tensor([places[members[n]] for n in first], device=fed.device, dtype=torch.long)
        norms[at] = edited[first].norm(dim=-1).float()
        assert source is not None
        hosts = torch.tensor([rows[n].host for n in first], device=fed.device, dtype=torch.long)
        host = source.fed[hosts, slot - delay]
        cosines[at] = torch.cosine_similarity(edited[first].float(), host.float(), dim=-1)
    return fed


def _shared_bias(clean: CleanState, grid: Grid) -> Tensor:
    """Additive mask [P, 1, V, 1, 1, L+K]: the question, and the clean thoughts that a variant keeps."""
    variants, problems = grid.n_variants, grid.n_problems
    question = clean.question_bias.expand(variants, *clean.question_bias.shape)
    thoughts = additive(grid.seen, question.dtype).view(variants, problems, -1)
    return torch.cat([question, thoughts], -1).permute(1, 0, 2)[:, None, :, None, None]
