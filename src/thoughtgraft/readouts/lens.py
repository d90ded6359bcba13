"""What each thought decodes to: the tokens that the unembedding reads in `hidden[k]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from thoughtgraft.arguments import answers_for_calls, need, whole
from thoughtgraft.errors import ModelError
from thoughtgraft.models.live import admitted
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, as_model
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
