"""What a user calls a model, and where and in what it is to compute, checked by form alone; no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from thoughtgraft.arguments import closest, place_of, shown
from thoughtgraft.errors import CheckpointError, ModelError
from thoughtgraft.models.embedded import EMBEDDED

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


def check_place(name: Any, role: str) -> str | Path:
    """A local path that exists, an embedded model, or what has the form of a hub id; `~` is expanded.

    Args:
        name: What the user gave.
        role: What it is of: "model", "base model" or "tokenizer".

    Raises:
        CheckpointError: It is none of these.
    """
    place = place_of(name, f"the {role}", CheckpointError)
    if Path(place).exists() or str(place) in EMBEDDED or is_hub_id(str(place)):
        return place
    close = closest(str(place), EMBEDDED)
    raise CheckpointError(
        f"no {role} at {str(name)!r}",
        got="a path that does not exist",
        expected=f"{', '.join(EMBEDDED)}, a directory, a weight file, or a hub id such as zen-E/CODI-gpt2",
        fix="check the spelling, or give the full path" if close is None else f"did you mean {close!r}?",
    )


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `owner/name`."""
    return _HUB_ID.fullmatch(name) is not None
