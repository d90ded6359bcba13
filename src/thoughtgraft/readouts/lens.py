"""What a thought says: the logit lens, and which answers the vocabulary can write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thoughtgraft.arguments import answers_for_calls, items, need, shown, whole
from thoughtgraft.errors import ModelError
from thoughtgraft.models.live import admitted
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, as_model
from thoughtgraft.records.states import States
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd

_STATES_AT_ONCE = 256


@answers_for_calls(ModelError)
@with_ieee_products
@torch.inference_mode()
def decode_thoughts(
    model: LatentReasoner,
    thoughts: Thoughts | States,
    top: int = 5,
    *,
    layers: int | Sequence[int] | None = None,
    identity: str | None = None,
) -> pd.DataFrame:
    """The most probable tokens of every thought, or of every state at every layer.

    Of thoughts, `hidden[k]` goes through the unembedding (the logit lens of the official CODI probe): it is the state
    that `fed[k]` is made from, and so slot 0 is read at begin-of-thought. Of states, `resid[p, l]` goes through the
    final norm first; after the last block that is `hidden[p]` again.

    Args:
        model: The model that had the thoughts.
        thoughts: Clean thoughts of P problems; or states, as `collect_states` gives them.
        top: Tokens of each thought.
        layers: Some layers of the states, 0-based; None takes all that they hold.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Returns:
        One row per problem, slot (0-based) and rank (0-based): `problem_id`, `slot`, `rank`, `token`, `prob`; of states
        one per problem, position, layer and rank, with `position` (`BOT`, `CT0`, ...) and `layer` instead of `slot`.

    Raises:
        ModelError: There are no such layers, the states are of another width, or the model is not as it was loaded
            and no name is given.
    """
    import pandas as pd

    model, top = admitted(as_model(model), identity), whole(top, "top", ModelError, least=1)
    fix = "collect_thoughts(model, problems) gives them, collect_states(model, problems, layers=[4]) at layers"
    if isinstance(thoughts, States):
        names, states = _of_states(model, thoughts, layers)
        axes = ["problem_id", "position", "layer"]
    else:
        need(thoughts, Thoughts, "the thoughts", ModelError, expected="Thoughts or States", fix=fix)
        if layers is not None:
            what = "thoughts are final states and have no layers"
            raise ModelError(what, got=f"layers={shown(layers)}", expected="States", fix=fix.split(", ", 1)[1])
        slots = range(thoughts.fed.shape[1])
        names = list(product(thoughts.problem_ids, slots))
        states = thoughts.hidden[:, : len(slots)].flatten(0, 1)  # [P, K, d] -> [P*K, d]
        axes = ["problem_id", "slot"]
    rows = []
    for name, tokens in zip(names, _top_tokens(model, states, top, normed=isinstance(thoughts, Thoughts)), strict=True):
        rows += [(*name, rank, token_text(model, token), prob) for rank, (token, prob) in enumerate(tokens)]
    return pd.DataFrame(rows, columns=[*axes, "rank", "token", "prob"])


def _of_states(model: LatentReasoner, states: States, layers: Any) -> tuple[list[tuple[Any, ...]], Tensor]:
    """(problem, position, layer) of each state, and the residual streams [P*L*p, d] in that order."""
    if states.width != model.d_model:
        what = f"the states are not of {model.name}"
        raise ModelError(what, got=f"width {states.width}", expected=f"width {model.d_model}")
    given = [layers] if isinstance(layers, int) else layers
    wanted = (
        list(states.layers) if given is None else items(given, "the layers", ModelError, expected="a list of layers")
    )
    if unknown := [layer for layer in wanted if layer not in states.layers]:
        raise ModelError(f"the states hold no layer {shown(unknown[0])}", expected=f"some of {list(states.layers)}")
    chosen = states.values[:, :, [states.layers.index(layer) for layer in wanted]]
    # [P, p, L, d] -> [P*p*L, d]
    return list(product(states.ids, states.positions, wanted)), torch.from_numpy(chosen).flatten(0, 2)


def _top_tokens(model: LatentReasoner, states: Tensor, top: int, normed: bool) -> Iterator[list[tuple[int, float]]]:
    """The most probable tokens of each state [n, d], each with its probability, best first."""
    for part in states.split(_STATES_AT_ONCE):
        here = part.to(model.device, model.dtype)
        logits = model.unembed(here if normed else model.final_norm(here)).float()
        probs, ids = logits.softmax(-1).topk(min(top, logits.shape[-1]))
        for p, t in zip(probs.tolist(), ids.tolist(), strict=True):
            yield list(zip(t, p, strict=True))


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
