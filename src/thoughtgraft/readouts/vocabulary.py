"""Which words of a question a model's tokenizer cannot represent."""

from __future__ import annotations

import re

from thoughtgraft.models.reasoner import LatentReasoner


def unseen_words(model: LatentReasoner, question: str) -> list[str]:
    """Words and numbers that become the unknown token, in order, each once; empty for subword tokenizers."""
    unknown = model.tokenizer.unk_token_id
    if unknown is None:
        return []
    words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", question))
    return [w for w in words if unknown in model.tokenizer(w, add_special_tokens=False)["input_ids"]]
