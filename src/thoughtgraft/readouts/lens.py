"""What a thought says: the logit lens, and which answers the vocabulary can write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from thoughtgraft.arguments import answers_for_calls, need, whole
from thoughtgraft.errors import ModelError
from thoughtgraft.models.live import admitted
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, as_model
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd

_STATES_AT_ONCE = 256


@answers_for_calls(ModelError)
@with_ieee_products
@torch.inference_mode()
def decode_thoughts(
    model: LatentReasoner, thoughts: Thoughts, top: int = 5, *, identity: str | None = None
) -> pd.DataFrame:
    """The most probable tokens of every thought.

    `hidden[k]`, the state that `fed[k]` is made from, goes through the unembedding (the logit lens of
    the official CODI probe). Slot 0 is read at begin-of-thought.

    Args:
        model: The model that had the thoughts.
        thoughts: Clean thoughts of P problems.
        top: Tokens of each thought.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Returns:
        One row per problem, slot (0-based) and rank (0-based): `problem_id`, `slot`, `rank`, `token`, `prob`.

    Raises:
        ModelError: The model is not as it was loaded and no name is given.
    """
    import pandas as pd

    model, top = admitted(as_model(model), identity), whole(top, "top", ModelError, least=1)
    fix = "collect_thoughts(model, problems) gives them"
    need(thoughts, Thoughts, "the thoughts", ModelError, expected="Thoughts", fix=fix)
    slots = thoughts.fed.shape[1]
    states = thoughts.hidden[:, :slots].flatten(0, 1)
    rows = []
    for start, part in enumerate(states.split(_STATES_AT_ONCE)):
        logits = model.unembed(part.to(model.device, model.dtype)).float()
        probs, ids = logits.softmax(-1).topk(min(top, logits.shape[-1]))
        for i, (p, t) in enumerate(zip(probs.tolist(), ids.tolist(), strict=True)):
            problem, slot = divmod(start * _STATES_AT_ONCE + i, slots)
            rows += [
                (thoughts.problem_ids[problem], slot, rank, token_text(model, token), prob)
                for rank, (token, prob) in enumerate(zip(t, p, strict=True))
            ]
    return pd.DataFrame(rows, columns=["problem_id", "slot", "rank", "token", "prob"])


def token_text(model: LatentReasoner, token: int) -> str:
    """One token as people read it; rows outside the tokenizer by what they are."""
    if token >= len(model.tokenizer):
        special = {model.pad_id: "<pad>", model.end_of_thought: "<end-of-thought>"}
        return special.get(token, "<begin-of-thought>")
    return str(model.tokenizer.decode([token])).strip() or repr(model.tokenizer.decode([token]))


_QUESTIONS, _MANY, _SHOWN = 100, 0.05, 4


def unseen_words(model: LatentReasoner, question: str) -> list[str]:
    """Words and numbers that become the unknown token, in order, each once; empty for subword tokenizers."""
    unknown = model.tokenizer.unk_token_id
    if unknown is None:
        return []
    words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", question))
    return [w for w in words if unknown in model.tokenizer(w, add_special_tokens=False)["input_ids"]]


def warn_of_unseen(model: LatentReasoner, problems: ProblemSet) -> str | None:
    """A warning where a model has never seen many of a problem set's words; None where it has.

    More than 5% of the different words of the first questions; never with a subword tokenizer.
    """
    words = {w for problem in problems[:_QUESTIONS] for w in re.findall(r"\w+|[^\w\s]", problem.question)}
    unseen = unseen_words(model, " ".join(sorted(words)))
    if not words or len(unseen) <= _MANY * len(words):
        return None
    return (
        f"{model.name} has never seen {len(unseen)} of the {len(words)} words in {problems.name} "
        f"({', '.join(map(repr, unseen[:_SHOWN]))}, ...), so its answers mean little"
    )


def largest_number(model: LatentReasoner, limit: int = 1_000_000) -> int | None:
    """The largest n such that the tokenizer can write 0..n; None if it writes numbers up to `limit` and beyond."""
    if not unseen_words(model, str(limit)):
        return None
    return next((n for n in range(limit) if unseen_words(model, str(n + 1))), None)
