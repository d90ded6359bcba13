"""The contract of every model that thinks in continuous thoughts, and the rules of inference by name."""

from __future__ import annotations

import hashlib
import json
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from thoughtgraft.arguments import need
from thoughtgraft.errors import ModelError
from thoughtgraft.models.checkpoint.assumed import Assumption
from thoughtgraft.models.checkpoint.bases import refuse_sliding_window
from thoughtgraft.models.identity import LiveEdit, Made
from thoughtgraft.models.loop import ONE_BY_ONE, Loop
from thoughtgraft.models.precision import PRODUCTS
from thoughtgraft.models.protocols import Protocol, find_protocol
from thoughtgraft.models.thinker import Decoding, Thinker

_LEAST_TOKENS = 4
"""Of any run, beside the thoughts: a word, begin- and end-of-thought, and one token of an answer."""


@dataclass(frozen=True)
class Audit:
    """A model against its files.

    Attributes:
        parameters: How many parameters the model has.
        wrong: Names of those that are not what the files say.
        same_hash: Whether the files' hash is still the one taken while loading.
        projects: Whether the adapter makes a thought as the files' `prj` or pause vectors do, and by nothing else.
    """

    parameters: int
    wrong: tuple[str, ...]
    same_hash: bool
    projects: bool


@dataclass(frozen=True)
class Prompt:
    """What is shown before the latent loop.

    Attributes:
        ids: Token ids before the loop's first step: begin-of-thought is the last, unless the loop feeds it.
        pad: The first so many of them are visible padding.
    """

    ids: tuple[int, ...]
    pad: int = 0

    def __len__(self) -> int:
        return len(self.ids)


_PROBE = "How many are  7 and 5, then?"
"""A question whose ids stand in a model's identity for its prompt rule; with the two spaces that CODI makes one."""


