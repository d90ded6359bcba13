"""The models that are timed: random weights in known shapes, and the embedded trained model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from thoughtgraft.models.checkpoint.assembly import build_projection
from thoughtgraft.models.checkpoint.read import Checkpoint
from thoughtgraft.models.codi import CodiReasoner
from thoughtgraft.models.load import load_model
from thoughtgraft.models.thinker import Decoding

_SPECIAL_ROWS = 3
_NEVER = -1


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes.

    Attributes:
        name: What the command line calls it.
        hidden: Width of the residual stream.
        layers: Blocks.
        heads: Query heads.
        kv_heads: Key and value heads.
        inner: Width of the MLP.
        vocab: Words, the three special rows not counted.
        question: Mean prompt length in tokens; lengths are drawn from two thirds to four thirds of it.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocab: int
    question: int = 90


SHAPES = {
    s.name: s
    for s in (
        Shape("tiny", 256, 6, 4, 4, 768, 1024),
        Shape("135m", 576, 30, 9, 3, 1536, 49152),
        Shape("1b", 2048, 16, 32, 8, 8192, 128256),
    )
}


class ForcedReasoner(CodiReasoner):
    """A model whose answers never end by themselves, so that every variant writes the same number of tokens."""

    @property
    def decoding(self) -> Decoding:
        """An end that no row of the unembedding has."""
        return replace(super().decoding, ends=(_NEVER,))


def random_model(
    shape: Shape, *, dtype: torch.dtype = torch.float32, device: str = "cpu", answer: int = 8
) -> ForcedReasoner:
    """A Llama of this shape with seeded random weights, and answers of exactly `answer` tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocab + _SPECIAL_ROWS,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.02,
    )
    lm = LlamaForCausalLM(config).to(device, dtype).eval().requires_grad_(False)
    lm.config.dtype = dtype
    projection = build_projection(shape.hidden, shape.hidden).to(device, dtype).eval().requires_grad_(False)
    checkpoint = Checkpoint(shape.name, lm, projection, None, shape.vocab, "random")  # type: ignore[arg-type]
    return ForcedReasoner(checkpoint, max_new_tokens=answer)


def trained_model(
    *, dtype: torch.dtype = torch.float32, device: str = "cpu", answer: int | None = None
) -> CodiReasoner:
    """The embedded model; with `answer`, its answers have exactly so many tokens."""
    model = load_model("tiny-codi", device=device, dtype=dtype)
    assert isinstance(model, CodiReasoner)
    return model if answer is None else ForcedReasoner(model.checkpoint, max_new_tokens=answer)
