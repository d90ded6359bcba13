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
BOCOT = ("<|bocot|>", "<|eocot|>")
"""What a dialect of CODI calls BOT and EOT in its tokenizer; its default puts the end of sequence before the first."""
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
_PLAIN = re.compile(
    r"(?:model\.|transformer\.|gpt_neox\.)?(?:(?:layers|h|blocks)\.\d+\.|embed_tokens\.|wte\.|embed_in\.)"
)


_SIMCOT_NAME = re.compile(r"sim[-_ ]?cot", re.IGNORECASE)


def is_named_simcot(name: str) -> bool:
    """Whether a path or hub id says that SIM-CoT made it; its decoder may have been stripped from the weights."""
    parts = PurePath(name).parts
    # A name says it in its last part, before an epoch's own name, or where the hub's cache keeps the repository.
    own = [*(part for part in parts if part.startswith("models--")), *parts[-1:]]
    own += parts[-2:-1] if re.match("checkpoint[-_]", own[-1] if own else "") else []
    return any(_SIMCOT_NAME.search(part) for part in own)


WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put anywhere inside a parameter's name."""
_WRAPPER = re.compile("|".join(rf"(?:^|(?<=\.)){re.escape(name)}" for name in WRAPPERS))


def bare_name(name: str) -> str:
    """A tensor's name without what wrappers put inside it."""
    return _WRAPPER.sub("", name)


def family_of(names: Iterable[str]) -> tuple[Family, str] | None:
    """The family whose names these are, and what a wrapper put before all of them; None if there is none.

    Lightning, DataParallel and the like put `model.`, `module.` or another attribute's name before every key.
    """
    listed = list(names)
    # Coconut's prefix is its own; CODI's early one, `coconut.`, may also be what somebody called a Coconut.
    for family in sorted(FAMILIES.values(), key=lambda family: family is not COCONUT):
        prefixes = "|".join(map(re.escape, family.prefixes))
        own = re.compile(rf"((?:\w+\.)*?)(?:{prefixes})")
        for name in listed:
            if match := own.match(name):
                return family, match[1]
    return None


def find_family(names: Iterable[str], origin: str) -> tuple[Family, str]:
    """The family of a checkpoint, from its keys alone; shapes and completeness are judged later.

    Args:
        names: The keys of the state dict.
        origin: The checkpoint as the user named it, for the error.

    Returns:
        The family, and what stands before all of its keys.

    Raises:
        CheckpointError: No family stores its language model under any of these keys.
    """
    listed = list(names)
    if found := family_of(listed):
        return found
    lora = [name for name in listed if ".lora_" in name]
    got = f"keys such as {', '.join(listed[:3]) or '(none)'}"
    if lora and all(".lora_" in name or "modules_to_save" in name for name in listed):
        raise CheckpointError(
            f"{origin} is a PEFT adapter by itself: neither the base weights nor prj nor the special tokens' rows are "
            "in it",
            got=f"{len(lora)} LoRA tensors and nothing else",
            expected="the full raw state dict that CODI's trainer writes",
            fix="save model.state_dict() of the whole CODI model, not model.codi.save_pretrained(...), or download the "
            "published checkpoint: hf download zen-E/CODI-llama3.2-1b-Instruct",
        )
    if any(_PLAIN.match(name) for name in listed):
        raise CheckpointError(
            f"{origin} is a language model without continuous thoughts",
            got=got,
            expected=_expected(),
            fix="pass a trained checkpoint, such as --model zen-E/CODI-gpt2; a base goes to --base, and the stage of "
            "Coconut's training that writes its reasoning out is such a base",
        )
    raise CheckpointError(
        f"{origin} is neither a CODI nor a Coconut checkpoint",
        got=got,
        expected=_expected(),
        fix="pass the official raw state dict of a CODI, Coconut or SIM-CoT model, or a folder written by thoughtgraft",
    )


def _expected() -> str:
    return "; or ".join(
        f"{family.name}: {' or '.join(f'{prefix}*' for prefix in family.prefixes)}"
        + (f" and {family.feeder}.*" if family.feeder else "")
        for family in _PUBLISHED
    )
