"""A model's fingerprint: its recorded answers to a few questions, kept in its card, to be compared at any time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import CheckpointError

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
