"""Clean passes over problems: their thoughts and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from thoughtgraft.arguments import answers_for_calls, whole
from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine.batching import packs, plan_budget, surviving
from thoughtgraft.engine.rollout import RolloutResult, rollout
from thoughtgraft.engine.rows import Row
from thoughtgraft.errors import ModelError
from thoughtgraft.models.live import admitted
from thoughtgraft.models.protocols import padding
from thoughtgraft.models.reasoner import LatentReasoner, Prompt, as_model, fits, too_long
from thoughtgraft.tasks.grading import NUMBER, Grader
from thoughtgraft.tasks.load import as_problems
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

# Questions that think at once: more are not faster.
CPU_ROWS, GPU_ROWS = 128, 512


def encode(model: LatentReasoner, problems: ProblemSet) -> list[Prompt]:
    """Each problem's prompt under the model's protocol.

    Raises:
        ModelError: A question does not fit the model's context; the error names the longest.
    """
    questions = [model.question_ids(p.question) for p in problems]
    lengths = [len(ids) for ids in questions]
    pads = padding(lengths, model.protocol)
    prompts = [model.as_prompt(ids, pad) for ids, pad in zip(questions, pads, strict=True)]
    if long := [i for i, prompt in enumerate(prompts) if not fits(model, prompt)]:
        # Visible pads make a question's neighbours long too: the longest question is the one to blame.
        worst = max(long, key=lengths.__getitem__)
        more = "" if len(long) == 1 else f" (with {len(long) - 1} more)"
        raise too_long(model, prompts[worst], f"problem {problems[worst].id!r}{more} is")
    return prompts


def answer_limit(model: LatentReasoner, tokens: int | None) -> int:
    """The longest answer, in tokens: what was asked for, or the model's own where that is None.

    Raises:
        ModelError: It is no whole number from 1.
    """
    return model.max_new_tokens if tokens is None else whole(tokens, "max_new_tokens", ModelError, least=1)


def answer_identity(
    model: LatentReasoner, max_new_tokens: int | None = None, grader: Grader = NUMBER
) -> dict[str, Any]:
    """What every answer of a model rests on: its identity, how long an answer may be, and how answers are read."""
    return {**model.identity, "max_new_tokens": answer_limit(model, max_new_tokens), "task": grader.name}


def question_batches(
    model: LatentReasoner,
    prompts: Sequence[Prompt],
    batch_size: int | str,
    todo: Sequence[int],
    most: int = GPU_ROWS,
) -> list[list[int]]:
    """Which questions think at once.

    Args:
        model: The model.
        prompts: Every problem's prompt.
        batch_size: Rows at once, or `auto`.
        todo: The problems to do, 0-based.
        most: Rows at once that nothing may exceed.
    """
    budget = plan_budget(model, batch_size, max(map(len, prompts), default=0))
    most = min(most, budget.rows, CPU_ROWS if model.device.type == "cpu" else GPU_ROWS)
    return packs(todo, lambda i: 1, lambda i: len(prompts[i]), replace(budget, rows=most))


@answers_for_calls(ModelError)
def collect_thoughts(
    model: LatentReasoner,
    problems: ProblemSet,
    *,
    batch_size: int | str = "auto",
    max_new_tokens: int | None = None,
    progress: bool = True,
    stop: Callable[[], bool] | None = None,
    identity: str | None = None,
) -> Thoughts:
    """The thoughts and answers of every problem, unedited.

    Args:
        model: The model.
        problems: P problems.
        batch_size: Rows at once, or `auto`; it does not change results.
        max_new_tokens: The longest answer; None takes the model's.
        progress: Show a progress bar.
        stop: Asked before each batch: whether to end with KeyboardInterrupt.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Returns:
        `fed [P, K, d]`, `hidden [P, K+1, d]` on the CPU in the model's dtype, answers and grades.

    Raises:
        ModelError: A question does not fit the context, the model gives thoughts or logits that are not finite, or it
            is not as it was loaded and no name is given.
    """
    model, problems = admitted(as_model(model), identity), as_problems(problems)
    if not len(problems):
        raise ModelError("there are no problems to think about", fix="load at least one problem")
    limit = answer_limit(model, max_new_tokens)
    return think_clean_runs(model, problems, limit, batch_size=batch_size, progress=progress, stop=stop)


def think_clean_runs(
    model: LatentReasoner,
    problems: ProblemSet,
    max_new_tokens: int,
    *,
    batch_size: int | str = "auto",
    progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Thoughts:
    """`collect_thoughts` of a model that was admitted already: to admit it is to read all of its weights."""
    prompts = encode(model, problems)
    clean = tuple([Action(Feed.CLEAN)] * model.num_latents)
    batches = question_batches(model, prompts, batch_size, range(len(problems)))
    results: dict[int, tuple[RolloutResult, int]] = {}

    def once(batch: list[int]) -> None:
        rows = [Row(at, clean) for at in range(len(batch))]
        out = rollout(model, [prompts[i] for i in batch], rows, max_new_tokens=max_new_tokens)
        results.update({i: (out, at) for at, i in enumerate(batch)})

    with tqdm(total=len(problems), desc="clean thoughts", unit="problem", disable=not progress) as bar:
        for batch in surviving(once, batches, lambda i: 1, lambda i: [i], model.device, stop):
            bar.update(len(batch))
    found = [results[i] for i in range(len(problems))]
    hidden = torch.stack([out.hidden[at] for out, at in found]).cpu()
    refuse_broken(hidden, [out.failed[at] for out, at in found], problems)
    ids = tuple(out.answers.token_ids[at] for out, at in found)
    texts = tuple(model.text(answer) for answer in ids)
    pred = tuple(problems.grader.parse(text) for text in texts)
    return Thoughts(
        fed=torch.stack([out.fed[at] for out, at in found]).cpu(),
        hidden=hidden,
        token_ids=ids,
        texts=texts,
        stopped=tuple(out.answers.stopped[at] for out, at in found),
        pred=pred,
        correct=tuple(problems.grader.same(said, p.gold) for said, p in zip(pred, problems, strict=True)),
        problem_ids=tuple(p.id for p in problems),
        identity=answer_identity(model, max_new_tokens, problems.grader),
        problem_hash=problems.content_hash,
    )


def refuse_broken(hidden: torch.Tensor, failed: Sequence[str | None], problems: ProblemSet) -> None:
    """Raise a ModelError where a clean run's `hidden` [P, K+1, d] is not finite, or where it has `failed` [P]."""
    thought = (~hidden.isfinite().flatten(1).all(1)).tolist()
    for what, broken in (("thoughts", thought), ("logits", [reason is not None for reason in failed])):
        if any(broken):
            raise ModelError(
                f"the model's {what} are not finite numbers",
                got=f"NaN or infinite in {sum(broken)} of {len(broken)} problems, "
                f"first in {problems[broken.index(True)].id!r}",
                fix="--dtype float32 if it overflows in half precision; else its weights are damaged "
                "(thoughtgraft doctor)",
            )
