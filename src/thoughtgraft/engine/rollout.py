"""The one loop: question, clean thoughts, forked thoughts, end of thought, greedy answer.

Every question is encoded once and its clean thoughts are computed once; all variants of it attend to that
one copy and keep only what differs. Results do not depend on how problems and rows are packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thoughtgraft.engine.answer import ANSWER_COLUMNS, Answers, Draft, begin, finish
from thoughtgraft.engine.latents import CleanState, additive, plan_steps, think_clean, think_forked
from thoughtgraft.engine.memory import keep_freed_memory
from thoughtgraft.engine.rows import EditLog, Grid, Row, Source
from thoughtgraft.engine.score import Scores, verify_drafts
from thoughtgraft.models.attention import ATTENTION, ColumnCache, Prefix
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, Prompt, attention_implementation, check_lengths


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
        failed: What went wrong with each row, None where nothing did; the row's other figures then mean nothing.
        scores: Log-probabilities and divergences [R], where drafts were given.
    """

    fed: Tensor
    hidden: Tensor
    answers: Answers
    edit_norm: Tensor
    edit_cosine: Tensor
    failed: tuple[str | None, ...]
    scores: Scores | None = None

    def at(self, index: Tensor) -> RolloutResult:
        """The result of these rows, in this order; a row may be asked for twice."""
        return replace(
            self,
            answers=self.answers.at(index),
            edit_norm=self.edit_norm[index],
            edit_cosine=self.edit_cosine[index],
            failed=tuple(self.failed[i] for i in index.tolist()),
            scores=None if self.scores is None else self.scores.at(index),
        )


@with_ieee_products
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
        source: Clean thoughts for edits; rows without an edit do not need it.
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
    # What rows ask for is put on the device before anything runs: nothing has to wait for it later.
    grid = Grid(rows, len(prompts), model.num_latents, model.device, with_clean=drafts is not None)
    steps = plan_steps(grid, model.num_latents, model.device)
    # 1. Encode each question once, 2. think its clean thoughts once.
    clean = think_clean(model, prompts)
    # 3. Fork: variants keep their own columns and share everything before.
    where = grid.problem_of(model.device)
    cache = ColumnCache(len(grid.rows), model.num_latents + min(limit, ANSWER_COLUMNS), by_column=True)
    prefix = Prefix(clean.cache, shared_bias(clean, grid))
    own_bias = additive(grid.own, model.dtype)
    # 4. Feed the slots that differ.
    log = EditLog(len(grid.rows), model)
    think_forked(model, clean, steps, cache, prefix, own_bias, source, log)
    # 5. Close the thoughts and 6. write the answer, first as far as it agrees with the draft.
    positions = clean.next_position[where] + grid.thoughts
    state = begin(model, grid, cache, prefix, own_bias, positions, limit, log.failures)
    scores = None
    if drafts is not None:
        by_place = [drafts[place % grid.n_problems] for place in range(len(grid.rows))]
        tails = [row.donor_tail for row in grid.rows]
        scores = verify_drafts(model, state, by_place, tails, grid.clean_place(), keep_logits=keep_logits)
    answers = finish(model, state, keep_logits=keep_logits)
    return RolloutResult(
        clean.fed,
        clean.hidden,
        answers,
        log.norms.cpu(),
        log.cosines.cpu(),
        tuple(log.failures.texts()),
        scores,
    ).at(grid.places(len(rows)))


def shared_bias(clean: CleanState, grid: Grid) -> Tensor:
    """Additive mask [P, 1, V, 1, 1, L+K]: the question, and the clean thoughts that a variant keeps."""
    variants, problems = grid.n_variants, grid.n_problems
    question = clean.question_bias.expand(variants, *clean.question_bias.shape)
    thoughts = additive(grid.seen, question.dtype).view(variants, problems, -1)
    return torch.cat([question, thoughts], -1).permute(1, 0, 2)[:, None, :, None, None]
