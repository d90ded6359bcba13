"""What an answer is expected to say: the clean answer as a draft, and other numbers put in its number's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.problems import number_start


@dataclass(frozen=True)
class Draft:
    """The clean answer of one problem, to be verified and scored against.

    Attributes:
        ids: Its token ids, end of sequence included if it was written.
        number_at: 0-based index in `ids` of the token its last number begins in; None without a number.
        gold: The gold number's tokens and the end of sequence, as they would stand from `number_at` on;
            empty where there is nothing to score.
    """

    ids: tuple[int, ...]
    number_at: int | None = None
    gold: tuple[int, ...] = ()


def make_draft(model: LatentReasoner, answer: Sequence[int], stopped: bool, gold: str | None) -> Draft:
    """The draft of a clean answer.

    Args:
        model: Whose tokenizer wrote it.
        answer: The clean answer's ids, without the end of sequence.
        stopped: Whether it ended by itself.
        gold: The gold number as text.
    """
    ids = (*answer, model.eos_ids[0]) if stopped else tuple(answer)
    at = number_token(model, answer)
    return Draft(ids, at, () if at is None or gold is None else number_tail(model, answer, at, gold))


def number_token(model: LatentReasoner, answer: Sequence[int]) -> int | None:
    """The 0-based index of the token in which the last number of an answer begins; None without a number."""
    start = number_start(model.decode(answer))
    if start is None:
        return None
    return next(i for i in range(len(answer)) if len(model.decode(answer[: i + 1])) > start)


def number_tail(model: LatentReasoner, answer: Sequence[int], at: int, number: str) -> tuple[int, ...]:
    """`number` and the end of sequence, tokenized as a continuation of `answer[:at]`.

    Text and tokens need not be cut at the same places, so the whole text is tokenized and the known
    prefix taken off; where that changes the prefix, the number is tokenized by itself.
    """
    text, words = model.decode(answer), model.decode(answer[:at])
    start = number_start(text)
    assert start is not None, "an answer with a number token has a number"
    glue = text[len(words) : start]
    whole = model.tokenizer(words + glue + number, add_special_tokens=False)["input_ids"]
    prefix = list(answer[:at])
    tail = whole[at:] if whole[:at] == prefix else model.tokenizer(glue + number, add_special_tokens=False)["input_ids"]
    return (*tail, model.eos_ids[0])
