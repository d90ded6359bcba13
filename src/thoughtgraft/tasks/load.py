"""Problems from a name, a file or a table: readers, GSM8K, and the table that a run keeps."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thoughtgraft.arguments import answers_for_calls, choice, closest, items, parse_json, path_of, seed_of, shown, whole
from thoughtgraft.errors import ProblemError, first_line
from thoughtgraft.tasks.arithmetic import equations
from thoughtgraft.tasks.grading import as_number, parse_number
from thoughtgraft.tasks.problem import Operand, Problem, ProblemSet, Ref, Step
from thoughtgraft.tasks.steps import steps_from

if TYPE_CHECKING:
    import pandas as pd

Sampling = Literal["permutation", "cot-exploration"]

SPECS = "arithmetic[:split], gsm8k:test, gsm8k:train, gsm8k:all, or a .jsonl, .json or .parquet file"

COT_EXPLORATION_SEED = 42

_GIVEN = "given"
"""Name and split of a user's own rows."""


@answers_for_calls(ProblemError)
def load_problems(
    spec: str | Path | Iterable[Problem | Mapping[str, Any]] | pd.DataFrame,
    *,
    n: int | None = None,
    seed: int | None = None,
    sampling: Sampling = "permutation",
) -> ProblemSet:
    """The problems that a name stands for, or a reproducible part of them.

    Args:
        spec: `arithmetic[:split]` (test unless said), `gsm8k:test|train|all`, a path to a local file, or rows of
            your own: a DataFrame or a list (of Problems, or of mappings) with `question` and `answer`.
        n: How many problems; None takes all.
        seed: Permutes the whole set before the first `n` are taken, so that sets drawn with one seed are nested;
            None keeps the set's own order.
        sampling: `permutation` as above, or `cot-exploration`: the draw of the CoT_Exploration experiments,
            `random.seed(42); sorted(random.sample(range(N), n))`, which needs `n` and has its own seed.

    Returns:
        The problems, named by `spec` (`given` for rows, with the ids `given_0`, ...); their hash is of what was taken.

    Raises:
        ProblemError: The spec is unknown, the data cannot be read, or `n` does not fit.
    """
    n = None if n is None else whole(n, "the number of problems", ProblemError)
    seed = None if seed is None else seed_of(seed, ProblemError)
    problems = as_problems(spec) if not isinstance(spec, str | Path) else find_problems(spec)()
    size = len(problems)
    if n is not None and not 1 <= n <= size:
        raise ProblemError(
            f"{problems.name} cannot give the number of problems asked for",
            got=f"n={n}",
            expected=f"1..{size}",
            fix=f"ask for at most {size}" if n > size else "ask for at least one problem",
        )
    return ProblemSet(tuple(problems[i] for i in _order(size, n, seed, sampling)), name=problems.name)


def as_problems(given: Any) -> ProblemSet:
    """A problem set from what stands for one in Python: itself, or a list or DataFrame with questions and answers.

    Raises:
        ProblemError: It is something else (the name of a set among them), empty, or a row cannot be used.
    """
    if isinstance(given, ProblemSet):
        return given
    if isinstance(given, str | Path):
        fix = f"load_problems({str(given)!r}) gives them"
        raise ProblemError("problems are wanted, not their name", got=shown(str(given)), fix=fix)
    table = hasattr(given, "to_dict") and hasattr(given, "columns")
    expected = "a ProblemSet, or a list of rows with 'question' and 'answer'"
    fix = "put a single problem into a list; of data in splits, take one"
    rows = items(given.to_dict("records") if table else given, "problems", ProblemError, expected=expected, fix=fix)
    if not rows:
        raise ProblemError("there are no problems", got=f"an empty {type(given).__name__}", expected="at least one row")
    found = (
        row if isinstance(row, Problem) else problem_from_row(row, where=f"row {i}", split=_GIVEN, index=i)
        for i, row in enumerate(rows)
    )
    return ProblemSet(tuple(found), _GIVEN)


def find_problems(spec: str | Path) -> Callable[[], ProblemSet]:
    """What loads the problems of a name; nothing is read yet.

    Raises:
        ProblemError: There are none of that name, or no file there.
    """
    name, colon, split = str(spec).partition(":")
    if name == "arithmetic" and bool(colon) == bool(split):
        from thoughtgraft.tasks.arithmetic import SPLIT_SIZES, arithmetic

        return partial(arithmetic, choice(split or "test", "split of 'arithmetic'", SPLIT_SIZES, ProblemError))
    if name == "gsm8k" and split:
        return partial(gsm8k, check_split(split))
    if isinstance(spec, Path) or _is_a_path(spec):
        return partial(read_problems, check_file(spec))
    close = closest(spec, ["arithmetic", *(f"gsm8k:{part}" for part in PARTS), "gsm8k"])
    meant = f"{close}:test" if close == "gsm8k" else close
    raise ProblemError("unknown problems", got=shown(spec), expected=SPECS, fix=meant and f"did you mean {meant!r}?")


def _is_a_path(spec: str) -> bool:
    """Whether a name is meant as that of a file, there or not."""
    return Path(spec).suffix.lower() in SUFFIXES or spec.startswith("~") or "/" in spec or "\\" in spec


