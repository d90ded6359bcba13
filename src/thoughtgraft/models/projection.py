"""What is fed in the place of a thought: CODI's projection of the last hidden state, or a learned pause vector."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def build_projection(d_model: int, prj_dim: int, *, dropout: float = 0.0, norm: bool = True) -> nn.Sequential:
    """Builds `prj`: [..., d_model] -> [..., d_model], with the official code's parameter names.

    Args:
        d_model: Width of the language model.
        prj_dim: Width of the inner layer.
        dropout: Rate of the dropout at index 0; it acts in training only.
        norm: Whether it ends with a LayerNorm.

    Source: CODI, `src/model.py`: Dropout, Linear, GELU, Linear, LayerNorm under the keys `1`, `3` and `ln`; the last
    one is left out with `prj_no_ln`.
    """
    parts: dict[str, nn.Module] = {
        "0": nn.Dropout(dropout),
        "1": nn.Linear(d_model, prj_dim),
        "2": nn.GELU(),
        "3": nn.Linear(prj_dim, d_model),
    }
    if norm:
        parts["ln"] = nn.LayerNorm(d_model)
    return nn.Sequential(OrderedDict(parts))


def pause_vectors(num_latents: int, d_model: int) -> nn.Embedding:
    """Builds K learned vectors [K, d_model] that are fed to every problem alike, as small as a model's embeddings."""
    vectors = nn.Embedding(num_latents, d_model)
    nn.init.normal_(vectors.weight, std=0.02)
    return vectors
