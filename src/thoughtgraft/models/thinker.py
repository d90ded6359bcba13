"""The primitives of whatever thinks in continuous thoughts, trained or in training: what others run, it only gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from thoughtgraft.errors import ModelError
from thoughtgraft.models.loop import ONE_BY_ONE, Loop


@dataclass(frozen=True)
class Decoding:
    """How an answer is written: greedily, to the first id that ends it or the limit.

    Attributes:
        limit: The longest answer, in tokens; what ends it is not counted.
        ends: Ids that end an answer.
        forbidden: Ids that are never written, however likely.
    """

    limit: int
    ends: tuple[int, ...]
    forbidden: tuple[int, ...] = ()

    def within(self, room: int) -> Decoding:
        """The same with at most so many tokens."""
        return replace(self, limit=min(self.limit, room))


class Thinker(ABC):
    """A causal LM, what its thoughts are made by, and the tokens around them. It holds no loop of its own.

    Ids and slots are 0-based. Shapes: R rows, T tokens, d = width, V = embedding rows.

    Attributes:
        lm: A plain Hugging Face causal LM.
        num_latents: Steps of the loop, K >= 0.
    """

    lm: PreTrainedModel
    num_latents: int

    @property
    def loop(self) -> Loop:
        """How thoughts are made."""
        return ONE_BY_ONE

    @abstractmethod
    def project(self, hidden: Tensor, slot: int) -> Tensor:
        """`fed[slot]` [R, d] from `hidden[slot]` [R, d]."""

    @property
    @abstractmethod
    def begin_of_thought(self) -> int:
        """The id that ends every prompt: thoughts are made from here on."""

    @property
    @abstractmethod
    def end_of_thought(self) -> int:
        """The id fed after the last thought."""

    def embed(self, ids: Tensor) -> Tensor:
        """Embedding rows [..., d] of ids [...]."""
        return self.lm.get_input_embeddings()(ids)

    def embed_token(self, token: int, like: Tensor) -> Tensor:
        """The embedding of one id, once for each row of `like` [R, d]."""
        return self.embed(torch.full((len(like),), token, device=like.device))

    def unembed(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of final-normed states [..., d]; the caller picks the rows it needs."""
        return self.lm.get_output_embeddings()(hidden)

    def final_norm(self, resid: Tensor) -> Tensor:
        """Final-normed states [..., d] of residual streams [..., d]; after the last block, what `forward` gives."""
        base = self.lm.base_model
        for name in ("norm", "ln_f"):
            if hasattr(base, name):
                return getattr(base, name)(resid)
        raise ModelError(f"{type(self.lm).__name__} keeps its final norm in an unknown place", expected="norm or ln_f")

    def forward(self, embeds: Tensor, positions: Tensor, mask: Tensor, cache: Any = None, prefix: Any = None) -> Tensor:
        """Run the layers; returns final-normed states [R, T, d].

        Args:
            embeds: [R, T, d].
            positions: 0-based positions [R, T].
            mask: Over the S columns of `cache` (of the tokens themselves without one): additive [R, 1, T, S], or
                ones where a column is no filler [R, S].
            cache: Where keys and values are kept; it is written to.
            prefix: A shared prefix that the rows also attend to.
        """
        extra: dict[str, Any] = {} if prefix is None else {"prefix": prefix}
        out = self.lm.base_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **extra,
        )
        return out.last_hidden_state

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        for name in ("layers", "h"):
            if hasattr(self.lm.base_model, name):
                return getattr(self.lm.base_model, name)
        raise ModelError(f"{type(self.lm).__name__} keeps its blocks in an unknown place", expected="layers or h")
