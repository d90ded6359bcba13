"""CODI: `fed[k] = prj(hidden[k])` between two special embedding rows.

Source: Shen et al. 2025 (arXiv 2502.21074). Prompt: the bare question, the tokenizer's own BOS if it
has one, then BOT. The answer is read greedily after EOT; EOT itself can never be written.
"""

from __future__ import annotations

from torch import Tensor

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
