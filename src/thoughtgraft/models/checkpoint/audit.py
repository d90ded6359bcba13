"""Loaded weights against the files that they came from, and the answers that a card records."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.adapter import assemble, is_adapter
from thoughtgraft.models.checkpoint.fit import embedding_name, tied_head
from thoughtgraft.models.checkpoint.format import FAMILIES
from thoughtgraft.models.checkpoint.keys import canonical
from thoughtgraft.models.checkpoint.lora import LoraScale
from thoughtgraft.models.checkpoint.read import Checkpoint
from thoughtgraft.models.checkpoint.tensors import TensorHasher, open_tensors
from thoughtgraft.models.reasoner import Audit

# Read apart from the loader's own expressions, wrappers' names included.
_FRAMES = re.compile(r"(^|(?<=\.))_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")
_LM = re.compile(r"^(.*\b(base_causallm|pause_lm|direct_lm|cot_lm)\.|(.*?\b)?(codi|coconut)\.(base_model\.model\.)?)")
_FEEDER = re.compile(r"^.*\b(?=(prj|pause)\.)")
_WRAPPER = re.compile(r"\.(base_layer|modules_to_save\.default)(?=\.\w+$)")
_PAIR = re.compile(r"(?<=\.lora_[AB])\.[^.]+(?=\.weight$)")
_ROUNDINGS = 4


def audit(checkpoint: Checkpoint, project: Callable[[Tensor, int], Tensor]) -> Audit:
    """Compare a loaded model with its files, which are read once more.

    Args:
        checkpoint: What was loaded.
        project: The adapter's `project`, [n, d] and a slot -> [n, d].

    Raises:
        CheckpointError: The files are gone or damaged.
    """
    files = checkpoint.files
    stored = assemble(files[0], checkpoint.base).stored if is_adapter(files) else open_tensors(files)
    _, named, _ = canonical(stored, checkpoint.name)
    by_name = {_own_name(name): tensor for name, tensor in zip(stored, named.values(), strict=True)}
    hasher, wrong = TensorHasher(), []
    tied, embedding = tied_head(checkpoint.lm), embedding_name(checkpoint.lm)
    # Of tensors that share their memory some writers keep one name.
    kept = [name for name in by_name if name.endswith("embedding.weight")] + [name for name in by_name if name == tied]
    if embedding not in by_name and kept:
        by_name[embedding] = by_name[kept[0]]
    loaded = {name: value for name, value in checkpoint.lm.named_parameters() if name != tied}
    convolutions = {name for name, module in checkpoint.lm.named_modules() if isinstance(module, Conv1D)}
    feeder = FAMILIES[checkpoint.family].feeder
    scale = (checkpoint.lora or LoraScale()).of
    loaded |= {f"{feeder}.{name}": value for name, value in checkpoint.feeder.named_parameters()}

    def read(name: str) -> Tensor | None:
        tensor = by_name.get(name)
        if tensor is None:
            return None
        value = tensor.read()
        hasher.add(tensor.name, value)
        return value

    for name, value in loaded.items():
        module = name.rpartition(".")[0]
        base = read(name)
        low, high = (read(f"{module}.lora_{side}.weight") if name.endswith("weight") else None for side in "AB")
        if base is None or base.shape != value.shape:
            wrong.append(name)
        elif low is None or high is None:
            same = torch.equal(value.cpu(), base.to(value.dtype))
            wrong += [] if same else [name]
        elif not _merged(value.cpu(), base, low, high, scale(module, low.shape[0]), module in convolutions):
            wrong.append(name)
    made = {name: by_name[name].read().double() for name in by_name if name.startswith(("prj.", "pause."))}
    return Audit(
        len(loaded), tuple(wrong), hasher.hexdigest() == checkpoint.weight_hash, _projects(checkpoint, project, made)
    )


def _own_name(name: str) -> str:
    """A tensor's name inside the language model or the feeder, whatever was put around it."""
    bare = _FRAMES.sub("", name)
    return _FEEDER.sub("", _PAIR.sub("", _WRAPPER.sub("", _LM.sub("", bare))))


