"""Reads a state dict's keys: which tensors make which parameter, what is ignored, what is not understood."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.format import WRAPPERS, Family, bare_name, find_family
from thoughtgraft.models.checkpoint.tensors import StoredTensor

_PEFT_PREFIX = "base_model.model."
# Older transformers saved buffers that today's code derives from the config.
_DERIVED_BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias$|rotary_emb\.inv_freq$")
_ADAPTER = re.compile(r"(?<=\.lora_[AB]\.)(?P<adapter>(?!weight$)[^.]+)(?=\.weight$)")
_BARE_LORA = re.compile(r"(?<=\.lora_[AB])(?=\.weight$)")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.default\.weight")
_WRAPPED = re.compile(r"(?P<module>.+)\.(base_layer|modules_to_save\.default)\.(?P<parameter>\w+)")
_REPLACED = re.compile(r".+\.original_module\.\w+")
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(embed_tokens|wte|embed_in|word_embeddings)\.weight$")
_HEAD = re.compile(r"(lm_head|embed_out)\.weight$")


@dataclass
class Parts:
    """What makes one parameter of the language model: a stored weight and, where it was trained, its LoRA pair."""

    weight: StoredTensor | None = None
    lora_a: StoredTensor | None = None
    lora_b: StoredTensor | None = None

    @property
    def has_lora(self) -> bool:
        """Whether any LoRA weight belongs to it."""
        return self.lora_a is not None or self.lora_b is not None


@dataclass
class StateKeys:
    """A state dict, sorted out.

    Attributes:
        family: The family whose layout it has.
        lm: Hugging Face parameter name -> its parts.
        feeder: Key inside what makes the fed vectors (`prj`, `pause`) -> tensor.
        duplicate: The embedding under its second name, where the family stores one.
        prefix: What stands before a Hugging Face name in the file.
        unexpected: Keys that nothing explains.
        notes: What was ignored on purpose, in words.
        simcot: Whether SIM-CoT's auxiliary decoder lies beside the model.
    """

    family: Family
    prefix: str
    lm: dict[str, Parts] = field(default_factory=dict)
    feeder: dict[str, StoredTensor] = field(default_factory=dict)
    duplicate: StoredTensor | None = None
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    simcot: bool = False

    @property
    def embedding(self) -> StoredTensor:
        """The token embedding, [rows, d_model]; where writers kept one name of tied tensors, the one that they kept."""
        for pattern in (_EMBEDDING, _HEAD):
            for name, parts in self.lm.items():
                if parts.weight is not None and pattern.search(name):
                    return parts.weight
            if self.duplicate is not None:
                return self.duplicate
        raise CheckpointError(
            "the checkpoint holds no token embedding",
            got=", ".join(list(self.lm)[:4]),
            expected=f"{self.prefix}...embed_tokens.weight or ...wte.weight",
            fix="pass the full checkpoint, with the base weights, not only the adapters",
        )

    @property
    def ranks(self) -> frozenset[int]:
        """The ranks of the LoRA pairs."""
        pairs = (parts.lora_a for parts in self.lm.values())
        return frozenset(low.shape[0] for low in pairs if low is not None and low.shape)

    @property
    def num_layers(self) -> int:
        """The number of transformer blocks: the highest block index plus one."""
        found = [int(match.group(1)) for name in self.lm if (match := _LAYER.search(f".{name}"))]
        return max(found, default=-1) + 1


def canonical(
    stored: Mapping[str, StoredTensor], origin: str
) -> tuple[Family, dict[str, StoredTensor], tuple[str, ...]]:
    """A state dict under the names of its family's official code, whatever wrapped the model that was saved.

    The tensors carry these names too, so that a model's hash does not hang on a wrapper.

    Args:
        stored: The file's tensors by name.
        origin: The checkpoint as the user named it, for errors.

    Returns:
        The family, its tensors, and what was taken off the names, in words.

    Raises:
        CheckpointError: It belongs to no known family, or two names become one.
    """
    bare = {name: bare_name(name) for name in stored}
    family, outer = find_family(bare.values(), origin)
    adapters = sorted({match["adapter"] for name in stored if (match := _ADAPTER.search(name))})
    if len(adapters) > 1:
        raise CheckpointError(
            f"{origin} holds {len(adapters)} LoRA adapters",
            got=", ".join(adapters[:4]),
            expected="one",
            fix="delete the others (peft: model.delete_adapter(...)) and save again",
        )
    found: dict[str, StoredTensor] = {}
    for name, short in bare.items():
        own = short.removeprefix(outer)
        own = _BARE_LORA.sub(".default", _ADAPTER.sub("default", own))
        if own in found:
            raise CheckpointError(
                f"{origin} holds {own} twice, under the names of two wrappers",
                got=f"{found[own].name} and {name}",
                fix="save model.state_dict() once, of the innermost model",
            )
        found[own] = replace(stored[name], name=own)
    wrapped = [outer] if outer else []
    wrapped += [wrapper for wrapper in WRAPPERS if any(f".{wrapper}" in f".{name}" for name in stored)]
    notes = [f"taken off the tensors' names: {', '.join(wrapped)}"] if wrapped else []
    return family, found, tuple(notes)


def sort_keys(stored: Mapping[str, StoredTensor], origin: str) -> StateKeys:
    """Finds a state dict's family and sorts it into language model, projection, ignored and unexpected.

    Args:
        stored: The file's tensors by name.
        origin: The checkpoint as the user named it, for errors.

    Raises:
        CheckpointError: It belongs to no known family.
    """
    family, stored, notes = canonical(stored, origin)
    first = next(name for name in stored if name.startswith(family.prefixes))
    head = next(prefix for prefix in family.prefixes if first.startswith(prefix))
    keys = StateKeys(family, prefix=head + (_PEFT_PREFIX if first.startswith(head + _PEFT_PREFIX) else ""))
    ignored: Counter[str] = Counter()
    for name, tensor in stored.items():
        if family.feeder and name.startswith(f"{family.feeder}."):
            keys.feeder[name.removeprefix(f"{family.feeder}.")] = tensor
        elif name == family.duplicate:
            keys.duplicate = tensor
        elif match := family.auxiliary.match(name):
            ignored[f"{match.group(1)}.* (SIM-CoT's auxiliary decoder)"] += 1
            keys.simcot = True
        elif not name.startswith(keys.prefix):
            keys.unexpected.append(name)
        elif _DERIVED_BUFFER.search(name):
            ignored["attn.bias, inv_freq (buffers that the config determines)"] += 1
        elif _REPLACED.fullmatch(name):
            ignored["*.original_module.* (replaced by modules_to_save)"] += 1
        elif not _sort_lm_key(keys, name.removeprefix(keys.prefix), tensor):
            keys.unexpected.append(name)
    keys.notes += notes
    keys.notes += [f"ignored {count} tensors: {what}" for what, count in ignored.items()]
    return keys


def _sort_lm_key(keys: StateKeys, name: str, tensor: StoredTensor) -> bool:
    if match := _LORA.fullmatch(name):
        parts = keys.lm.setdefault(f"{match['module']}.weight", Parts())
        if match["side"] == "A":
            parts.lora_a = tensor
        else:
            parts.lora_b = tensor
        return True
    if match := _WRAPPED.fullmatch(name):
        name = f"{match['module']}.{match['parameter']}"
    parts = keys.lm.setdefault(name, Parts())
    if parts.weight is not None:  # both wrapped and plain: which one counts is not ours to guess
        return False
    parts.weight = tensor
    return True
