"""LoRA training: the base stays frozen; low-rank pairs, the projection and three embedding rows are learned.

Source: Hu et al. 2021, "LoRA" (arXiv 2106.09685), by way of `peft`, whose parameter names are those of CODI's files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from thoughtgraft.errors import ModelError
from thoughtgraft.models.checkpoint.format import SPECIAL_ROWS

TARGETS = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
"""The matrices that the official CODI scripts adapt, by kind of model."""


class GrownEmbedding(nn.Module):
    """A frozen embedding [V, d] with learned rows after it.

    Args:
        base: The embedding; frozen here.
        rows: How many rows are added, made as small and as spread as the base's own.
    """

    def __init__(self, base: nn.Embedding, rows: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.rows = nn.Parameter(torch.randn(rows, base.embedding_dim) * base.weight.float().std())

    @property
    def num_embeddings(self) -> int:
        """Rows in all."""
        return self.base.num_embeddings + len(self.rows)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors [..., d] of ids [...], in the base's dtype."""
        old = self.base.num_embeddings
        new = F.embedding((ids - old).clamp_min(0), self.rows).to(self.base.weight.dtype)
        return torch.where((ids < old).unsqueeze(-1), self.base(ids.clamp_max(old - 1)), new)


class GrownHead(nn.Module):
    """The output matrix tied to a `GrownEmbedding`: states [..., d] -> logits [..., V + rows]."""

    def __init__(self, embedding: GrownEmbedding) -> None:
        super().__init__()
        self.tied = (embedding,)  # in a tuple, so that the parameters are the embedding's alone

    def forward(self, states: Tensor) -> Tensor:
        """The logits."""
        [embedding] = self.tied
        new = embedding.rows.to(states.dtype)
        return torch.cat([F.linear(states, embedding.base.weight), F.linear(states, new)], -1)


def add_lora(lm: PreTrainedModel, *, rank: int, alpha: float) -> PreTrainedModel:
    """Freeze `lm` and add what is learned, in place: LoRA pairs on every inner matrix, and three embedding rows.

    Args:
        lm: A causal LM with V rows.
        rank: LoRA's r.
        alpha: LoRA's alpha; the pairs' product is scaled by alpha / rank.

    Raises:
        ModelError: `peft` is missing, or the model's head is its own matrix, or its kind is not known.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ModelError("LoRA training needs the package peft", fix="pip install 'thoughtgraft[real]'") from error
    kind = str(lm.config.model_type)
    if kind not in TARGETS:
        raise ModelError("LoRA targets are not known for this kind of model", got=kind, expected=", ".join(TARGETS))
    if not lm.config.tie_word_embeddings:
        raise ModelError(
            "LoRA training needs a model whose output matrix is its embedding",
            got="tie_word_embeddings: false",
            fix="train without --lora-r",
        )
    lm.requires_grad_(False)
    embedding = GrownEmbedding(lm.get_input_embeddings(), SPECIAL_ROWS)
    lm.set_input_embeddings(embedding)
    lm.lm_head = GrownHead(embedding)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number will do
        target_modules=list(TARGETS[kind]),
        fan_in_fan_out=kind == "gpt2",
    )
    inject_adapter_in_model(config, lm)
    embedding.rows.requires_grad_(True)  # peft freezes what it has not added
    for name, parameter in lm.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return lm


def learned(module: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: every parameter where nothing is frozen."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
