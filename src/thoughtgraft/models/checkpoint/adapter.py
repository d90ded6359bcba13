"""Small checkpoints: what LoRA training learned, beside the name and the hash of the base that it belongs to.

An adapter's tensors carry the names of CODI's official raw state dict. Put together with the base's, they *are* that
state dict: both are loaded by the same strict path, and `write_official` stores the whole of it for other code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from thoughtgraft.errors import CheckpointError, first_line
from thoughtgraft.models.checkpoint.bases import Base
from thoughtgraft.models.checkpoint.files import read_object, write_folder
from thoughtgraft.models.checkpoint.tensors import StoredTensor, open_tensors
from thoughtgraft.models.lm import LanguageModel, load_language_model
from thoughtgraft.models.names import ADAPTER, check_adapter, check_new_folder
from thoughtgraft.tensorfile import save_tensors

WEIGHTS, DESCRIPTION = ADAPTER, "adapter.json"
PREFIX = "codi.base_model.model."
"""What the official files put before a parameter's own name."""
OFFICIAL_ALPHA = 32.0
ROWS = "embedding.rows"
"""The learned embedding rows [3, d] that follow the base vocabulary."""


class Description(BaseModel):
    """`adapter.json`: which base, and LoRA's alpha, which tensors do not tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    base_hash: str
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class Assembled:
    """A base and an adapter as one state dict in the official layout."""

    stored: Mapping[str, StoredTensor]
    model: LanguageModel
    description: Description

    @property
    def base(self) -> Base:
        """The base as any checkpoint's base is described."""
        return Base(self.model.name, self.model.config, notes=(f"adapter of {self.description.base}",))


def is_adapter(files: Iterable[Path]) -> bool:
    """Whether these weight files are an adapter of this project."""
    return [path.name for path in files] == [WEIGHTS]


def read_description(folder: Path) -> Description:
    """An adapter's `adapter.json`.

    Raises:
        CheckpointError: It is missing or says something else than it should.
    """
    path = folder / DESCRIPTION
    try:
        values = read_object(path)
        return Description.model_validate(values)
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            f"{path} does not describe an adapter",
            got=first_line(error),
            expected=", ".join(Description.model_fields),
            fix="copy the whole folder that the training wrote",
        ) from error


def assemble(file: Path, base: str | Path | None = None) -> Assembled:
    """Put an adapter and its base together.

    Args:
        file: The adapter's weights.
        base: Where the base is, if not where the adapter says.

    Raises:
        CheckpointError: The base is another one than the adapter was trained on, or a pair adapts nothing in it.
        ModelError: The base cannot be loaded.
    """
    description = read_description(file.parent)
    found = load_language_model(str(base or description.base))
    if found.weight_hash != description.base_hash:
        raise CheckpointError(
            f"the base {found.name} is not the one that {file.parent} was trained on",
            got=f"weights with hash {found.weight_hash[:16]}",
            expected=description.base_hash[:16],
            fix="install the base's version that the card names",
        )
    learned = dict(open_tensors([file]))
    rows = learned.pop(ROWS, None)
    if rows is None:
        raise CheckpointError(f"{file} holds no {ROWS}", fix="copy the folder again")
    state = found.lm.state_dict()
    adapted = {name.partition(".lora_")[0] for name in learned if ".lora_" in name}
    embedding = next(n for n, m in found.lm.named_modules() if m is found.lm.get_input_embeddings())
    tied = "lm_head.weight" if found.config.tie_word_embeddings else None
    whole: dict[str, StoredTensor] = {}
    for name, value in state.items():
        if name == tied:
            continue
        module, _, parameter = f"{PREFIX}{name}".rpartition(".")
        key = f"{module}.base_layer.{parameter}" if module in adapted else f"{module}.{parameter}"
        if name == f"{embedding}.weight":
            value = torch.cat([value, rows.read().to(value.dtype)])
        whole[key] = StoredTensor(key, tuple(value.shape), value.dtype, _constant(value))
    return Assembled({**whole, **learned}, found, description)


def _constant(value: Tensor) -> Callable[[], Tensor]:
    return lambda: value


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], description: Description) -> Path:
    """Write an adapter: `tensors` under their official names, and `ROWS`; the weights last and in one step.

    Args:
        folder: Made if it does not exist.
        tensors: LoRA pairs, `prj.*` and `ROWS`.
        description: The base and alpha.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{WEIGHTS}.tmp"
    save_tensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, part)
    (folder / DESCRIPTION).write_text(json.dumps(description.model_dump(), indent=1) + "\n")
    part.replace(folder / WEIGHTS)
    return folder


def write_official(adapter: Path, folder: Path, base: str | None = None) -> Path:
    """Write the base and an adapter as one raw state dict in CODI's official layout, with config and tokenizer.

    The file holds the full base weights and the unmerged LoRA pairs, as the published CODI checkpoints do. It has no
    place for LoRA's alpha, which readers take for the official 32: another one is multiplied into the pairs.

    Args:
        adapter: An adapter's folder.
        folder: Made if it does not exist; empty if it does.
        base: Where the base is, if not where the adapter says.

    Returns:
        The folder, which `load_model` and the official code read.

    Raises:
        CheckpointError: It is not an adapter, the base does not fit, or the folder holds something.
    """
    check_new_folder(folder)
    whole = assemble(check_adapter(adapter) / WEIGHTS, base)
    scale = whole.description.lora_alpha / OFFICIAL_ALPHA
    tensors = {name: stored.read() for name, stored in whole.stored.items()}
    if scale != 1:
        tensors |= {name: value.float() * scale for name, value in tensors.items() if ".lora_B." in name}
    ready = {name: value.contiguous() for name, value in tensors.items()}
    return write_folder(folder, ready, whole.model.config, whole.model.tokenizer)
