"""JSON as this project writes it: strict (no NaN), with numpy, fractions, dataclasses and models understood."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import RunError
from thoughtgraft.records.atomic import io_error

DAMAGE_FIX = "restore it from a copy, or start again with --out another folder"


def to_json(obj: Any, name: str) -> bytes:
    """`obj` as JSON text in UTF-8.

    Raises:
        RunError: It holds something that JSON has no word for; `name` says which file it was for.
    """
    try:
        return (json.dumps(obj, indent=1, default=_plain, allow_nan=False, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{name} cannot be written as JSON", got=str(error), fix="use null for what is undefined"
        ) from error


def _plain(value: Any) -> Any:
    """What JSON does not know but this project writes."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        RunError: It is missing, unreadable or damaged.
    """
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{file} is missing") from error
    except OSError as error:
        raise io_error(f"{file} cannot be read", error) from error
    except ValueError as error:
        raise RunError(f"{file} is damaged", got=str(error), expected="JSON", fix=DAMAGE_FIX) from error
