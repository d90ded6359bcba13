"""CODI, and the controls that do not think: pause vectors, direct answers, written reasoning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thoughtgraft.errors import ModelError
from thoughtgraft.models.checkpoint.read import Checkpoint
from thoughtgraft.models.checkpointed import CheckpointReasoner


def prompt_text(question: str) -> str:
    """What of a question is tokenized: runs of two spaces become one, as in the official evaluation."""
    return question.strip().replace("  ", " ")


class CodiReasoner(CheckpointReasoner):
    """A CODI model made from a strictly read checkpoint."""

    family = "codi"

    def question_ids(self, question: str) -> list[int]:
        """The ids of the question with the prompt's ending, and BOT."""
        return [*self.tokenizer(prompt_text(question) + self.prompt_suffix)["input_ids"], self.checkpoint.bot_id]

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        """`prj(hidden)`; hidden states come final-normed and are not normed again."""
        return self.checkpoint.feeder(hidden)

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """EOT: the official argmax leaves out the last row."""
        return (self.checkpoint.eot_id,)


class PauseReasoner(CodiReasoner):
    """K learned vectors in the place of thoughts (Goyal et al. 2024, arXiv 2310.02226)."""

    family = "pause"

    def __init__(self, checkpoint: Checkpoint, *, num_latents: int | None = None, **options: Any) -> None:
        trained = self.latents_of(checkpoint)
        if num_latents is not None and num_latents > trained:
            raise ModelError(
                f"{checkpoint.name} has learned too few pause vectors",
                got=f"num_latents={num_latents}",
                expected=f"at most {trained}",
            )
        super().__init__(checkpoint, num_latents=num_latents, **options)

    @staticmethod
    def latents_of(checkpoint: Checkpoint) -> int:
        """As many as the checkpoint holds vectors."""
        assert isinstance(checkpoint.feeder, torch.nn.Embedding), "a pause checkpoint holds an embedding"
        return checkpoint.feeder.num_embeddings

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        """The learned vector of the slot, whatever the problem."""
        return self.checkpoint.feeder(torch.tensor(slot, device=hidden.device)).expand(hidden.shape)


class DirectReasoner(CodiReasoner):
    """No thoughts: the answer follows the question at once."""

    family = "direct"
    without_thoughts = "it was trained to answer at once"

    def __init__(self, checkpoint: Checkpoint, *, num_latents: int | None = None, **options: Any) -> None:
        if num_latents:
            raise ModelError(
                f"{checkpoint.name} is fed no thoughts: {self.without_thoughts}",
                got=f"num_latents={num_latents}",
                expected="0",
                fix="leave --num-latents out, or take a model that thinks, such as tiny-codi",
            )
        super().__init__(checkpoint, **options)

    @staticmethod
    def latents_of(checkpoint: Checkpoint) -> int:
        """None."""
        return 0


class CotReasoner(DirectReasoner):
    """No thoughts: the reasoning is written out before the answer."""

    family = "cot"
    without_thoughts = "it was trained to write its reasoning out in words"

    def explicit_ids(self, question: str) -> list[int]:
        """The same prompt as always: this model does nothing else."""
        return [*self.question_ids(question), self.end_of_thought]
