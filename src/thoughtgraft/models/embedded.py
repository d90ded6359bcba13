"""The models that ship inside the package: which there are and where their files lie; no torch."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from thoughtgraft.errors import CheckpointError

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