def _order(size: int, n: int | None, seed: int | None, sampling: Sampling) -> list[int]:
    """The 0-based rows to take, in order."""
    if sampling == "permutation":
        rows = list(range(size))
        if seed is not None:
            random.Random(seed).shuffle(rows)
        return rows[:n]
    if sampling != "cot-exploration":
        raise ProblemError("unknown sampling", got=repr(sampling), expected="'permutation' or 'cot-exploration'")
    if n is None:
        raise ProblemError("cot-exploration sampling needs a number of problems", fix="give n")
    if seed is not None and seed != COT_EXPLORATION_SEED:
        raise ProblemError(
            "cot-exploration sampling has its own seed",
            got=f"seed={seed}",
            expected=f"none, or {COT_EXPLORATION_SEED}",
            fix="leave the seed out, or use sampling='permutation'",
        )
    return sorted(random.Random(COT_EXPLORATION_SEED).sample(range(size), n))


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


ANSWER_MARK = "####"


def problem_from_row(row: object, *, where: str, split: str, index: int) -> Problem:
    """A problem from a mapping with `question` and `answer`.

    Args:
        row: The row. `answer` is a number, the text of a number, or a solution that ends in `#### N`.
        where: The place in words, for errors: `problems.jsonl, line 3`.
        split: The split the problem belongs to.
        index: The row's place in its split, 0-based.

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
    gold = _gold(answer, where)
    solution = answer if isinstance(answer, str) and ANSWER_MARK in answer else ""
    return Problem(
        id=f"{split}_{index}",
        question=question,
        gold=gold,
        solution=solution,
        steps=steps_from(solution, question=question, gold=gold),
        split=split,
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


def _gold(answer: object, where: str) -> Fraction:
    number = as_number(answer.rpartition(ANSWER_MARK)[2] if isinstance(answer, str) else answer)
    if number is None:
        raise ProblemError(
            f"{where}: the field 'answer' holds no number",
            got=shown(answer),
            expected=f"a number, or a solution that ends in '{ANSWER_MARK} 42'",
        )
    return number


REPOSITORY, CONFIG = "openai/gsm8k", "main"

PARTS = {"test": ("test",), "train": ("train",), "all": ("test", "train"), "validation": ("train",)}
"""What each name of a split holds, in order."""
VALIDATION = 300
"""The last problems of train, which `validation` holds: for learning curves, and never trained on beside them."""


def gsm8k(split: str = "test") -> ProblemSet:
    """GSM8K's problems, with ids like `test_51` (split and row, 0-based).

    Args:
        split: `test` (1,319 problems), `train` (7,473), `all` (test, then train), or `validation` (the last 300 of
            train; training leaves out what it is validated on).

    Raises:
        ProblemError: There is no such split, or the data is neither cached nor reachable.
    """
    problems = [problem for part in PARTS[check_split(split)] for problem in _part(part)]
    if split == "validation":
        problems = problems[-VALIDATION:]
    return ProblemSet(tuple(problems), name=f"gsm8k:{split}")


def check_split(split: str) -> str:
    """The split, if there is one of this name.

    Raises:
        ProblemError: There is none.
    """
    if split not in PARTS:
        raise ProblemError(
            "there is no such split of GSM8K",
            got=repr(split),
            expected="gsm8k:test, gsm8k:train, gsm8k:validation or gsm8k:all",
            fix=None if (close := closest(split, PARTS)) is None else f"did you mean 'gsm8k:{close}'?",
        )
    return split


def _part(split: str) -> list[Problem]:
    # Here and not above: importing datasets takes seconds, and most commands never need it.
    import datasets

    try:
        rows = datasets.load_dataset(REPOSITORY, CONFIG, split=split)
    except Exception as error:  # whatever the hub, its cache or the network raises: it is the same news to the user
        raise ProblemError(
            f"GSM8K ({REPOSITORY}, {split}) could not be loaded",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            fix="connect once so that it is cached (HF_HOME; unset HF_HUB_OFFLINE), or pass a local file: "
            f"--problems path/to/{split}.jsonl with 'question' and 'answer' in every line",
        ) from error
    return [
        problem_from_row(row, where=f"{REPOSITORY} {split}, row {index}", split=split, index=index)
        for index, row in enumerate(rows)
    ]


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
            "gold": p.answer,
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


def problems_from_table(table: pd.DataFrame, name: str = "problems") -> ProblemSet:
    """The problems that `problem_table` wrote, with the same content hash.

    Raises:
        ProblemError: A column is missing, or a graph cannot be read.
    """
    needed = ["id", "split", "question", "gold", "graph"]
    if missing := [column for column in needed if column not in table]:
        raise ProblemError(f"the table of {name} lacks columns", got=f"no {', '.join(missing)}", expected=needed)
    columns = [*needed, *(extra for extra in ("solution", "template") if extra in table)]
    found = []
    for row in table[columns].astype(object).where(table[columns].notna(), None).to_dict("records"):
        found.append(
            Problem(
                id=row["id"],
                question=row["question"],
                gold=None if row["gold"] is None else parse_number(row["gold"]),
                solution=row.get("solution") or "",
                steps=read_graph(row["graph"], row["id"]),
                split=row["split"],
                template=row.get("template"),
            )
        )
    return ProblemSet(tuple(found), name)


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