@torch.inference_mode()
def _projects(checkpoint: Checkpoint, project: Callable[[Tensor, int], Tensor], made: Mapping[str, Tensor]) -> bool:
    """Whether `project` does to random states what the official lines do with the files' numbers."""
    weight = checkpoint.lm.get_input_embeddings().weight
    states = 3 * torch.randn(8, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.dtype) + 1
    wanted = states.double()
    if "pause.weight" in made:
        wanted = made["pause.weight"][0].expand(wanted.shape)
    elif made:
        wanted = F.gelu(F.linear(wanted, made["prj.1.weight"], made["prj.1.bias"]))
        wanted = F.linear(wanted, made["prj.3.weight"], made["prj.3.bias"])
        if "prj.ln.weight" in made:
            wanted = F.layer_norm(wanted, wanted.shape[-1:], made["prj.ln.weight"], made["prj.ln.bias"])
    found = project(states.to(weight.device), 0).cpu().double()
    rounding = max(torch.finfo(t).eps for t in (torch.float32, weight.dtype))
    return float((found - wanted).norm()) <= 100 * rounding * float(wanted.norm())


def _merged(value: Tensor, base: Tensor, low: Tensor, high: Tensor, scale: float, transposed: bool) -> bool:
    """Whether `value` acts on a random vector as the base matrix and its LoRA pair do one after the other."""
    value, base = (t.double().T if transposed else t.double() for t in (value, base))
    x = torch.randn(base.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = base @ x + scale * (high.double() @ (low.double() @ x))
    rounding = max(torch.finfo(t).eps for t in (torch.float32, value.dtype))
    return float((value @ x - wanted).norm()) <= _ROUNDINGS * rounding * float(wanted.norm())


_CARD, _FIELD = "card.json", "fingerprint"


@dataclass(frozen=True)
class Fingerprint:
    """What a model answered.

    Attributes:
        weight_hash: The model that answered.
        protocol: Under which protocol.
        num_latents: From how many thoughts.
        questions: The questions.
        answers: Its whole answers, decoded.
    """

    weight_hash: str
    protocol: str
    num_latents: int
    questions: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hash over all of it; a card that was edited by hand does not fit its own."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """The fingerprint in a model's card; None where there is no card or none in it.

    Raises:
        CheckpointError: It is damaged, or was changed by hand.
    """
    card = _read(folder)
    if _FIELD not in card:
        return None
    try:
        raw = dict(card[_FIELD])
        digest = raw.pop("hash")
        found = Fingerprint(**raw | {name: tuple(raw[name]) for name in ("questions", "answers")})
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"the fingerprint in {folder / _CARD} is damaged", got=repr(error), fix=_FIX) from error
    if found.digest != digest:
        raise CheckpointError(
            f"the fingerprint in {folder / _CARD} was changed by hand", got=digest, expected=found.digest, fix=_FIX
        )
    return found


_FIX = "record it again: thoughtgraft verify --model FOLDER --fingerprint"


def write_fingerprint(folder: Path, fingerprint: Fingerprint) -> Path:
    """Put a fingerprint into a model's card, which is made if there is none; returns the card's path.

    Raises:
        CheckpointError: The folder is none, or cannot be written.
    """
    card = _read(folder) | {_FIELD: asdict(fingerprint) | {"hash": fingerprint.digest}}
    try:
        (folder / _CARD).write_text(json.dumps(card, indent=1) + "\n")
    except OSError as error:
        raise CheckpointError(
            f"{folder / _CARD} cannot be written", got=error.strerror, fix="give a model in a local folder of your own"
        ) from error
    return folder / _CARD


def _read(folder: Path) -> dict[str, Any]:
    try:
        return dict(parse_json((folder / _CARD).read_text()))
    except (FileNotFoundError, NotADirectoryError):  # a weight file has no card
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / _CARD} is not readable", got=str(error), fix="restore it") from error
