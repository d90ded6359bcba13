"""`load_model`: any reasoner by its name, and an untrained one of the same shape."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from thoughtgraft.arguments import answers_for_calls, choice, need, place_of, positive, whole
from thoughtgraft.errors import ModelError
from thoughtgraft.models.checkpoint.read import Checkpoint, read_checkpoint
from thoughtgraft.models.coconut import CoconutReasoner
from thoughtgraft.models.codi import CodiReasoner, CotReasoner, DirectReasoner, PauseReasoner
from thoughtgraft.models.names import DTYPES, EMBEDDED, check_device, model_folder
from thoughtgraft.models.reasoner import LatentReasoner

ADAPTERS: dict[str, Callable[..., LatentReasoner]] = {
    adapter.family: adapter for adapter in (CodiReasoner, CoconutReasoner, PauseReasoner, DirectReasoner, CotReasoner)
}
"""The adapter of each family of checkpoints."""

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded; `load_model` says what each is. What cannot be one is refused as it is made."""

    base: str | Path | None = None
    tokenizer: str | Path | PreTrainedTokenizerBase | None = None
    protocol: str = "official"
    device: str | torch.device = "auto"
    dtype: str | torch.dtype | None = None
    lora_alpha: float | None = None
    prompt_suffix: str | None = None
    num_latents: int | None = None

    def __post_init__(self) -> None:
        if self.base is not None:
            self._set("base", place_of(self.base, "the base", ModelError))
        if isinstance(self.tokenizer, str | Path):
            self._set("tokenizer", place_of(self.tokenizer, "the tokenizer", ModelError))
        elif self.tokenizer is not None:
            what = "a tokenizer, or the place of one"
            need(self.tokenizer, PreTrainedTokenizerBase, "the tokenizer", ModelError, expected=what)
        if self.num_latents is not None:
            self._set("num_latents", whole(self.num_latents, "num_latents", ModelError, least=0))
        if self.lora_alpha is not None:
            self._set("lora_alpha", positive(self.lora_alpha, "lora_alpha", ModelError))
        if self.prompt_suffix is not None:
            need(self.prompt_suffix, str, "prompt_suffix", ModelError, expected="text")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


@answers_for_calls(ModelError)
def load_model(
    name_or_path: str | Path,
    *,
    base: str | Path | None = None,
    tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
    protocol: str = "official",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    lora_alpha: float | None = None,
    prompt_suffix: str | None = None,
    num_latents: int | None = None,
) -> LatentReasoner:
    """Load a latent-reasoning model; what was assumed on the way is its attribute `assumptions`.

    Args:
        name_or_path: An embedded model such as `tiny-codi`, a hub id such as `zen-E/CODI-gpt2`, a local directory or a
            weight file.
        base: Directory or hub id with the base model's config and tokenizer, where the checkpoint has none.
        tokenizer: A tokenizer, or a directory or hub id with one.
        protocol: The name of a rule of inference (see `models.protocols`).
        device: `auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: A torch dtype or its name; None takes what suits checkpoint and device.
        lora_alpha: LoRA's alpha, which raw checkpoints do not store; None takes what a file beside the weights says,
            else 32, as an assumption.
        prompt_suffix: The text between a question and begin-of-thought, special tokens included; None takes what a
            file says, else what the family's published weights were trained with, as an assumption.
        num_latents: Thoughts to feed; other numbers than the trained one, which None takes, are allowed.

    Raises:
        CheckpointError: The files are missing, damaged or do not fit.
        ModelError: A wrong device, dtype, protocol or number of latents.
    """
    place = place_of(name_or_path, "the model", ModelError)
    options = LoadOptions(base, tokenizer, protocol, device, dtype, lora_alpha, prompt_suffix, num_latents)
    return make_model(place, options)


def make_model(name: str | Path, options: LoadOptions, *, weights: bool = True) -> LatentReasoner:
    """`load_model`, its options in one.

    Args:
        name: The model.
        options: How it is loaded.
        weights: False makes every check and leaves the parameters empty: what would load can be told, nothing can run.
    """
    place = model_folder(str(name)) if str(name) in EMBEDDED else name
    device, dtype = find_device(options.device), _find_dtype(options.dtype)
    if device.type == "mps" and dtype is torch.float64:
        raise ModelError("MPS devices cannot compute in float64", fix="--dtype float32, or --device cpu")
    checkpoint = read_checkpoint(
        place,
        base=options.base,
        tokenizer=options.tokenizer,
        dtype=dtype,
        device=device,
        lora_alpha=options.lora_alpha,
        prompt_suffix=options.prompt_suffix,
        weights=weights,
    )
    adapter = ADAPTERS[checkpoint.family]
    model = adapter(checkpoint, protocol=options.protocol, num_latents=options.num_latents)
    model.name = str(name)
    places = {"base": _from_anywhere(options.base), "tokenizer": _from_anywhere(options.tokenizer)}
    # Every option but the device, which is the process's own.
    again = vars(options) | places | {"dtype": model.dtype}
    del again["device"]
    model.recipe = partial(load_model, _from_anywhere(name), **again)
    return model


def _from_anywhere(place: Any) -> Any:
    """A local path as a process with another working directory finds it; hub ids and embedded names as they are."""
    local = isinstance(place, str | Path) and str(place) not in EMBEDDED and Path(place).exists()
    return Path(place).resolve() if local else place


def find_device(name: str | torch.device) -> torch.device:
    """The device of this name, checked to be there.

    Raises:
        ModelError: It is not a device, or not on this machine.
    """
    if isinstance(name, torch.device):
        name = str(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(check_device(name))
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ModelError(f"this machine has no {device.type} device that torch can use", fix="--device cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ModelError("this machine has no such device", got=name, expected=f"cuda:0..cuda:{count - 1}")
    return device


def _find_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in _DTYPES.values()):
        return dtype
    return _DTYPES[choice(dtype, "dtype", _DTYPES, ModelError)]


def untrained_twin(model: LatentReasoner, seed: int = 0) -> LatentReasoner:
    """A model of the same shape with freshly initialised weights; tokenizer, protocol and K are the model's.

    Everything is initialised as its library initialises it before training: embeddings, layers and projection.

    Args:
        model: The model; left as it is.
        seed: Draws the weights. The global generator is left as it was.
    """
    twin = copy.copy(model)
    config = copy.deepcopy(model.lm.config)
    # Drawn on the CPU, so that the weights do not hang on the device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin.lm = AutoModelForCausalLM.from_config(config, dtype=model.dtype, attn_implementation="sdpa")
        checkpoint = getattr(model, "checkpoint", None)
        if isinstance(checkpoint, Checkpoint):
            feeder = copy.deepcopy(checkpoint.feeder).cpu()
            for module in feeder.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
            feeder.to(model.device)
            vars(twin)["checkpoint"] = replace(checkpoint, lm=twin.lm, feeder=feeder)
    twin.lm.to(model.device).eval().requires_grad_(False)
    twin.weight_hash = hashlib.sha256(f"untrained {seed} {model.weight_hash}".encode()).hexdigest()[:16]
    twin.name, twin.edit = f"{model.name}, untrained", None
    twin.remember()
    return twin
