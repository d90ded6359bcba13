"""What names and shapes alone say about a checkpoint: family, size, rows, projection, LoRA, extras."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from thoughtgraft.models.families import COCONUT, CODI, FAMILIES, Family, is_named_simcot
from thoughtgraft.models.tensors import StoredTensor

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json")
_EXTRA = re.compile(f"{CODI.auxiliary.pattern}|{COCONUT.auxiliary.pattern}")
_SHOWN = {"codi": "CODI", "coconut": "Coconut"}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings)(?:\.base_layer)?\.weight$")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<side>[AB])(?:\.[^.]+)?(?:\.weight)?$")
_PLAIN = re.compile(r"(?:model\.|transformer\.)?(?:(?:layers|h)\.\d+\.|embed_tokens\.|wte\.)")


@dataclass(frozen=True)
class Facts:
    """What the names and shapes of a checkpoint say.

    Attributes:
        family: CODI, SIM-CoT CODI, Coconut, SIM-CoT Coconut, a control's name, plain base model, PEFT adapter only, or
            unknown.
        layout: The family whose names it has; None where it has no latent reasoner's.
        layers: Transformer blocks of the language model that thinks.
        rows: Rows of its embedding; None where none is stored.
        width: Its width; None where no embedding is stored.
        llama: Whether its names are Llama's; False for GPT-2's and others.
        projection: Keys inside `prj` -> shape.
        ranks: LoRA ranks -> modules that have them.
        halves: LoRA modules of which only one side is stored.
        extras: SIM-CoT's training-only parts -> number of tensors.
        extra_bytes: Bytes that these parts take.
        dtypes: Dtype -> number of tensors.
        parameters: Numbers stored, extras left out.
        tensors: Tensors stored.
    """

    family: str
    layout: Family | None = None
    layers: int = 0
    rows: int | None = None
    width: int | None = None
    llama: bool = False
    projection: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranks: Mapping[int, int] = field(default_factory=dict)
    halves: tuple[str, ...] = ()
    extras: Mapping[str, int] = field(default_factory=dict)
    extra_bytes: int = 0
    dtypes: Mapping[str, int] = field(default_factory=dict)
    parameters: int = 0
    tensors: int = 0

    @property
    def sizes(self) -> tuple[int, int]:
        """Width and layers; a width of 0 where no embedding is stored."""
        return self.width or 0, self.layers


def read_facts(stored: Mapping[str, StoredTensor], name: str) -> Facts:
    """Reads what can be known from names and shapes; nothing here fails.

    Args:
        stored: The file's tensors by name.
        name: The checkpoint as the user named it: SIM-CoT's published ids say so even where the decoder is stripped.
    """
    own = {key: tensor for key, tensor in stored.items() if not _EXTRA.match(key)}
    extra = [tensor for key, tensor in stored.items() if key not in own]
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in own.items():
        if match := _LORA.fullmatch(key):
            pairs.setdefault(match["module"], {})[match["side"]] = tensor
    embedding = next((t for key, t in own.items() if _EMBEDDING.search(key) and len(t.shape) == 2), None)
    found = [int(match.group(1)) for key in own if (match := _LAYER.search(key))]
    layout = next((family for family in FAMILIES.values() if any(key.startswith(family.prefixes) for key in own)), None)
    return Facts(
        family=_kind(own, set(pairs)) if layout is None else _family(layout, bool(extra) or is_named_simcot(name)),
        layout=layout,
        layers=max(found, default=-1) + 1,
        rows=None if embedding is None else embedding.shape[0],
        width=None if embedding is None else embedding.shape[1],
        llama=any(".self_attn.q_proj." in key for key in own),
        projection={key.removeprefix("prj."): tensor.shape for key, tensor in own.items() if key.startswith("prj.")},
        ranks=Counter(pair["A"].shape[0] for pair in pairs.values() if "A" in pair and pair["A"].shape),
        halves=tuple(module for module, pair in pairs.items() if len(pair) == 1),
        extras=Counter(key.partition(".")[0] for key in stored if _EXTRA.match(key)),
        extra_bytes=sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in extra),
        dtypes=Counter(str(tensor.dtype).removeprefix("torch.") for tensor in stored.values()),
        parameters=sum(prod(tensor.shape) for tensor in own.values()),
        tensors=len(stored),
    )


def _family(layout: Family, simcot: bool) -> str:
    if layout.name not in _SHOWN:
        return f"control: {layout.name}"
    return f"SIM-CoT {_SHOWN[layout.name]}" if simcot else _SHOWN[layout.name]


def _kind(names: Iterable[str], lora: set[str]) -> str:
    """What a checkpoint of no family is."""
    listed = list(names)
    if lora and all("lora_" in name or "modules_to_save" in name for name in listed):
        return "PEFT adapter only"
    return "plain base model" if any(_PLAIN.match(name) for name in listed) else "unknown"
