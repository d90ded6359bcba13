"""Whether a base is computed here as its own library computes it: one forward pass of each, on a small random twin.

The engine feeds vectors, masks and positions of its own. It keeps keys and values itself, shares them between rows and
multiplies final states with the output matrix. A base whose config asks for more than that (scaled or capped logits,
positions by ALiBi, attention of its own make) would load and be computed wrongly.

The twin has the base's config, but two layers, few tokens, and weights so large that every such term shows. It needs
none of the base's own weights. A loader, a doctor and a training can therefore ask before they read anything large.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import PretrainedConfig, PreTrainedModel

from thoughtgraft.errors import ModelError, first_line
from thoughtgraft.models.attention import ATTENTION, ColumnCache, Prefix, last_token_alone
from thoughtgraft.models.checkpoint.assembly import empty_lm
from thoughtgraft.models.checkpoint.bases import refuse_sliding_window
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, attention_implementation

TOKENS = 53
"""The twin's vocabulary."""
_LAYERS, _INNER = 2, 512
_GAIN, _DTYPE = 1.6, torch.float32
_NOISE = 1_000_003  # numbers drawn; longer tensors repeat them, shifted from row to row
_QUESTIONS = ((7, 3, 21, 40, 11, 9, 30, 2, 17, 5), (33, 8, 1, 26, 14, 44, 6, 12))
_ENCODED = (6, 4)  # tokens of each that are encoded at once; the rest are fed as thoughts are
_TOLERANCE = 5e-4
"""Largest difference, as a part of the standard deviation. Rounding makes 1e-6 to 2e-5 of it, at widths 32 to 4096."""

_NEUTRAL: Mapping[str, object] = {
    "logits_scaling": 1.0,
    "logit_scale": 1.0,
    "lm_head_multiplier": 1.0,
    "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": None,
    "alibi": False,
    "partial_rotary_factor": 1.0,
    "parallel_residual": False,
    "use_parallel_residual": False,
    "parallel_attn": False,
}
"""Config keys that some bases compute with, and the value with which nothing is computed."""


@dataclass(frozen=True)
class Difference:
    """Where the engine and the library part.

    Attributes:
        what: The step at which they do, in words.
        got: By how much, or with which error.
    """

    what: str
    got: str


_known: dict[str, Difference | None] = {}


def check_base(config: PretrainedConfig, name: str) -> None:
    """Refuse a base that the engine would compute otherwise than its library does.

    Args:
        config: The base's config.
        name: What the base is called, for the error.

    Raises:
        ModelError: It would; the error names the config key that is the reason where one is found.
    """
    if not {"sliding_attention", "full_attention"}.issuperset(getattr(config, "layer_types", None) or ()):
        refuse_sliding_window(config, name)  # no twin with full attention can be made of it
    key = _key(config)
    if key not in _known:  # asked once for each config in a process
        with torch.device("cpu"):  # whatever device the process makes its tensors on
            _known[key] = _reason(config)
    if (reason := _known[key]) is not None:
        raise ModelError(
            f"{name} cannot be run faithfully: {reason.what}",
            got=f"model_type {config.model_type!r}, {reason.got}",
            expected="a base that this engine computes as its own library does, such as Llama, GPT-2, Qwen or Phi",
            fix="take a checkpoint on such a base, or train one; no option makes this base run",
        )
    refuse_sliding_window(config, name)


