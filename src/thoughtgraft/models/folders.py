"""Writes a model's folder: weights, config and tokenizer, so that a reader never sees half a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from thoughtgraft.errors import CheckpointError
from thoughtgraft.tensorfile import save_tensors


def write_folder(
    folder: Path, tensors: Mapping[str, Tensor], config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> Path:
    """Write `model.safetensors` with contiguous CPU tensors, `config.json` and the tokenizer's files.

    Returns:
        The folder, which is made if it does not exist.

    Raises:
        CheckpointError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "model.safetensors.tmp"
        save_tensors(tensors, part, {"format": "pt"})
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        part.replace(folder / "model.safetensors")  # last and in one step
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be written", got=str(error), fix="choose a folder that you may write to"
        ) from error
    return folder
