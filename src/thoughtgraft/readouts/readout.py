"""What reads tokens out of a thought: the contract of a readout, those that there are by name, and `decode_thoughts`.

A new readout is one file in `readouts/kinds/` that defines `READOUT`: the file's name then works in
`decode_thoughts(..., readout=)` and in `thoughtgraft think --readout`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from thoughtgraft.arguments import answers_for_calls, choice, items, need, shown, whole
from thoughtgraft.errors import ModelError
from thoughtgraft.models.live import admitted
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, as_model
from thoughtgraft.readouts import NAMES, kinds
from thoughtgraft.records.states import States
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd

_STATES_AT_ONCE = 256


class Readout(ABC):
    """A way to say what a state holds, in the model's own tokens. It treats each state by itself.

    Attributes:
        words: How it reads, for titles: "through the unembedding".
    """

    words: ClassVar[str]

    @abstractmethod
    def logits(self, model: LatentReasoner, states: Tensor, layer: int | None) -> Tensor:
        """How strongly each state says each token: their softmax is the probability [n, V].

        Args:
            model: The model that had the states.
            states: [n, d], on the model's device and in its precision.
            layer: The 0-based block after which they are the residual stream; None where they are final states, which
                the final norm has been applied to.
        """


def find_readout(name: str) -> Readout:
    """The readout of this name.

    Raises:
        ModelError: There is none.
    """
    found: Readout = import_module(f"{kinds.__name__}.{choice(name, 'readout', NAMES, ModelError)}").READOUT
    return found


@answers_for_calls(ModelError)
@with_ieee_products
@torch.inference_mode()
def decode_thoughts(
    model: LatentReasoner,
    thoughts: Thoughts | States,
    top: int = 5,
    *,
    layers: int | Sequence[int] | None = None,
    readout: str = "lens",
    identity: str | None = None,
) -> pd.DataFrame:
    """The most probable tokens of every thought, or of every state at every layer.

    Of thoughts, `hidden[k]` is read: it is the state that `fed[k]` is made from, and so slot 0 is read at
    begin-of-thought. Of states, `resid[p, l]` is read. The lens puts both through the unembedding, as the official
    CODI probe does, and a residual stream through the final norm first; after the last block that is `hidden[p]` again.

    Args:
        model: The model that had the thoughts.
        thoughts: Clean thoughts of P problems; or states, as `collect_states` gives them.
        top: Tokens of each thought.
        layers: Some layers of the states, 0-based; None takes all that they hold.
        readout: How the tokens are read: lens, or another file of `readouts/kinds/`.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Returns:
        One row per problem, slot (0-based) and rank (0-based): `problem_id`, `slot`, `rank`, `token`, `prob`; of states
        one per problem, position, layer and rank, with `position` (`BOT`, `CT0`, ...) and `layer` instead of `slot`.

    Raises:
        ModelError: There is no such readout, there are no such layers, the states are of another width, or the model is
            not as it was loaded and no name is given.
    """
    import pandas as pd

    model, top = admitted(as_model(model), identity), whole(top, "top", ModelError, least=1)
    chosen = find_readout(readout)
    fix = "collect_thoughts(model, problems) gives them, collect_states(model, problems, layers=[4]) at layers"
    if isinstance(thoughts, States):
        names, states = _of_states(model, thoughts, layers)
        axes, layer_of = ["problem_id", "position", "layer"], [layer for *_, layer in names]
    else:
        need(thoughts, Thoughts, "the thoughts", ModelError, expected="Thoughts or States", fix=fix)
        if layers is not None:
            what = "thoughts are final states and have no layers"
            fix = "collect_states(model, problems, layers=[4]) gives what the layers held"
            raise ModelError(what, got=f"layers={shown(layers)}", expected="States", fix=fix)
        slots = range(thoughts.fed.shape[1])
        names = list(product(thoughts.problem_ids, slots))
        states = thoughts.hidden[:, : len(slots)].flatten(0, 1)  # [P, K, d] -> [P*K, d]
        axes, layer_of = ["problem_id", "slot"], [None] * len(names)
    rows = []
    for name, tokens in zip(names, _top_tokens(chosen, model, states, layer_of, top), strict=True):
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


def _top_tokens(
    readout: Readout, model: LatentReasoner, states: Tensor, layers: Sequence[int | None], top: int
) -> Iterator[list[tuple[int, float]]]:
    """The most probable tokens of each state [n, d], each with its probability, best first."""
    found: list[list[tuple[int, float]]] = [[] for _ in layers]
    for layer in dict.fromkeys(layers):
        rows = [i for i, own in enumerate(layers) if own == layer]
        for part in torch.tensor(rows).split(_STATES_AT_ONCE):
            logits = _checked(
                readout.logits(model, states[part].to(model.device, model.dtype), layer), model, len(part)
            )
            probs, ids = logits.softmax(-1).topk(min(top, logits.shape[-1]))
            for i, p, t in zip(part.tolist(), probs.tolist(), ids.tolist(), strict=True):
                found[i] = list(zip(t, p, strict=True))
    return iter(found)


def _checked(logits: Tensor, model: LatentReasoner, n: int) -> Tensor:
    """Logits [n, V] that can be read as probabilities.

    Raises:
        ModelError: They have another shape, or are not numbers.
    """
    rows = model.lm.get_output_embeddings().weight.shape[0]
    if tuple(logits.shape) != (n, rows):
        raise ModelError("a readout gives a logit for each token", got=list(logits.shape), expected=[n, rows])
    if bool(logits.isnan().any()):
        raise ModelError("a readout gave NaN", fix="look at what its logits() makes of these states")
    return logits.float()


def token_text(model: LatentReasoner, token: int) -> str:
    """One token as people read it; rows outside the tokenizer by what they are."""
    if token >= len(model.tokenizer):
        special = {model.pad_id: "<pad>", model.end_of_thought: "<end-of-thought>"}
        return special.get(token, "<begin-of-thought>")
    return str(model.tokenizer.decode([token])).strip() or repr(model.tokenizer.decode([token]))
