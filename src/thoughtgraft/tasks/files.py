"""Problems on disk and in tables: rows, files of rows, and the table that a run keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thoughtgraft.arguments import items, parse_json, path_of, shown
from thoughtgraft.errors import ProblemError, first_line
from thoughtgraft.tasks.grading import NUMBER, Grader
from thoughtgraft.tasks.numbers import parse_number
from thoughtgraft.tasks.problem import Operand, Problem, ProblemSet, Ref, Step
from thoughtgraft.tasks.steps import equations, steps_from

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".jsonl", ".json", ".parquet")
_WRITTEN = {"id", "split", "question", "gold", "n_steps", "graph"}
"""Columns that only a table of `problem_table` has all of; a user's own `id` may repeat, a `graph` be anything."""


def read_problems(path: str | Path, grader: Grader = NUMBER) -> ProblemSet:
    """The problems of a file with `question` and `answer` in every row.

    Args:
        path: A `.jsonl` (one object a line), `.json` (a list of objects) or `.parquet` file. Its name without the
            suffix is the split, so that row 51 of `test.jsonl` is `test_51` (rows 0-based, blank lines not counted);
            what `problem_table` wrote is read as it was, with its ids, splits and steps.
        grader: How the answers are read.

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
        problem_of_row(row, f"{path}, {place}", path.stem, index, grader) for index, (place, row) in enumerate(rows)
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


def rows_of(given: Any) -> list[Any]:
    """The rows of a list, a DataFrame or a `datasets.Dataset`; what a table leaves empty is None.

    Raises:
        ProblemError: It is nothing that has rows.
    """
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        names = list(given.columns)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ProblemError("the table has a column twice", got=shown(twice[0]), expected="each column once")
        whole = given.astype(object)
        given = whole.where(whole.notna(), None).to_dict("records")
    expected = "a ProblemSet, or rows with 'question' and 'answer': a list, a DataFrame or a datasets.Dataset"
    fix = "put a single problem into a list; of data in splits, take one"
    return items(given, "problems", ProblemError, expected=expected, fix=fix)


def problem_of_row(row: object, where: str, split: str, index: int, grader: Grader = NUMBER) -> Problem:
    """A problem from a user's row, or from one that `problem_table` wrote, which says all of itself.

    Args:
        row: See `problem_from_row`.
        where: The place in words, for errors.
        split: The split of a user's row.
        index: Its place in the split, 0-based.
        grader: How its answer is read.

    Raises:
        ProblemError: It cannot be used.
    """
    if isinstance(row, Mapping) and row.keys() >= _WRITTEN:
        return _written_problem(row, grader)
    return problem_from_row(row, where=where, split=split, index=index, grader=grader)


def _written_problem(row: Mapping[str, Any], grader: Grader) -> Problem:
    answer = str(row.get("answer") or "")  # a file for other programs has its solutions there
    return Problem(
        id=row["id"],
        question=row["question"],
        gold=row["gold"],
        solution=row.get("solution") or (answer if ANSWER_MARK in answer else ""),
        steps=read_graph(row["graph"], str(row["id"])),
        split=row["split"],
        template=row.get("template"),
        grader=grader,
    )


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


ANSWER_MARK = "####"


def problem_from_row(row: object, *, where: str, split: str, index: int, grader: Grader = NUMBER) -> Problem:
    """A problem from a mapping with `question` and `answer`.

    Args:
        row: The row. `answer` is what the grader takes for an answer (a number, or the text of one), or a solution that
            ends in it after `####`.
        where: The place in words, for errors: `problems.jsonl, line 3`.
        split: The split the problem belongs to.
        index: The row's place in its split, 0-based.
        grader: How the answer is read.

    Returns:
        The problem, with the id `{split}_{index}` and the steps that its annotations give.

    Raises:
        ProblemError: The row is not a mapping, or a field is missing or unusable.
    """
    if not isinstance(row, Mapping):
        raise ProblemError(
            f"{where}: not an object with fields", got=shown(row), expected='{"question": ..., "answer": ...}'
        )
    question = _field(row, "question", where)
    if not isinstance(question, str) or not question.strip():
        raise ProblemError(
            f"{where}: the field 'question' holds no text", got=shown(question), expected="the question as text"
        )
    answer = _field(row, "answer", where)
    gold = _gold(answer, where, grader)
    solution = answer if isinstance(answer, str) and ANSWER_MARK in answer else ""
    return Problem(
        id=f"{split}_{index}",
        question=question,
        gold=gold,
        solution=solution,
        steps=steps_from(solution, question=question, gold=gold),
        split=split,
        grader=grader,
    )


def _field(row: Mapping[object, object], name: str, where: str) -> object:
    if name not in row:
        raise ProblemError(
            f"{where}: the field '{name}' is missing",
            got="the fields " + (", ".join(repr(key) for key in row) or "(none)"),
            expected="'question' and 'answer'",
            fix=f"add '{name}' to the row, or rename the field that holds it",
        )
    return row[name]


def _gold(answer: object, where: str, grader: Grader) -> str:
    gold = grader.canonical(answer.rpartition(ANSWER_MARK)[2] if isinstance(answer, str) else answer)
    if gold is None:
        raise ProblemError(
            f"{where}: the field 'answer' holds no {grader.noun}",
            got=shown(answer),
            expected=f"a {grader.noun}, or a solution that ends in '{ANSWER_MARK} 42'",
        )
    return gold


def problem_table(problems: Iterable[Problem]) -> pd.DataFrame:
    """One row per problem, in order.

    Returns:
        Columns id, split, question, gold (exact text), solution, steps (equations, one a line), n_steps, operation,
        template, and graph: the steps as JSON, `[["26", "+", "5", "31"], ["#0", "*", "2", "62"]]`, where `#0` is the
        value of step 0.
    """
    import pandas as pd

    rows = [
        {
            "id": p.id,
            "split": p.split,
            "question": p.question,
            "gold": p.gold,
            "solution": p.solution,
            "steps": "\n".join(equations(p.steps)),
            "n_steps": len(p.steps),
            "operation": p.operation,
            "template": p.template,
            "graph": json.dumps([[_written(s.left), s.op, _written(s.right), str(s.value)] for s in p.steps]),
        }
        for p in problems
    ]
    return pd.DataFrame(rows)


def with_labels(table: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """A table of problems with columns of labels, matched by `id`; columns of the same name are replaced."""
    rows = labels.set_index("id").loc[table["id"]].reset_index(drop=True)
    return table.assign(**{str(name): rows[name] for name in rows.columns})


def problems_from_table(table: pd.DataFrame, name: str = "problems", grader: Grader = NUMBER) -> ProblemSet:
    """The problems that `problem_table` wrote, with the same content hash.

    Raises:
        ProblemError: A column is missing, or a graph cannot be read.
    """
    needed = ["id", "split", "question", "gold", "graph"]
    if missing := [column for column in needed if column not in table]:
        raise ProblemError(f"the table of {name} lacks columns", got=f"no {', '.join(missing)}", expected=needed)
    return ProblemSet(tuple(_written_problem(row, grader) for row in rows_of(table)), name)


def _written(operand: Operand) -> str:
    return f"#{operand.step}" if isinstance(operand, Ref) else str(operand)


def read_graph(graph: str | None, problem: str) -> tuple[Step, ...]:
    """The steps of a cell of the column `graph`.

    Raises:
        ProblemError: It cannot be read; `problem` is whose it is.
    """

    def number(text: str) -> Fraction:
        if (found := parse_number(text)) is None:
            raise ValueError(text)
        return found

    def operand(text: str) -> Operand:
        return Ref(int(text[1:])) if text.startswith("#") else number(text)

    try:
        rows = parse_json(graph or "[]")
        return tuple(Step(operand(left), op, operand(right), number(value)) for left, op, right, value in rows)
    except (ValueError, TypeError, AttributeError, ProblemError) as error:
        raise ProblemError(f"the steps of problem {problem!r} cannot be read", got=shown(graph)) from error
