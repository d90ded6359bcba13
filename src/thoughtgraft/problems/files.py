"""Problems from a local .jsonl, .json or .parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from thoughtgraft.arguments import parse_json, path_of
from thoughtgraft.errors import ProblemError, first_line
from thoughtgraft.problems.problem import Problem, ProblemSet
from thoughtgraft.problems.rows import problem_from_row
from thoughtgraft.problems.table import read_graph

SUFFIXES = (".jsonl", ".json", ".parquet")
_WRITTEN = {"id", "split", "question", "gold", "n_steps", "graph"}
"""Columns that only a table of `problem_table` has all of; a user's own `id` may repeat, a `graph` be anything."""


def read_problems(path: str | Path) -> ProblemSet:
    """The problems of a file with `question` and `answer` in every row.

    Args:
        path: A `.jsonl` (one object a line), `.json` (a list of objects) or `.parquet` file. Its name without the
            suffix is the split, so that row 51 of `test.jsonl` is `test_51` (rows 0-based, blank lines not counted);
            what `problem_table` wrote is read as it was, with its ids, splits and steps.

    Raises:
        ProblemError: The file is missing, unreadable, damaged or empty, or a row lacks what a problem needs; the
            message names the file, the line (1-based) or row (0-based), and the field.
    """
    path = check_file(path)
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    try:
        rows = readers[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise ProblemError(f"{path}: not text in UTF-8 (byte {error.start})", fix="save the file as UTF-8") from None
    except OSError as error:
        raise ProblemError(f"{path}: cannot be read", got=error.strerror or str(error)) from None
    if not rows:
        raise ProblemError(f"{path}: holds no problems", fix="give a file with at least one question and answer")
    problems = [
        _with_own(problem_from_row(row, where=f"{path}, {place}", split=path.stem, index=index), row)
        for index, (place, row) in enumerate(rows)
    ]
    return ProblemSet(tuple(problems), name=str(path))


def check_file(path: str | Path) -> Path:
    """The path of a file that may hold problems.

    Raises:
        ProblemError: There is none, or it has another kind.
    """
    path = path_of(path, "the file of problems", ProblemError)
    if path.is_dir():
        raise ProblemError(f"{path} is a folder", expected="a file", fix="give the file in it that holds the problems")
    if path.suffix.lower() not in SUFFIXES:
        raise ProblemError(f"{path}: not a file of problems", got=repr(path.suffix), expected=" or ".join(SUFFIXES))
    if not path.is_file():
        raise ProblemError(f"there is no file {path}", fix="check the path; it is read from the current directory")
    return path


def _with_own(problem: Problem, row: object) -> Problem:
    """The problem with what its row says of itself: a sample that was written here is read as it was."""
    if not isinstance(row, Mapping) or not row.keys() >= _WRITTEN:
        return problem
    own = {name: row[name] for name in ("id", "split")}
    return replace(problem, **own, steps=read_graph(row["graph"], str(row["id"])))


def _jsonl(path: Path) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    # Split at line feeds only: a question may hold other characters that Python counts as line ends.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            rows.append((f"line {number}", _decode(line, f"{path}, line {number}")))
    return rows


def _json(path: Path) -> list[tuple[str, object]]:
    rows = _decode(_text(path), str(path))
    if not isinstance(rows, list):
        raise ProblemError(
            f"{path}: not a list of problems",
            got=f"a JSON {type(rows).__name__}",
            expected='[{"question": ..., "answer": ...}, ...]',
        )
    return [(f"row {index}", row) for index, row in enumerate(rows)]


def _text(path: Path) -> str:
    text = path.read_text(encoding="utf-8-sig")
    if "\0" in text:
        got = f"a zero byte at character {text.index(chr(0))}"
        raise ProblemError(f"{path}: not text in UTF-8", got=got, fix="save the file as UTF-8")
    return text


def _decode(text: str, where: str) -> object:
    try:
        return parse_json(text, _without_doubles)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ProblemError(
            f"{where}: not JSON",
            got=f"{error.msg} at {place}",
            fix="one object per line in .jsonl, one list of objects in .json; the file may also be cut off",
        ) from None
    except ValueError as error:  # brackets without end, an int too long for Python, or a field that is there twice
        raise ProblemError(f"{where}: not usable JSON", got=first_line(error)) from None


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return found


def _parquet(path: Path) -> list[tuple[str, object]]:
    # Here and not above: reading a command's --help must not wait for pyarrow.
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ProblemError(f"{path}: not a readable parquet file", got=str(error).splitlines()[0]) from None
    return [(f"row {index}", row) for index, row in enumerate(table.to_pylist())]
