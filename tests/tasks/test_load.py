"""Problems by name, from files and from the hub: reproducible choices, and errors that say where and how to fix."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import datasets
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from thoughtgraft.cli.problems import write_labels
from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks import load, sets, task
from thoughtgraft.tasks.files import problem_table, read_problems
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.labels import label_table
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.problem import ProblemSet

ROWS = [{"question": f"What is {i} and {i}?", "answer": f"<<{i}+{i}={2 * i}>>{2 * i}\n#### {2 * i}"} for i in range(30)]

ORIGIN_DRAW = [51, 54, 61, 65, 178, 191, 209, 228, 285, 447, 457, 476, 501, 563, 864, 1034, 1116, 1209, 1232, 1309]


def write(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "test.jsonl", ROWS)


@pytest.mark.parametrize("name", ["test.jsonl", "test.json", "test.parquet"])
def test_every_format_gives_the_same_problems(name, tmp_path, file):
    problems = load_problems(str(write(tmp_path / name, ROWS)))
    assert problems.content_hash == load_problems(str(file)).content_hash
    assert [p.id for p in problems][:2] == ["test_0", "test_1"]
    assert (problems[4].gold, problems[4].split, len(problems[4].steps)) == ("8", "test", 1)
    assert problems[4].solution == ROWS[4]["answer"]


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (42, 42),
        (0.1, Fraction(1, 10)),
        (1e20, 10**20),
        ("4,096", 4096),
        ("so #### 1 no #### 2", 2),
        ("#### $1,430", 1430),
    ],
)
def test_answers_may_be_numbers_or_text(answer, gold, tmp_path):
    (problem,) = read_problems(write(tmp_path / "a.jsonl", [{"question": "?", "answer": answer}]))
    assert problem.gold == NUMBER.canonical(gold)


def test_blank_lines_a_byte_order_mark_and_odd_line_ends_are_no_problem(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '\ufeff\n{"question": "a\u2028b", "answer": 1}\r\n\n{"question": "c", "answer": 2}', encoding="utf-8"
    )
    assert [p.id for p in read_problems(path)] == ["a_0", "a_1"]


GOOD = '{"question": "q", "answer": 1}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"question": "q", "ans', "{path}, line 2: not JSON; got Unterminated string starting at at column 19"),
        (GOOD + "\n[1, 2]", '{path}, line 3: not an object with fields; got [1, 2]; expected {{"question": ...'),
        (
            GOOD + '{"question": "q"}',
            "{path}, line 2: the field 'answer' is missing; got the fields 'question'; expected",
        ),
        (GOOD + '{"prompt": "q", "answer": 1}', "the field 'question' is missing; got the fields 'prompt', 'answer'"),
        (GOOD + '{"question": "  ", "answer": 1}', "{path}, line 2: the field 'question' holds no text; got '  '"),
        (GOOD + '{"question": 5, "answer": 1}', "{path}, line 2: the field 'question' holds no text; got 5"),
        (
            GOOD + '{"question": "q", "answer": "many"}',
            "{path}, line 2: the field 'answer' holds no number; got 'many'",
        ),
        (
            GOOD + '{"question": "q", "answer": null}',
            "the field 'answer' holds no number; got None; expected a number, or",
        ),
        (GOOD + '{"question": "q", "answer": true}', "the field 'answer' holds no number; got True"),
        (GOOD + '{"question": "q", "answer": NaN}', "the field 'answer' holds no number; got nan"),
        (
            GOOD + '{"question": "5 \\ud83d", "answer": 1}',
            "the question of problem 'bad_1' holds half a character; got '\\ud83d' at character 2; expected text",
        ),
        ("\n \n", "{path}: holds no problems. Fix: give a file with at least one question and answer."),
    ],
)
def test_a_bad_line_is_named_with_its_field(content, message, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ProblemError) as error:
        load_problems(str(path))
    assert message.format(path=path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"question": "q"}', "{path}: not a list of problems; got a JSON dict; expected"),
        (
            "a.json",
            b'[{"question": "q", "answer": 1}, {"question": "q"}]',
            "{path}, row 1: the field 'answer' is missing",
        ),
        ("a.json", b"[]", "{path}: holds no problems"),
        ("a.json", b'[\n{"question": "q"', "{path}: not JSON; got Expecting ',' delimiter at line 2, column 17"),
        ("a.jsonl", b'{"question": "\xff"}', "{path}: not text in UTF-8 (byte 14). Fix: save the file as UTF-8."),
        ("a.jsonl", '{"question": "q", "answer": 1}'.encode("utf-16"), "{path}: not text in UTF-8 (byte 0)"),
        (
            "a.jsonl",
            '{"question": "q"}'.encode("utf-16-le"),
            "{path}: not text in UTF-8; got a zero byte",
        ),
        ("a.json", '[{"question": "caf\u00e9"}]'.encode("latin-1"), "{path}: not text in UTF-8 (byte 18)"),
        ("a.jsonl", bytes(range(256)), "{path}: not text in UTF-8 (byte 128)"),
        ("a.json", b"[" * 200_000, "{path}: not usable JSON; got brackets in brackets without end"),
        (
            "a.json",
            b'[{"answer": ' + b"9" * 5_000 + b"}]",
            "{path}: not usable JSON; got a number of more",
        ),
        ("a.json", b'[{"answer": 1, "answer": 2}]', "{path}: not usable JSON; got the field 'answer' twice in one"),
        (
            "a.json",
            b'[{"question": "q", "answer": ' + b"9" * 400 + b"}]",
            "{path}, row 0: the field 'answer' holds",
        ),
        ("a.csv", b"question,answer", "{path}: not a file of problems; got '.csv'; expected .jsonl or .json or"),
        ("a.parquet", b"PAR1 cut off", "{path}: not a readable parquet file; got"),
    ],
)
def test_a_damaged_file_is_named(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ProblemError) as error:
        load_problems(str(path))
    assert message.format(path=path) in str(error.value)


def test_a_folder_is_no_file_and_endings_may_be_written_large(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(ProblemError, match=r"a\.jsonl is a folder; expected a file"):
        load_problems(tmp_path / "a.jsonl")
    (tmp_path / "B.JSONL").write_bytes(b'\xef\xbb\xbf{"question": "q", "answer": 1}\n')  # with the mark of some editors
    assert load_problems(tmp_path / "B.JSONL")[0].gold == "1"


@pytest.mark.parametrize("row", [{"id": None}, {"id": 3}, {"graph": 5}, {"graph": '[["#9", "+", "1", "2"]]'}])
def test_a_written_sample_that_was_changed_by_hand_is_refused(row, tmp_path):
    whole = {"id": "x", "split": "s", "question": "q", "gold": "1", "n_steps": 0, "graph": "[]", "answer": "1"}
    (tmp_path / "a.json").write_text(json.dumps([whole | row]))
    with pytest.raises(ProblemError, match=r"a problem needs an id|the steps of problem 'x' cannot be read|step 0"):
        load_problems(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("svamp", "unknown problems; got 'svamp'; expected "),
        ("gsm8k", "gsm8k needs a split; expected gsm8k:test, gsm8k:train, gsm8k:all, gsm8k:validation"),
        ("arithmetic:", "arithmetic has no split ''; expected arithmetic:train, arith"),
        (
            "gsm8k:dev",
            "gsm8k has no split 'dev'; expected gsm8k:test, gsm8k:train, gsm8k:all, gsm8k:validation.",
        ),
        (
            "nowhere.jsonl",
            "there is no file nowhere.jsonl. Fix: check the path; it is read from the current directory.",
        ),
    ],
)
def test_an_unknown_name_lists_what_there_is(spec, message):
    with pytest.raises(ProblemError) as error:
        load_problems(spec)
    assert message in str(error.value)


def test_n_must_fit(file):
    with pytest.raises(ProblemError) as error:
        load_problems(str(file), n=31)
    assert str(error.value) == (
        f"{file} cannot give the number of problems asked for; got n=31; expected 1..30. Fix: ask for at most 30."
    )
    for n in (0, -1):
        with pytest.raises(ProblemError, match="ask for at least one problem"):
            load_problems(str(file), n=n)


def test_a_seed_permutes_and_n_takes_the_first(file):
    spec = str(file)
    every = [p.id for p in load_problems(spec, seed=7)]
    assert sorted(every) == sorted(p.id for p in load_problems(spec))
    assert every != [p.id for p in load_problems(spec)]
    assert [p.id for p in load_problems(spec, n=5, seed=7)] == every[:5]
    assert [p.id for p in load_problems(spec, n=5)] == [f"test_{i}" for i in range(5)]
    # Fixed for good: a run that is continued on another Python must find the same problems.
    assert every[:5] == ["test_21", "test_5", "test_15", "test_29", "test_7"]


def test_the_origins_draw(gsm8k_dir):
    problems = load_problems(str(gsm8k_dir / "test.jsonl"), n=20, sampling="cot-exploration")
    assert [p.id for p in problems] == [f"test_{i}" for i in ORIGIN_DRAW]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "cot-exploration sampling needs a number of problems. Fix: give n."),
        ({"n": 3, "seed": 1}, "cot-exploration sampling has its own seed; got seed=1; expected none, or 42."),
    ],
)
def test_the_origins_draw_refuses_what_it_cannot_do(arguments, message, file):
    with pytest.raises(ProblemError) as error:
        load_problems(str(file), sampling="cot-exploration", **arguments)
    assert message in str(error.value)


def test_an_unknown_sampling_is_named(file):
    with pytest.raises(ProblemError, match="unknown sampling; got 'best'"):
        load_problems(str(file), n=3, sampling="best")


@pytest.fixture
def hub(monkeypatch):
    calls = []

    def load_dataset(repository, config, *, split):
        calls.append((repository, config, split))
        return ROWS[:3] if split == "test" else ROWS[3:5]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return SimpleNamespace(calls=calls)


def test_gsm8k_comes_from_the_hub(hub):
    problems = load_problems("gsm8k:all")
    assert hub.calls == [("openai/gsm8k", "main", "test"), ("openai/gsm8k", "main", "train")]
    assert [p.id for p in problems] == ["test_0", "test_1", "test_2", "train_0", "train_1"]
    assert problems.name == "gsm8k:all"
    assert len(load_problems("gsm8k:test")) == 3


def test_a_bad_hub_row_is_named(hub, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [ROWS[0], {"question": "q", "answer": "many"}])
    with pytest.raises(ProblemError, match="openai/gsm8k test, row 1: the field 'answer' holds no number; got 'many'"):
        load_problems("gsm8k:test")


def test_an_unreachable_hub_says_how_to_go_on(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ProblemError) as error:
        load_problems("gsm8k:test")
    assert str(error.value) == (
        "GSM8K (openai/gsm8k, test) could not be loaded; got ConnectionError: Couldn't reach 'openai/gsm8k' on the Hub"
        ". Fix: connect once so that it is cached (HF_HOME; unset HF_HUB_OFFLINE), or pass a local file: "
        "--problems path/to/test.jsonl with 'question' and 'answer' in every line."
    )


def test_arithmetic_is_the_test_split_unless_said():
    assert (
        load_problems("arithmetic", n=5, seed=1).content_hash
        == load_problems("arithmetic:test", n=5, seed=1).content_hash
    )


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_a_written_sample_is_read_as_it_was(suffix: str, tmp_path: Path) -> None:
    drawn = load_problems("arithmetic:validation", n=12, seed=3)
    path = tmp_path / f"sample{suffix}"
    write_labels(path, drawn, label_table(drawn))
    again = load_problems(str(path))
    assert [problem.id for problem in again] == [problem.id for problem in drawn]
    assert [problem.steps for problem in again] == [problem.steps for problem in drawn]
    assert again.content_hash == drawn.content_hash


@pytest.fixture
def given_sets(tmp_path, monkeypatch):
    """A folder whose files are data sets, too."""
    monkeypatch.setattr(sets, "__path__", [*sets.__path__, str(tmp_path)])
    monkeypatch.setattr(task, "tasks", task.tasks.__wrapped__)
    monkeypatch.setattr(load, "tasks", task.tasks)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("thoughtgraft.tasks.sets.zz")]:
        del sys.modules[name]


def test_a_new_data_set_is_one_file(given_sets):
    (given_sets / "zz_invented.py").write_text(
        "from thoughtgraft.tasks.files import problem_from_row\n"
        "from thoughtgraft.tasks.problem import ProblemSet\n"
        "from thoughtgraft.tasks.task import Task\n"
        "def invented(split):\n"
        "    row = {'question': '1 and 1?', 'answer': 2}\n"
        "    return ProblemSet([problem_from_row(row, where='', split=split, index=0)], f'invented:{split}')\n"
        "TASK = Task('invented', ('easy',), invented, default='easy')\n"
    )
    assert load_problems("invented").by_id("easy_0").gold == "2"
    with pytest.raises(ProblemError, match=r"invented has no split 'hard'; expected invented:easy\. Fix: "):
        load_problems("invented:hard")
    with pytest.raises(ProblemError, match=r"expected .*arithmetic.*invented\[:easy\].* or a"):
        load_problems("inventd:hard:hard")


def test_the_data_set_of_contributing_is_one_as_it_stands_there(given_sets):
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = page.split("## Add a data set")[1].split("```python\n")[1].split("```")[0]
    (given_sets / "zz_page.py").write_text(code)
    problems = load_problems("sums:test")
    assert len(problems) == 100
    assert problems.by_id("test_37").gold == "10"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("TASKS = 3", r"zz_bad defines no data set; expected TASK = Task"),
        (
            "from thoughtgraft.tasks.task import Task\nTASK = Task('arithmetic', ('a',), print)",
            r"zz_bad defines a data set that there is already; got 'arithmetic'",
        ),
    ],
)
def test_a_file_that_is_no_data_set_is_named(code, message, given_sets):
    (given_sets / "zz_bad.py").write_text(code)
    with pytest.raises(ProblemError, match=message):
        load_problems("arithmetic:test", n=2)


def test_what_stands_for_problems_in_python(file):
    rows = [{"question": f"{i} and 1?", "answer": i + 1} for i in range(3)]
    given = load_problems(rows)
    assert given == load_problems(pd.DataFrame(rows)) == load_problems(datasets.Dataset.from_list(rows))
    kept = load_problems(str(file))
    assert load_problems(problem_table(kept)) == ProblemSet(kept.problems, "given"), "with its ids and steps"
    with pytest.raises(ProblemError, match="row 1: the field 'answer' holds no number; got None"):
        load_problems(pd.DataFrame([*rows[:1], {"question": "?"}]))
    with pytest.raises(ProblemError, match="of data in splits, take one"):
        load_problems(datasets.DatasetDict(test=datasets.Dataset.from_list(rows)))
