"""The models that ship inside the package: which there are and where their files lie; no torch."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Any

from thoughtgraft.arguments import closest, place_of, shown
from thoughtgraft.errors import CheckpointError, ModelError

EMBEDDED = {
    "tiny-codi": "codi",
    "tiny-coconut": "coconut",
    "tiny-pause": "pause",
    "tiny-direct": "direct",
    "tiny-cot": "cot",
}
"""Every embedded model with the method that it was trained by."""


def model_folder(name: str) -> Path:
    """Where a model's files lie: inside the package for an embedded model, else the directory of that name.

    Raises:
        CheckpointError: An embedded model is not in this installation.
    """
    if name not in EMBEDDED:
        return Path(name)
    folder = Path(str(resources.files("thoughtgraft.models") / "weights" / name))
    if not folder.is_dir():
        raise CheckpointError(
            f"the embedded model {name} is not in this installation",
            got=f"no folder {folder}",
            fix=f"install the package again, or make such a model with "
            f"`thoughtgraft train --method {EMBEDDED[name]} --out FOLDER` and pass FOLDER/model",
        )
    return folder


BASES = ("tiny", "smollm2")
"""What training starts from that has a name and no place; a test holds it equal to what can be made."""
ADAPTER = "adapter.safetensors"
DTYPES = ("float32", "bfloat16", "float16", "float64")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]+)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def check_device(name: Any) -> str:
    """A device's name; whether this machine has it is found out where the model is loaded.

    Raises:
        ModelError: There is no such device anywhere.
    """
    if isinstance(name, str) and _DEVICE.fullmatch(name):
        return name
    fix = "did you mean 'cuda'?" if str(name).lower().startswith(("gpu", "cuda", "nvidia")) else None
    raise ModelError("unknown device", got=shown(name), expected="auto, cpu, cuda, cuda:N or mps", fix=fix)


def check_place(name: Any, role: str, names: Collection[str] = ()) -> str | Path:
    """A local path that exists, one of some names, or what has the form of a hub id; `~` is expanded.

    Args:
        name: What the user gave.
        role: What it is of: "model", "base model" or "tokenizer".
        names: Names that need no place; a model's are those of the embedded ones.

    Raises:
        CheckpointError: It is none of these.
    """
    place = place_of(name, f"the {role}", CheckpointError)
    known = [*(EMBEDDED if role == "model" else names)]
    if role != "model" and Path(place).is_file():
        raise CheckpointError(f"the {role} {name} is a file", expected="a folder or a hub id", fix="pass its folder")
    if Path(place).exists() or str(place) in known or is_hub_id(str(place)):
        return place
    close = closest(str(place), known)
    kinds = ["a directory", *(["a weight file"] if role == "model" else []), "or a hub id such as zen-E/CODI-gpt2"]
    raise CheckpointError(
        f"no {role} at {str(name)!r}",
        got="a path that does not exist",
        expected=", ".join([*known, *kinds]),
        fix="check the spelling, or give the full path" if close is None else f"did you mean {close!r}?",
    )


def check_adapter(folder: Path) -> Path:
    """A folder that holds an adapter.

    Raises:
        CheckpointError: It does not.
    """
    if not (folder / ADAPTER).is_file():
        raise CheckpointError(
            f"{folder} is not an adapter", got=f"no {ADAPTER}", expected="a folder that `train --lora-r` wrote"
        )
    return folder


def check_new_folder(folder: Path) -> Path:
    """A folder that holds nothing yet, or is not there.

    Raises:
        CheckpointError: It holds something.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise CheckpointError(
            f"{folder} is not empty", expected="a new folder, so that nothing is overwritten", fix="--out another one"
        )
    return folder


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `owner/name`."""
    return _HUB_ID.fullmatch(name) is not None
