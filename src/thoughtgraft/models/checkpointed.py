"""What all adapters of checkpoints share: weights, special rows and identity come from the files that were read."""

from __future__ import annotations

import hashlib

from torch import nn

from thoughtgraft.models.checkpoint.audit import audit
from thoughtgraft.models.checkpoint.read import Checkpoint
from thoughtgraft.models.reasoner import Audit, LatentReasoner


class CheckpointReasoner(LatentReasoner):
    """A model made from a strictly read checkpoint.

    Args:
        checkpoint: What was read.
        protocol: The name of the rule of inference.
        num_latents: Thoughts that are fed; None takes as many as the model was trained with.
        max_new_tokens: The longest answer; None takes the official code's.
    """

    longest_answer: int = 256

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        protocol: str = "official",
        num_latents: int | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        lora, trained = checkpoint.lora, self.latents_of(checkpoint)
        weights = checkpoint.weight_hash if lora is None else f"{checkpoint.weight_hash}:lora_alpha={lora}"
        super().__init__(
            checkpoint.lm,
            checkpoint.tokenizer,
            name=checkpoint.name,
            weight_hash=hashlib.sha256(weights.encode()).hexdigest()[:16],
            protocol=protocol,
            num_latents=trained if num_latents is None else num_latents,
            trained_latents=trained,
            max_new_tokens=self.longest_answer if max_new_tokens is None else max_new_tokens,
        )
        self.checkpoint, self.lora_alpha = checkpoint, None if lora is None else str(lora)
        self.prompt_suffix = checkpoint.prompt_suffix
        self.read = (f"weights: {', '.join(path.name for path in checkpoint.files)}", *checkpoint.notes)
        given = {"--num-latents"} if num_latents is not None else set()
        self.assumptions = tuple(found for found in checkpoint.assumptions if found.option not in given)

    @staticmethod
    def latents_of(checkpoint: Checkpoint) -> int:
        """How many thoughts the model was trained with: what its files say, else the official recipe's number."""
        return checkpoint.num_latents

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """The language model and what makes the fed vectors."""
        return self.lm, self.checkpoint.feeder

    def audit(self) -> Audit:
        """The loaded weights against the checkpoint's files, which are read again."""
        return audit(self.checkpoint, self.project)

    @property
    def pad_id(self) -> int:
        """The id of padding."""
        return self.checkpoint.pad_id

    @property
    def begin_of_thought(self) -> int:
        """The id that ends every prompt."""
        return self.checkpoint.bot_id

    @property
    def end_of_thought(self) -> int:
        """The id fed after the last thought."""
        return self.checkpoint.eot_id
