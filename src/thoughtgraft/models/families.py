"""The families of latent reasoners: how their checkpoints name things, and which family a list of keys belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePath

from thoughtgraft.errors import CheckpointError

SPECIAL_ROWS = 3
"""Embedding rows that every family adds to the base vocabulary: pad, BOT, EOT; or start, end, latent."""


@dataclass(frozen=True)
class Family:
    """How the official code of one family names and orders what it stores.

    Attributes:
        name: What records and cards call it.
        prefixes: What may stand before the language model's own parameter names.
        rows: What the three embedding rows after the base vocabulary V are, in order.
        bot: Which of these rows begins the thoughts.
        eot: Which of them ends the thoughts.
        pad: Which of them pads; None where the end of sequence does.
        in_tokenizer: Whether the official code adds these rows to the tokenizer, as tokens of these names.
        feeder: The key prefix of what makes the fed vectors: `prj`, a projection of hidden states; `pause`, learned
            vectors; None where hidden states are fed as they are, or nothing is fed.
        duplicate: A second name under which the embedding is stored; None if there is none.
        auxiliary: Parts that SIM-CoT trains beside the model and inference never runs.
        suffix: What stands between a question and begin-of-thought.
        why_suffix: Where that is from, where weights may have been trained with another; empty where they cannot.
        num_latents: How many thoughts the official recipe trains.
        why_latents: Where that is from; empty where the family leaves no choice.
    """

    name: str
    prefixes: tuple[str, ...]
    rows: tuple[str, str, str]
    bot: int
    eot: int
    pad: int | None
    in_tokenizer: bool
    feeder: str | None
    duplicate: str | None
    auxiliary: re.Pattern[str]
    suffix: str = ""
    why_suffix: str = ""
    num_latents: int = 0
    why_latents: str = ""


CODI = Family(
    name="codi",
    prefixes=("codi.", "coconut."),  # early CODI files name the same module `coconut`
    rows=("pad", "BOT", "EOT"),
    bot=1,
    eot=2,
    pad=0,
    in_tokenizer=False,
    feeder="prj",
    duplicate=None,
    auxiliary=re.compile(r"(decoder|pj_in|pj_out)\."),
    why_suffix="the published weights were trained so (remove_eos True), while the flag's own default puts the end of "
    "sequence there",
    num_latents=6,
    why_latents="the published CODI models were trained with 6",
)
COCONUT = Family(
    name="coconut",
    prefixes=("base_causallm.",),
    rows=("<|start-latent|>", "<|end-latent|>", "<|latent|>"),
    bot=0,
    eot=1,
    pad=None,
    in_tokenizer=True,
    feeder=None,
    duplicate="embedding.weight",
    auxiliary=re.compile(r"(expainable_llm)\."),  # spelt so in the published file
    suffix="\n",
    why_suffix="Coconut's official code asks so",
    num_latents=6,
    why_latents="Coconut's official recipe for GSM8K has three stages of two",
)
# The controls that this project trains: a language model like CODI's, without its recurrence.
_CONTROL = replace(CODI, why_suffix="", num_latents=0, why_latents="")
PAUSE = replace(_CONTROL, name="pause", prefixes=("pause_lm.",), feeder="pause")
DIRECT = replace(_CONTROL, name="direct", prefixes=("direct_lm.",), feeder=None)
COT = replace(_CONTROL, name="cot", prefixes=("cot_lm.",), feeder=None)
FAMILIES = {family.name: family for family in (CODI, COCONUT, PAUSE, DIRECT, COT)}
_PUBLISHED = (CODI, COCONUT)


_SIMCOT_NAME = re.compile(r"sim[-_ ]?cot", re.IGNORECASE)


def is_named_simcot(name: str) -> bool:
    """Whether a path or hub id says that SIM-CoT made it; its decoder may have been stripped from the weights."""
    parts = PurePath(name).parts
    # A name says it in its last part, before an epoch's own name, or where the hub's cache keeps the repository.
    own = [*(part for part in parts if part.startswith("models--")), *parts[-1:]]
    own += parts[-2:-1] if re.match("checkpoint[-_]", own[-1] if own else "") else []
    return any(_SIMCOT_NAME.search(part) for part in own)


def find_family(names: Iterable[str], origin: str) -> Family:
    """The family of a checkpoint, from its keys alone; shapes and completeness are judged later.

    Args:
        names: The keys of the state dict.
        origin: The checkpoint as the user named it, for the error.

    Raises:
        CheckpointError: No family stores its language model under any of these keys.
    """
    listed = list(names)
    for family in FAMILIES.values():
        if any(name.startswith(family.prefixes) for name in listed):
            return family
    raise CheckpointError(
        f"{origin} is neither a CODI nor a Coconut checkpoint",
        got=f"keys such as {', '.join(listed[:3]) or '(none)'}",
        expected="; or ".join(
            f"{family.name}: {' or '.join(f'{prefix}*' for prefix in family.prefixes)}"
            + (f" and {family.feeder}.*" if family.feeder else f" and {family.duplicate}")
            for family in _PUBLISHED
        ),
        fix="pass the official raw state dict of a CODI, Coconut or SIM-CoT model, or a folder written by thoughtgraft",
    )
