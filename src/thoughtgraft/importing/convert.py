"""CoT_Exploration's caches and results, read without running pickled code and converted to runs."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from thoughtgraft.arguments import answers_for_calls, parse_json, path_of
from thoughtgraft.errors import ForeignFileError
from thoughtgraft.files import make_folder, read_json, to_json, write_atomic
from thoughtgraft.tasks.files import problem_from_row, problem_table
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.problem import Problem, ProblemSet

if TYPE_CHECKING:
    import pandas as pd

IMPORT_FILE, FEATURES_FILE = "import.json", "features.safetensors"


@dataclass(frozen=True)
class Imported:
    """A foreign file in this project's conventions.

    Attributes:
        kind: What the file is, in words.
        summary: What was read, in one sentence.
        notes: How its numbering and content relate to this project's; for people.
        tables: Name -> table, each written as `{name}.parquet`. `problems` has a row per problem and its labels.
        features: float32 [n, P, d] or [n, P, L, d] (problems, positions, layers, width); None where there are none.
        name: What the array is called: `hidden` (final-normed states) or `resid` (residual stream).
        positions: Names of the P latent positions: BOT, then CTk, the position that consumes `fed[k]`.
        layers: The L blocks after which the residual stream was taken, 0-based; empty for `hidden`.
    """

    kind: str
    summary: str
    notes: tuple[str, ...]
    tables: dict[str, pd.DataFrame]
    features: np.ndarray | None = None
    name: str = "hidden"
    positions: tuple[str, ...] = ()
    layers: tuple[int, ...] = field(default=())

    def write(self, folder: Path, source: Path) -> list[Path]:
        """Write everything into a folder: tables, features for the probes, and where they came from.

        Args:
            folder: Made if it does not exist.
            source: The foreign file; its name and hash are kept.

        Returns:
            The files written.

        Raises:
            ForeignFileError: The folder holds something else.
            RunError: It cannot be written.
        """
        facts = {"source": source.name, "sha256": _hash(source), "kind": self.kind, "notes": list(self.notes)}
        _check_free(folder, facts)
        make_folder(folder)
        files: dict[str, bytes] = {}
        for name, table in self.tables.items():
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            files[f"{name}.parquet"] = buffer.getvalue()
        if self.features is not None:
            files[FEATURES_FILE] = save({self.name: np.ascontiguousarray(self.features)}, self._metadata())
        files[IMPORT_FILE] = to_json(facts, IMPORT_FILE)  # last: it says that the rest is whole
        for name, data in files.items():
            write_atomic(folder / name, data)
        return [folder / name for name in files]

    def _metadata(self) -> dict[str, str]:
        ids = [str(one) for one in self.tables["problems"]["id"]]
        axes: dict[str, Any] = {"ids": ids, "positions": list(self.positions)}
        if self.layers:
            axes["layers"] = list(self.layers)
        return {name: json.dumps(value) for name, value in axes.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_free(folder: Path, facts: dict[str, Any]) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    earlier = read_json(folder / IMPORT_FILE) if (folder / IMPORT_FILE).is_file() else {}
    if not isinstance(earlier, dict) or earlier.get("sha256") != facts["sha256"]:
        raise ForeignFileError(
            f"{folder} holds something else", expected="a new folder", fix="choose another folder with --out"
        )


_MOST_JSON = 2 << 30  # the largest known file, thoughts of 600 problems, has about 0.5 GB
KNOWN = (
    "ct_hidden_states_cache_*.pkl (hidden states); resampling_*_results.json (results); a JSON list of problems with "
    "thoughts at early, middle and late layers; all as CoT_Exploration writes them"
)


@answers_for_calls(ForeignFileError)
def read_foreign(path: str | Path) -> Imported:
    """Read a file of another codebase and convert it; `.write(folder, path)` keeps what was found.

    Args:
        path: A cache (`.pkl`), results or thoughts (`.json`) of CoT_Exploration. Nothing in a pickle is executed.

    Raises:
        ForeignFileError: It is missing, damaged, hostile, or in a layout that is not known.
    """
    path = path_of(path, "the file to import", ForeignFileError)
    if not path.is_file():
        raise ForeignFileError(f"there is no file {path}", fix="check the path; it is read from the current directory")
    if path.suffix == ".json":
        content = _read_json(path)
        if isinstance(content, dict) and isinstance(content.get("results"), dict):
            return from_results(content, path)
        if isinstance(content, list) and content and isinstance(content[0], dict) and "thoughts" in content[0]:
            return from_thoughts(content, path)
        keys = list(content)[:6] if isinstance(content, dict) else type(content).__name__
        raise ForeignFileError(f"{path} has a layout that is not known", got=f"{keys}"[:160], expected=KNOWN)
    if path.suffix in (".pkl", ".pickle"):
        from thoughtgraft.importing.pickles import read_pickle

        return from_cache(read_pickle(path), path)
    raise ForeignFileError(f"{path} is no file that can be imported", got=repr(path.suffix), expected=KNOWN)


def _read_json(path: Path) -> Any:
    if path.stat().st_size > _MOST_JSON:
        raise ForeignFileError(f"{path} is too large to read at once", got=f"{path.stat().st_size:,} bytes")
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ForeignFileError(f"{path} is not readable JSON", got=what, fix="copy it again") from error


_CACHE = ("idx", "question", "answer", "gold_numeric", "ct_hidden_states", "baseline_prediction", "baseline_correct")
_RESULT = ("problem_a_idx", "baseline_correct", "swapped_correct")
# Its layer numbers index Hugging Face's hidden_states, whose 0 is the embedding: n is the stream after block n - 1.
_KINDS: Mapping[str, type] = {
    "idx": int,
    "question": str,
    "answer": str,
    "id": str,
    "operation_type": str,
    "thoughts": dict,
    "ct_hidden_states": np.ndarray,
    "baseline_prediction": str,
    "baseline_correct": bool,
    "problem_a_idx": int,
    "swapped_correct": list,
}
_LAYERS = {"early": 4, "middle": 8, "late": 14}
_FIVE = (
    "Its models ran on BOT and five thoughts, because BOT was fed as step 0: its answers are not those of the official "
    "six, and the last state, hidden[5], never reached them."
)


def from_cache(content: object, path: Path) -> Imported:
    """A cache of hidden states, `ct_hidden_states_cache_*.pkl`.

    Raises:
        ForeignFileError: It has another layout.
    """
    if not isinstance(content, dict) or not content:
        raise _layout(path, type(content).__name__, "a dict of problems")
    rows = [_fields(row, _CACHE, f"{path}, entry {key}") for key, row in content.items()]
    states = [row["ct_hidden_states"] for row in rows]
    if not all(
        isinstance(state, np.ndarray) and state.ndim == 2 and state.shape == states[0].shape for state in states
    ):
        raise _layout(path, "states of different shapes", "ct_hidden_states of [K, d] in every entry")
    problems = [
        problem_from_row(
            {"question": row["question"], "answer": row["answer"]},
            where=f"{path}, entry {key}",
            split="test",
            index=row["idx"],
        )
        for key, row in zip(content, rows, strict=True)
    ]
    texts = [row["baseline_prediction"] for row in rows]
    correct = [row["baseline_correct"] for row in rows]
    ours = [NUMBER.same(NUMBER.parse(text), problem.gold) for text, problem in zip(texts, problems, strict=True)]
    table = _table(problems, rows, path).assign(
        baseline_prediction=texts, baseline_correct=correct, baseline_correct_exact=ours
    )
    features = np.stack(states)
    k = features.shape[1]
    other = sum(a != b for a, b in zip(correct, ours, strict=True))
    return Imported(
        kind="CoT_Exploration cache of hidden states",
        summary=f"{len(rows)} problems, hidden[0..{k - 1}] of width {features.shape[2]}, {sum(correct)} correct by its "
        f"own grading ({f'{other} graded otherwise' if other else 'the same'} by exact comparison)",
        notes=(
            f"Its cache[k] is hidden[k], k = 0..{k - 1}: the final-normed state from which fed[k] = prj(hidden[k]) is "
            "made. Nothing was renumbered.",
            "hidden[0] comes from position BOT, hidden[k+1] from position CTk, which consumes fed[k].",
            "fed is not in the file: it takes the prj of the model that made it. Swaps need a model; probes do not.",
            "What it calls swapping CTk puts the donor's fed[k] where the host is fed fed[k-1] (CT0: in the place of "
            "BOT itself), so swapping with oneself is not neutral there.",
            _FIVE,
            "It gave questions to the tokenizer as they are; the official code makes two spaces one first, so states "
            "of questions with two spaces in a row differ from the official ones.",
            "Problem ids take its idx as the row of GSM8K's test split.",
        ),
        tables={"problems": table},
        features=features,
        positions=_positions(k),
    )


def from_thoughts(content: Sequence[Any], path: Path) -> Imported:
    """Thoughts at three layers, as its operation-circuits experiment writes them.

    Raises:
        ForeignFileError: It has another layout.
    """
    needed = ("id", "question", "answer", "thoughts", "operation_type")
    rows = [_fields(row, needed, f"{path}, entry {place}") for place, row in enumerate(content)]
    names = list(rows[0]["thoughts"])
    if not names or not set(names) <= set(_LAYERS):
        raise _layout(path, f"layers {names}"[:120], f"layers named {', '.join(_LAYERS)}")
    problems: list[Problem] = []
    features: list[np.ndarray] = []
    for place, row in enumerate(rows):
        where = f"{path}, entry {place}"
        split, _, index = row["id"].rpartition("_")
        if not split or not index.isdecimal():
            raise _layout(where, f"id {row['id']!r}"[:120], "an id such as train_7075")
        problems.append(problem_from_row(row, where=where, split=split, index=int(index)))
        try:
            one = np.array([row["thoughts"][name] for name in names], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise _layout(where, str(error)[:120], "the same layers of numbers in every entry") from error
        if one.ndim != 3 or (features and one.shape != features[0].shape):
            raise _layout(where, f"thoughts {one.shape}", "layer -> K lists of d numbers")
        features.append(one)
    stacked = np.stack(features).transpose(0, 2, 1, 3)
    layers = tuple(_LAYERS[name] - 1 for name in names)
    kinds = [row["operation_type"] for row in rows]
    return Imported(
        kind="CoT_Exploration thoughts by layer",
        summary=f"{len(rows)} problems, resid at {stacked.shape[1]} positions after blocks "
        f"{', '.join(map(str, layers))} (0-based), width {stacked.shape[3]}",
        notes=(
            "Its token t is position t here: token 0 is BOT, token t the position that consumes fed[t-1].",
            f"Its layers {', '.join(f'{name} ({_LAYERS[name]})' for name in names)} count the embedding as 0: the "
            "residual stream after one block fewer.",
            _FIVE,
        ),
        tables={"problems": _table(problems, rows, path).assign(operation_type=kinds)},
        features=stacked,
        name="resid",
        positions=_positions(stacked.shape[1]),
        layers=layers,
    )


def from_results(content: Mapping[str, Any], path: Path) -> Imported:
    """Results of its resampling experiment, `resampling_*_results.json`: one row per generation.

    Raises:
        ForeignFileError: It has another layout.
    """
    import pandas as pd

    found = []
    for position, result in content["results"].items():
        inner = result.get("per_problem_results") if isinstance(result, dict) else None
        if not isinstance(inner, list) or not str(position).startswith("CT"):
            raise _layout(path, f"results.{position}"[:120], "CT0.. with per_problem_results")
        for place, one in enumerate(inner):
            row = _fields(one, _RESULT, f"{path}, {position}, entry {place}")
            found += [
                (str(position), row["problem_a_idx"], row["baseline_correct"], draw, bool(correct))
                for draw, correct in enumerate(row["swapped_correct"])
            ]
    if not found:
        raise _layout(path, "no generations", "per_problem_results with swapped_correct")
    table = pd.DataFrame(found, columns=["its_position", "host", "baseline_correct", "draw", "correct"])
    return Imported(
        kind="CoT_Exploration resampling results",
        summary=f"{len(table):,} generations: {table.host.nunique()} hosts, "
        f"{table.its_position.nunique()} positions, {int(table.draw.max()) + 1} draws each",
        notes=(
            "its_position CTk is not slot k: its corrected procedure puts the donor's fed[k] where the host is fed "
            "fed[k-1] (CT0: in the place of BOT); its first procedure, published as buggy, was aligned, and there CT5 "
            "is never consumed. The file does not say which procedure made it.",
            "Donors and texts are not in the file, so neither adoption nor donor-level intervals can be computed, and "
            "nothing can be graded again: these rows are no records of this project and enter no test here.",
            "host is the number of the problem in its cache; draws of different positions are of different donors.",
            _FIVE,
        ),
        tables={"generations": table},
    )


def _positions(count: int) -> tuple[str, ...]:
    return ("BOT", *(f"CT{k}" for k in range(count - 1)))


def _table(problems: Sequence[Problem], rows: Sequence[Mapping[str, Any]], path: Path) -> pd.DataFrame:
    checked = ProblemSet(tuple(problems), str(path))  # ids are unique, or this raises
    return problem_table(checked).assign(answer=[str(row["answer"]) for row in rows])


def _fields(row: object, names: Sequence[str], where: str) -> Mapping[str, Any]:
    missing = [name for name in names if not isinstance(row, Mapping) or name not in row]
    if missing or not isinstance(row, Mapping):
        raise _layout(where, f"no {', '.join(missing)}", f"the fields {', '.join(names)}")
    for name in names:
        kind = _KINDS.get(name, object)
        if not isinstance(row[name], kind):
            raise _layout(where, f"{name} is a {type(row[name]).__name__}", f"a {getattr(kind, '__name__', kind)}")
    return row


def _layout(where: object, got: str, expected: str) -> ForeignFileError:
    return ForeignFileError(f"{where} has a layout that is not known", got=got, expected=expected)