class _RememberedWhenMade(ABCMeta):
    """Lets a model remember what it is once the whole of its `__init__` has run: what differs later is an edit."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        model = super().__call__(*args, **options)
        model.remember()
        return model


class LatentReasoner(Thinker, metaclass=_RememberedWhenMade):
    """A causal LM that feeds `num_latents` vectors back to itself between a question and its answer.

    Adapters give primitives (prompt, project, the ids around the latents); they hold no loop. Ids and
    slots are 0-based. Shapes: R rows, T tokens, d = d_model, V = embedding rows.

    Args:
        lm: A plain Hugging Face causal LM in eval mode.
        tokenizer: Its tokenizer.
        name: What the user called it.
        weight_hash: Hash of everything that defines its weights.
        protocol: The name of the rule of inference.
        num_latents: Thoughts that are fed, K >= 0.
        trained_latents: The K that it was trained with.
        max_new_tokens: The longest answer.
    """

    family: str = "latent"
    without_thoughts: str = "it was loaded with num_latents=0"
    """Why a model has no thoughts, where it has none."""

    prompt_suffix: str = ""
    """The text between a question and begin-of-thought."""

    assumptions: tuple[Assumption, ...] = ()
    """What changes answers and was taken for granted, since neither the user nor the model's files say it."""

    read: tuple[str, ...] = ()
    """What was read and what was passed over, in words."""
    lora_alpha: str | None = None
    """The alpha that LoRA was merged with, and what else scales its pairs, in words; None for a model without LoRA."""

    made: Made
    """What the model was when it was made."""

    edit: LiveEdit | None = None
    """What the user called hooks and edits that the loaded model carries; see `live.admitted`."""

    recipe: Callable[..., LatentReasoner] | None = None
    """Makes the same model again, in any process that sees its files, on `device=`; None for one made by hand."""

    def __init__(
        self,
        lm: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        weight_hash: str,
        protocol: str = "official",
        num_latents: int = 6,
        trained_latents: int = 6,
        max_new_tokens: int = 256,
    ) -> None:
        if num_latents < 0:
            raise ModelError("num_latents must not be negative", got=num_latents, expected="0 or more")
        refuse_sliding_window(lm.config, name)
        self.lm, self.tokenizer, self.name, self.weight_hash = lm, tokenizer, name, weight_hash
        self.protocol: Protocol = find_protocol(protocol)
        self.refuse_foreign_protocol()
        self.num_latents, self.trained_latents = num_latents, trained_latents
        self.max_new_tokens = max_new_tokens
        if self.max_positions is not None and num_latents + _LEAST_TOKENS > self.max_positions:
            raise ModelError(
                f"num_latents={num_latents} leaves no room for a question in the context of {name}",
                got=f"{num_latents} thoughts and at least {_LEAST_TOKENS} tokens",
                expected=f"at most {self.max_positions} in all",
                fix=f"fewer thoughts; it was trained with {trained_latents} (--num-latents)",
            )

    # What an adapter supplies.

    @abstractmethod
    def question_ids(self, question: str) -> list[int]:
        """The prompt's token ids, begin-of-thought included, padding excluded."""

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """The id of a visible pad."""

    @property
    @abstractmethod
    def forbidden_ids(self) -> tuple[int, ...]:
        """Ids that greedy decoding never writes."""

    # What it may supply.

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Every module that holds weights."""
        return (self.lm,)

    def audit(self) -> Audit | None:
        """The loaded weights against the files that they came from; None if the adapter cannot tell."""
        return None

    own_loop: Loop = ONE_BY_ONE
    """How thoughts are made where the protocol names no other loop."""

    # What every model then has.

    @property
    def loop(self) -> Loop:
        """How thoughts are made."""
        return self.protocol.loop or self.own_loop

    def explicit_ids(self, question: str) -> list[int]:
        """The prompt's token ids after which the model writes its reasoning out: the question alone."""
        return self.question_ids(question)[:-1]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.lm.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are computed in."""
        return self.lm.dtype

    @property
    def dtype_name(self) -> str:
        """`float32`, `bfloat16`, ..."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def decoding(self) -> Decoding:
        """How answers are written."""
        return Decoding(self.max_new_tokens, (int(self.tokenizer.eos_token_id),), self.forbidden_ids)

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the model can hold; None if unbounded."""
        limit = getattr(self.lm.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything of the model that can change a number, part by part, as JSON has it.

        The parts are the weights and LoRA's alpha, the config that the forward pass reads, the tokenizer's content, the
        loop (family, K, protocol, special ids), the dtype, and how products are computed. The prompt rule stands there
        by the ids that it makes of one question. A model that the user edited has the edit's name as well.

        Two processes that load the same files have the same identity. Versions of packages are no part of it.
        """
        parts: dict[str, Any] = {
            "weights": self.weight_hash,
            "lora_alpha": self.lora_alpha,
            "config": dict(self.made.config),
            "tokenizer": dict(self.made.tokenizer),
            "family": self.family,
            "protocol": self.protocol.name,
            "num_latents": self.num_latents,
            "prompt": {
                "suffix": self.prompt_suffix,
                "thinking": list(self.question_ids(_PROBE)),
                "explicit": list(self.explicit_ids(_PROBE)),
            },
            "ids": {
                "pad": self.pad_id,
                "end_of_thought": self.end_of_thought,
                "end": list(self.decoding.ends),
                "forbidden": list(self.decoding.forbidden),
            },
            "dtype": self.dtype_name,
            "products": PRODUCTS,
        }
        if self.edit is not None:
            parts["edit"] = {"name": self.edit.name, "checksum": self.edit.checksum}
        return parts

    @property
    def origin(self) -> dict[str, Any]:
        """What a run's provenance keeps of how the model was loaded."""
        return {"assumed": [asdict(found) for found in self.assumptions], "read": list(self.read)}

    @property
    def model_hash(self) -> str:
        """One hash over the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        """`tiny-codi (codi): 4 layers, width 128, K = 6, protocol official, float32 on cpu`."""
        shape = f"{len(self.layers)} layers, width {self.d_model}, K = {self.num_latents}"
        return (
            f"{self.full_name} ({self.family}): {shape}, protocol {self.protocol.name}, "
            f"{self.dtype_name} on {self.device}"
        )

    @property
    def full_name(self) -> str:
        """What pages call it: its name, and what edits of the loaded model are called."""
        return self.name if self.edit is None else f"{self.name}, edited: {self.edit.name}"

    def remember(self) -> None:
        """Take what the model is now for what it was made as; called once by itself, and by who makes parts anew."""
        self.made = Made.of(self.parts, self.lm.config, self.tokenizer)

    def prompt(self, question: str, pad: int = 0) -> Prompt:
        """The encoded prompt, with `pad` visible pads on its left."""
        return self.as_prompt(self.question_ids(question), pad)

    def as_prompt(self, ids: Sequence[int], pad: int = 0) -> Prompt:
        """The encoded prompt of a question's ids."""
        return Prompt((self.pad_id,) * pad + self.loop.shown(ids), pad)

    def under(self, protocol: str) -> Self:
        """The same model, sharing its weights, under another protocol.

        Raises:
            ModelError: There is no such protocol, or not for this family.
        """
        other = copy(self)
        other.protocol = find_protocol(protocol)
        other.refuse_foreign_protocol()
        if self.recipe is not None:
            other.recipe = partial(self.recipe, protocol=protocol)
        return other

    def refuse_foreign_protocol(self) -> None:
        """Raise a ModelError if the protocol is not defined for this model."""
        families = self.protocol.families
        if families and self.family not in families:
            raise ModelError(
                f"protocol {self.protocol.name} is not defined for {self.name}",
                got=f"a model of the family {self.family}",
                expected=" or ".join(families),
                fix="use --protocol official",
            )

    def decode(self, ids: Sequence[int]) -> str:
        """Decoded ids without special tokens, spaces kept; rows outside the tokenizer are left out."""
        known = [i for i in ids if i < len(self.tokenizer)]
        return str(self.tokenizer.decode(known, skip_special_tokens=True))

    def text(self, ids: Sequence[int]) -> str:
        """An answer as people read it: decoded, without spaces around it."""
        return self.decode(ids).strip()