def _key(config: PretrainedConfig) -> str:
    """What a forward pass may read, as text: everything but names, versions and the vocabulary."""
    left = ("vocab_size", "_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    values = {name: value for name, value in config.to_dict().items() if name not in left and "token_id" not in name}
    return json.dumps(values, sort_keys=True, default=str)


def _reason(config: PretrainedConfig) -> Difference | None:
    """What is wrong with a base, and the config key that alone makes it so, if there is one."""
    found = _difference(config)
    if found is None:
        return None
    for name, neutral in _NEUTRAL.items():
        value = getattr(config, name, neutral)
        if value == neutral:
            continue
        other = copy.deepcopy(config)
        try:
            setattr(other, name, neutral)
        except Exception:  # configs check themselves, with exceptions of their own
            continue
        left = _difference(other)
        if left is None or left.what != found.what:
            return Difference(f"{name} is {value!r} in its config, and {found.what}", found.got)
    return found


@with_ieee_products
def _difference(config: PretrainedConfig) -> Difference | None:
    """The first step at which the twin is computed otherwise here than by its library; None if none is."""
    try:
        lm = make_twin(config)
        ids = [torch.tensor([question]) for question in _QUESTIONS]
        with torch.inference_mode(), attention_implementation(lm, "eager"):
            states = [lm.base_model(input_ids=x, use_cache=False).last_hidden_state[0] for x in ids]
            logits = [lm(input_ids=x, use_cache=False).logits[0] for x in ids]
    except Exception as error:  # model classes check their configs with every kind of exception
        return Difference("no small model can be made of its config", first_line(error))
    model = _Bare(lm)
    attention = next(
        (type(m).__name__ for n, m in lm.named_modules() if n.endswith(("attn", "attention"))), "attention"
    )
    steps: tuple[tuple[str, Callable[[], list[tuple[Tensor, Tensor]]]], ...] = (
        (
            "its layers make other states from vectors, positions and a mask than from tokens" + _alibi(lm),
            lambda: [(_plain(model, x[0], "eager"), y) for x, y in zip(ids, states, strict=True)],
        ),
        (
            "its logits are not the product of the final state and the output matrix",
            lambda: [(model.unembed(x), y) for x, y in zip(states, logits, strict=True)],
        ),
        (
            f"its {attention} computes more than scaled dot products",
            lambda: [(_plain(model, x[0], "sdpa"), y) for x, y in zip(ids, states, strict=True)],
        ),
        (
            f"its {attention} does not go through the library's attention interface, which the engine replaces",
            lambda: _shared(model, states),
        ),
        (
            "its blocks do not hand the residual stream on as it is, where edits act and features are read",
            lambda: [pair for x in ids for pair in _streams(model, x[0])],
        ),
    )
    for what, compare in steps:
        try:
            with torch.inference_mode():
                worst = max(float((x - y).abs().max() / y.std()) for x, y in compare())
        except Exception as error:
            return Difference(what, f"{type(error).__name__}: {first_line(error)}"[:200])
        if not worst <= _TOLERANCE:
            return Difference(what, f"a small model of its kind differs by {worst:.2g} standard deviations")
    return None


class _Bare(LatentReasoner):
    """The engine's view of a language model, and nothing else."""

    pad_id = begin_of_thought = end_of_thought = 0
    forbidden_ids: tuple[int, ...] = ()

    def __init__(self, lm: PreTrainedModel) -> None:
        self.lm = lm

    def remember(self) -> None:
        """A twin is looked at once, and has no identity."""

    def question_ids(self, question: str) -> list[int]:
        """Not asked."""
        raise NotImplementedError

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        """Not asked."""
        raise NotImplementedError


def _alibi(lm: PreTrainedModel) -> str:
    """Positions by ALiBi are no position of a token's own: said where the library's code names them."""
    named = any("alibi" in name.lower() for name in dir(lm.base_model)) and getattr(lm.config, "alibi", True)
    return " (its attention adds ALiBi, which is made from a mask of tokens)" if named else ""


def make_twin(config: PretrainedConfig) -> PreTrainedModel:
    """A causal LM of this config with two layers, few tokens, and random weights that make scores and logits large."""
    small = copy.deepcopy(config)
    small.vocab_size, small.pad_token_id, small.dtype = TOKENS, None, _DTYPE
    if getattr(small, "sliding_window", None) is not None:
        small.sliding_window = 1 << 20  # what it cuts off is refused by itself
    if isinstance(getattr(small, "intermediate_size", None), int):
        small.intermediate_size = min(small.intermediate_size, _INNER)  # most of a wide model's numbers
    depth = min(_LAYERS, config.num_hidden_layers)
    for name, value in list(vars(small).items()):  # kinds of layers are listed one by one
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(small, name, value[:depth])
    small.num_hidden_layers = depth
    lm = empty_lm(small, "eager")
    noise = torch.randn(_NOISE, dtype=_DTYPE, generator=torch.Generator().manual_seed(0))
    empty = dict(lm.named_parameters())
    lm.load_state_dict({name: _fill(name, value, noise) for name, value in empty.items()}, strict=False, assign=True)
    lm.tie_weights()
    return lm.eval().requires_grad_(False)


def _fill(name: str, empty: Tensor, noise: Tensor) -> Tensor:
    drawn = noise.repeat(-(-empty.numel() // len(noise)))[: empty.numel()].view(empty.shape)
    if empty.dim() < 2:  # a bias near 0, a norm near 1
        return 0.1 * drawn + (not name.endswith("bias"))
    if empty.shape[0] == TOKENS:  # embedding and output matrix
        return drawn
    return drawn * (_GAIN / min(empty.shape[-2:]) ** 0.5)


def _plain(model: LatentReasoner, ids: Tensor, attention: str) -> Tensor:
    """Final states [T, d] of one question, as the oracle computes them: the whole sequence, no cache."""
    embeds = model.embed(ids)[None]
    length = embeds.shape[1]
    mask = torch.full((length, length), -torch.inf, dtype=_DTYPE).triu(1)[None, None]
    with attention_implementation(model.lm, attention):
        return model.forward(embeds, torch.arange(length)[None], mask)[0]


def _streams(model: LatentReasoner, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What each block gives beside what the next is given, of one question, [T, d] each."""
    given: list[Tensor] = []
    made: list[Tensor] = []
    handles: list[RemovableHandle] = []
    for block in model.layers:
        handles.append(block.register_forward_pre_hook(lambda _block, args: given.append(args[0][0].clone())))
        handles.append(block.register_forward_hook(lambda _block, _args, out: made.append(out[0].clone())))
    try:
        _plain(model, ids, "eager")
    finally:
        for handle in handles:
            handle.remove()
    return list(zip(made[:-1], given[1:], strict=True))


def _shared(model: LatentReasoner, wanted: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The engine's way beside the library's states [T, d] of each question.

    Questions of unequal length are encoded together, and of the last block only their last tokens; two more tokens are
    fed as thoughts are, one at a time; then two variants of each share what was kept. The first goes on from both
    thoughts, the second is fed the second thought anew, in a column of its own.
    """
    p, longest = len(_QUESTIONS), max(_ENCODED)
    encoded = torch.tensor(_ENCODED)
    ids = torch.tensor([[*(0,) * (longest - n), *q[: n + 4]] for q, n in zip(_QUESTIONS, _ENCODED, strict=True)])
    embeds, empty, low = model.embed(ids), longest - encoded, torch.finfo(_DTYPE).min
    zeros = partial(torch.zeros, dtype=_DTYPE)
    column = torch.arange(longest)
    row, start = column[:, None], empty[:, None, None]
    sees = (column <= row) & (column >= start) | (column == row) & (row < start)
    cache = ColumnCache(p, longest + 2)
    pairs = []

    def compare(found: Tensor, first: int) -> None:
        """`found` [rows, T, d] are the states at tokens `first`, first + 1, ... after the encoded ones."""
        for i, states in enumerate(found):
            at = _ENCODED[i % p] + first
            pairs.append((states, wanted[i % p][at : at + len(states)]))

    with attention_implementation(model.lm, ATTENTION):
        mask = zeros(p, 1, longest, longest).masked_fill_(~sees[:, None], -torch.inf)
        with last_token_alone(model.layers[-1]):
            out = model.forward(embeds[:, :longest], (column - empty[:, None]).clamp_min(0), mask, cache.at(0, first=0))
        compare(out[:, -1:], -1)
        question = zeros(p, longest).masked_fill_(column < empty[:, None], low)
        step = torch.cat([question, zeros(p, 2)], 1)[:, None, None]
        for slot in range(2):
            here = longest + slot
            out = model.forward(
                embeds[:, here : here + 1], (encoded + slot)[:, None], step[..., : here + 1], cache.at(here)
            )
            compare(out, slot)

        bias = step[:, :, None, None].repeat(1, 1, 2, 1, 1, 1)  # [P, 1, V, 1, 1, L]
        bias[:, :, 1, ..., -1] = low
        prefix, own = Prefix(cache, bias), ColumnCache(2 * p, 3, by_column=True)
        twice, positions = embeds.repeat(2, 1, 1), encoded.repeat(2)[:, None]
        again = model.forward(
            twice[:, longest + 1 : longest + 2], positions + 1, zeros(2 * p, 1, 1, 1), own.at(0), prefix
        )
        compare(again[p:], 1)
        mask = zeros(2 * p, 1, 2, 3)
        mask[..., 0, 2], mask[:p, ..., 0] = low, low
        out = model.forward(twice[:, longest + 2 :], positions + torch.tensor([[2, 3]]), mask, own.at(1), prefix)
        compare(out, 2)
    return pairs
