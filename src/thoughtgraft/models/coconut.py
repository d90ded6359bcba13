"""Coconut: `fed[k] = hidden[k]`, with no projection, between two tokens that the tokenizer knows.

Source: Hao et al. 2024 (arXiv 2412.06769), `coconut.py` and `dataset.py`. Prompt: the question, a newline,
`<|start-latent|>`. The answer, `### 42`, is read greedily after `<|end-latent|>`; every row may be written.
One difference: an answer whose first token is already the end of sequence is empty here, while the official
loop looks for the end only from the second token on.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from thoughtgraft.errors import CheckpointError, ModelError
from thoughtgraft.models.checkpoint.format import COCONUT
from thoughtgraft.models.checkpoint.read import Checkpoint
from thoughtgraft.models.checkpointed import CheckpointReasoner


def prompt_text(question: str) -> str:
    """What of a question is tokenized: the question as it is, and a newline."""
    return f"{question}{COCONUT.suffix}"


class CoconutReasoner(CheckpointReasoner):
    """A Coconut model made from a strictly read checkpoint.

    The official GSM8K recipe has three stages of two thoughts each, hence K = 6, and writes at most 64 tokens.
    """

    family = "coconut"

    longest_answer = 64

    def __init__(self, checkpoint: Checkpoint, **options: Any) -> None:
        tokenizer = _with_markers(checkpoint.tokenizer, checkpoint.base_vocab)
        super().__init__(replace(checkpoint, tokenizer=tokenizer), **options)

    def refuse_foreign_protocol(self) -> None:
        """Coconut knows `official` alone."""
        super().refuse_foreign_protocol()
        if self.protocol.name != "official":
            raise ModelError(
                f"Coconut has no protocol {self.protocol.name!r}",
                got="a protocol of CODI's code",
                expected="official: the official evaluation of Coconut runs one problem at a time, without padding",
                fix="--protocol official",
            )

    def question_ids(self, question: str) -> list[int]:
        """The ids of the question as it is and the prompt's ending, a newline by default, and begin-of-thought."""
        return [*self.tokenizer(question + self.prompt_suffix)["input_ids"], self.checkpoint.bot_id]

    def explicit_ids(self, question: str) -> list[int]:
        """The question and both markers with nothing between: the curriculum's first stage."""
        return [*self.question_ids(question), self.end_of_thought]

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        """`hidden` itself, final-normed as it comes."""
        return hidden

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """None: the official argmax is over all rows."""
        return ()


def _with_markers(tokenizer: PreTrainedTokenizerBase, base_vocab: int) -> PreTrainedTokenizerBase:
    """The tokenizer with Coconut's three tokens at V, V + 1 and V + 2; a copy where they must be added."""
    wanted = [base_vocab + i for i in range(len(COCONUT.rows))]
    known = tokenizer.get_vocab()
    if [known.get(token) for token in COCONUT.rows] == wanted:
        return tokenizer
    size = len(tokenizer)
    extended = copy.deepcopy(tokenizer)  # the caller may use his with the base model
    extended.add_tokens(list(COCONUT.rows))
    found = extended.convert_tokens_to_ids(list(COCONUT.rows))
    if found != wanted:
        raise CheckpointError(
            "Coconut's tokens do not land on the embedding's last three rows",
            got=f"ids {', '.join(map(str, found))} from a tokenizer of {size}",
            expected=f"ids {', '.join(map(str, wanted))}, after the base vocabulary of {base_vocab}",
            fix="pass --tokenizer with the tokenizer of the base model that the checkpoint was trained on",
        )
    return extended