def as_model(given: Any) -> LatentReasoner:
    """The model itself; its name, or another library's model, is refused.

    Raises:
        ModelError: It is no model of this project.
    """
    call = f"load_model({given!r}) gives it" if isinstance(given, str) else "load_model(NAME) gives one"
    expected = "a model that load_model gave"
    return need(given, LatentReasoner, "the model", ModelError, expected=expected, fix=call)  # type: ignore[type-abstract]


def require_thoughts(model: LatentReasoner) -> None:
    """Refuse a model that is fed no thought.

    Raises:
        ModelError: It is fed none.
    """
    if model.num_latents == 0:
        raise ModelError(
            f"{model.name} has no thoughts to edit or to read",
            got=f"0 thoughts, since {model.without_thoughts}",
            expected="a model that is fed at least one",
            fix="take a model that thinks, such as tiny-codi",
        )


def require_positions(model: LatentReasoner) -> None:
    """Refuse a loop under which position k + 1 is not slot k's, so that states by position have no names.

    Raises:
        ModelError: Its positions are not those of slots.
    """
    if not model.loop.aligned:
        raise ModelError(
            f"under the protocol {model.protocol.name} positions are not those of slots",
            expected="a protocol that feeds thought k at position k + 1",
            fix="use the protocol official",
        )


def check_lengths(model: LatentReasoner, prompts: Sequence[Prompt]) -> None:
    """Raise a ModelError for the first prompt that leaves no room for thoughts and an answer."""
    for index, prompt in enumerate(prompts):
        if not fits(model, prompt):
            raise too_long(model, prompt, f"problem {index} of the batch is")


def fits(model: LatentReasoner, prompt: Prompt) -> bool:
    """Whether the model's context holds a prompt, the thoughts, end-of-thought and one answer token."""
    return model.max_positions is None or _needed(model, prompt) <= model.max_positions


def too_long(model: LatentReasoner, prompt: Prompt, who: str) -> ModelError:
    """The error for a prompt that does not fit; `who` names it, with its verb."""
    trained, feeds_more = model.trained_latents, model.num_latents > model.trained_latents
    return ModelError(
        f"{who} too long for {model.name}",
        got=f"{len(prompt)} prompt tokens, {_needed(model, prompt)} with thoughts and one answer token",
        expected=f"at most {model.max_positions}",
        fix="shorten or drop that question"
        + (f", or feed fewer thoughts (--num-latents; it was trained with {trained})" if feeds_more else ""),
    )


def _needed(model: LatentReasoner, prompt: Prompt) -> int:
    return len(prompt) + model.num_latents + 2


@contextmanager
def attention_implementation(lm: PreTrainedModel, name: str) -> Iterator[None]:
    """Switch a model's attention for a while."""
    before = lm.config._attn_implementation
    lm.set_attn_implementation(name)
    try:
        yield
    finally:
        lm.set_attn_implementation(before)
