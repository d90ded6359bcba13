"""Tells what a foreign file is by its content, and hands it to the converter that knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import ForeignFileError
from thoughtgraft.importing import cot_exploration
from thoughtgraft.importing.imported import Imported

_MOST_JSON = 2 << 30  # the largest known file, thoughts of 600 problems, has about 0.5 GB
KNOWN = (
    "ct_hidden_states_cache_*.pkl (hidden states); resampling_*_results.json (results); a JSON list of problems with "
    "thoughts at early, middle and late layers; all as CoT_Exploration writes them"
)


def read_foreign(path: Path) -> Imported:
    """Reads and converts a file of another codebase.

    Raises:
        ForeignFileError: It is missing, damaged, hostile, or in a layout that is not known.
    """
    if not path.is_file():
        raise ForeignFileError(f"there is no file {path}", fix="check the path; it is read from the current directory")
    if path.suffix == ".json":
        content = _read_json(path)
        if isinstance(content, dict) and isinstance(content.get("results"), dict):
            return cot_exploration.from_results(content, path)
        if isinstance(content, list) and content and isinstance(content[0], dict) and "thoughts" in content[0]:
            return cot_exploration.from_thoughts(content, path)
        keys = list(content)[:6] if isinstance(content, dict) else type(content).__name__
        raise ForeignFileError(f"{path} has a layout that is not known", got=f"{keys}"[:160], expected=KNOWN)
    if path.suffix in (".pkl", ".pickle"):
        from thoughtgraft.importing.pickles import read_pickle

        return cot_exploration.from_cache(read_pickle(path), path)
    raise ForeignFileError(f"{path} is no file that can be imported", got=repr(path.suffix), expected=KNOWN)


def _read_json(path: Path) -> Any:
    if path.stat().st_size > _MOST_JSON:
        raise ForeignFileError(f"{path} is too large to read at once", got=f"{path.stat().st_size:,} bytes")
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ForeignFileError(f"{path} is not readable JSON", got=what, fix="copy it again") from error
