"""Which words a model's tokenizer knows, and which numbers it can write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.tasks.problem import ProblemSet

_QUESTIONS, _MANY, _SHOWN = 100, 0.05, 4


def unseen_words(model: LatentReasoner, question: str) -> list[str]:
    """Words and numbers that become the unknown token, in order, each once; empty for subword tokenizers."""
    unknown = model.tokenizer.unk_token_id
    if unknown is None:
        return []
    words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", question))
    return [w for w in words if unknown in model.tokenizer(w, add_special_tokens=False)["input_ids"]]


def warn_of_unseen(model: LatentReasoner, problems: ProblemSet) -> str | None:
    """A warning where a model has never seen many of a problem set's words; None where it has.

    More than 5% of the different words of the first questions; never with a subword tokenizer.
    """
    words = {w for problem in problems[:_QUESTIONS] for w in re.findall(r"\w+|[^\w\s]", problem.question)}
    unseen = unseen_words(model, " ".join(sorted(words)))
    if not words or len(unseen) <= _MANY * len(words):
        return None
    return (
        f"{model.name} has never seen {len(unseen)} of the {len(words)} words in {problems.name} "
        f"({', '.join(map(repr, unseen[:_SHOWN]))}, ...), so its answers mean little"
    )


def largest_number(model: LatentReasoner, limit: int = 1_000_000) -> int | None:
    """The largest n such that the tokenizer can write 0..n; None if it writes numbers up to `limit` and beyond."""
    if not unseen_words(model, str(limit)):
        return None
    return next((n for n in range(limit) if unseen_words(model, str(n + 1))), None)
