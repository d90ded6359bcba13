"""CODI: `fed[k] = prj(hidden[k])` between two special embedding rows.

Source: Shen et al. 2025 (arXiv 2502.21074). Prompt: the bare question, the tokenizer's own BOS if it
has one, then BOT. The answer is read greedily after EOT; EOT itself can never be written.
"""

from __future__ import annotations

import hashlib

from torch import Tensor

from thoughtgraft.models.checkpoints import Checkpoint
from thoughtgraft.models.reasoner import LatentReasoner


class CodiReasoner(LatentReasoner):
    """A CODI model made from a strictly read checkpoint."""

    family = "codi"

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        protocol: str = "official",
        num_latents: int | None = None,
        trained_latents: int = 6,
        max_new_tokens: int = 256,
    ) -> None:
        alpha = checkpoint.lora_alpha
        weights = checkpoint.weight_hash if alpha is None else f"{checkpoint.weight_hash}:lora_alpha={alpha:g}"
        super().__init__(
            checkpoint.lm,
            checkpoint.tokenizer,
            name=checkpoint.name,
            weight_hash=hashlib.sha256(weights.encode()).hexdigest()[:16],
            protocol=protocol,
            num_latents=trained_latents if num_latents is None else num_latents,
            trained_latents=trained_latents,
            max_new_tokens=max_new_tokens,
        )
        self.checkpoint = checkpoint

    def question_ids(self, question: str) -> list[int]:
        """The question's ids and BOT; runs of two spaces become one, as in the official evaluation."""
        text = question.strip().replace("  ", " ")
        return [*self.tokenizer(text)["input_ids"], self.checkpoint.bot_id]

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        """`prj(hidden)`; hidden states come final-normed and are not normed again."""
        return self.checkpoint.feeder(hidden)

    @property
    def pad_id(self) -> int:
        """The embedding row of padding."""
        return self.checkpoint.pad_id

    @property
    def end_of_thought(self) -> int:
        """EOT."""
        return self.checkpoint.eot_id

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """EOT: the official argmax leaves out the last row."""
        return (self.checkpoint.eot_id,)
