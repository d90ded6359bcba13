"""The house's rules, proved: imports run one way, reading needs no torch, files are small and say their job."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.architecture import (
    MAX_CROWDED,
    MAX_FUNCTION,
    MAX_LINES,
    MAX_LONG,
    MAX_PARAMETERS,
    MIN_LINES,
    PACKAGE,
    SRC,
    Import,
    crowded,
    cycles,
    functions,
    imports_of,
    internal,
    module_file,
    module_name,
    room_of_file,
    room_of_target,
    serving_one,
    source_files,
)

DOORS = {"errors", "arguments", "words", "files"}
ALL = {"*"}

# What each room may import besides itself. A room that is not here fails: add it on purpose.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "arguments": {"errors"},
    "words": set(),
    "files": {"errors", "arguments"},
    "signals": set(),
    "tensorfile": set(),
    "tasks": DOORS,
    "thoughts": {"tensorfile"} | DOORS,
    "records": {"edits"} | DOORS,
    "tracking": {"records"} | DOORS,
    "importing": {"tasks", "records"} | DOORS,
    "models": {"tensorfile"} | DOORS,
    "edits": {"tasks"} | DOORS,
    "engine": {"models", "edits", "thoughts", "tasks", "records"} | DOORS,
    "readouts": {"models", "thoughts", "tasks", "records"} | DOORS,
    "training": {"engine", "models", "tasks"} | DOORS,
    "stats": DOORS,
    "effects": {"edits", "stats", "records", "tasks"} | DOORS,
    "probing": {"stats", "records", "tasks"} | DOORS,
    "report": {"edits", "stats", "records"} | DOORS,
    "explorer": {"effects", "stats", "records"} | DOORS,
    "studies": ALL,
    "cli": ALL,
    "__init__": ALL,
    "__main__": ALL,
}

# What reads runs never reaches torch: whole rooms, and in a study every file but those that make its run.
READING_HALF = [
    "arguments",
    "errors",
    "words",
    "files",
    "tasks",
    "edits",
    "records",
    "stats",
    "effects",
    "probing",
    "report",
    "explorer",
]
PRODUCING_FILES = {"design.py", "measure.py"}
TORCH = {"torch", "transformers"}


def reading_files() -> list[Path]:
    """The files that a laptop without torch must be able to import."""
    files = [file for room in READING_HALF for file in source_files(room)]
    return files + [file for file in source_files("studies") if file.name not in PRODUCING_FILES]


def violations(file_imports: list[Import]) -> list[str]:
    """The imports of this package that the allow-list does not contain, each with what would be allowed."""
    found = []
    for item in internal(file_imports):
        room, target = room_of_file(item.file), room_of_target(item.target, ALLOWED)
        if room not in ALLOWED:
            found.append(f"{item}: the room '{room}' is not in the allow-list")
        elif ALLOWED[room] != ALL and target != room and target not in ALLOWED[room]:
            found.append(f"{item}: '{room}' may import {', '.join(sorted(ALLOWED[room])) or 'nothing of ours'}")
    return found


@pytest.mark.parametrize("file", source_files(), ids=lambda file: str(file.relative_to(SRC / PACKAGE)))
def test_imports_run_one_way(file):
    broken = violations(imports_of(file))
    assert not broken, "\n".join(broken)


def test_models_and_edits_never_meet():
    assert "edits" not in ALLOWED["models"]
    assert "models" not in ALLOWED["edits"]


def test_studies_and_the_rooms_under_them_know_no_command_line():
    broken = [str(i) for file in source_files("studies") for i in internal(imports_of(file)) if ".cli" in i.target]
    assert not broken, "a study is the same from Python: what it does is no part of a command\n" + "\n".join(broken)


def test_what_a_study_can_be_asked_is_said_without_arrays_tables_or_figures():
    code = (
        "import sys; from thoughtgraft.studies.registry import STUDIES; list(STUDIES.items());"
        "print(*[name for name in ('numpy', 'pandas', 'pyarrow', 'scipy', 'sklearn', 'matplotlib', 'torch')"
        " if name in sys.modules])"
    )
    environment = {"PYTHONPATH": str(SRC), "PATH": ""}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "", "import it where it is used: `thoughtgraft run STUDY --help` waits for it"


def test_no_files_import_each_other_in_a_circle():
    broken = [" -> ".join(name.removeprefix(f"{PACKAGE}.") for name in circle) for circle in cycles()]
    assert not broken, "\n".join(broken)


def test_torch_is_imported_only_where_it_may_be():
    may = {SRC / PACKAGE / "edits" / name for name in ("context.py", "edit.py", "known.py")}
    files = [file for file in reading_files() if file not in may]
    broken = [str(i) for file in files for i in imports_of(file) if i.target.split(".")[0] in TORCH]
    assert not broken, "\n".join(broken)


def test_the_reference_knows_nothing_of_the_fast_path():
    start = SRC / PACKAGE / "engine" / "reference.py"
    fast = {f"{PACKAGE}.{name}" for name in ("engine.rollout", "engine.batching", "models.attention")}
    broken, seen, todo = [], {start}, [start]
    while todo:
        for item in internal(imports_of(todo.pop())):
            file = module_file(item.target)
            if file is not None and module_name(file) in fast:
                broken.append(str(item))
            elif file is not None and file not in seen:
                seen.add(file)
                todo.append(file)
    assert not broken, "the reference reaches the fast path:\n" + "\n".join(broken)


BLOCKER = """
    import importlib, sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"torch", "transformers"}:
                raise ImportError(f"{name} is blocked: the reading half must not need it")

    sys.meta_path.insert(0, Blocked())
    failed = []
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed.append(f"importing {name}: {type(error).__name__}: {error}")
    sys.exit("\\n".join(failed) or 0)
"""


def test_the_reading_half_and_the_command_line_import_without_torch():
    names = [module_name(file) for file in reading_files()]
    names += [module_name(file) for file in source_files("cli") if file.stem == "app"]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BLOCKER), *names],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(SRC), "PATH": "", "MPLBACKEND": "Agg"},
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", source_files(), ids=lambda file: str(file.relative_to(SRC / PACKAGE)))
def test_files_are_small_and_say_their_job(file):
    text = file.read_text(encoding="utf-8")
    name = file.relative_to(SRC.parent)
    assert ast.get_docstring(ast.parse(text)), f"{name} has no module docstring: say its one job in the first line"
    lines = len(text.splitlines())
    assert lines <= MAX_LINES, f"{name} has {lines} lines, more than {MAX_LINES}: split it by job"


def test_no_small_file_serves_one_other_alone():
    broken = serving_one(MIN_LINES)
    assert not broken, "merge it into the one file that it serves:\n" + "\n".join(broken)


def test_functions_are_short_and_take_few_parameters():
    long = [str(f) for f in functions() if f.lines > MAX_FUNCTION]
    assert len(long) <= MAX_LONG, f"at most {MAX_LONG} may be over {MAX_FUNCTION} lines:\n" + "\n".join(long)
    many = "\n".join(map(str, crowded()))
    assert len(crowded()) <= MAX_CROWDED, f"at most {MAX_CROWDED} may take over {MAX_PARAMETERS} parameters:\n{many}"


@pytest.mark.parametrize(
    ("room", "line", "expected"),
    [
        ("models", "from thoughtgraft.edits.known import Swap", "edits"),
        ("edits", "import thoughtgraft.models.reasoner", "models"),
        ("tasks", "def f():\n    from thoughtgraft import records", "records"),
        ("records", "from ..tasks import load_problems", "tasks"),
        ("effects", "import importlib\nimportlib.import_module('thoughtgraft.engine.run')", "engine"),
        ("report", "from thoughtgraft import anything", "anything"),
    ],
)
def test_a_forbidden_import_is_caught_and_named(room, line, expected):
    broken = violations(imports_of(SRC / PACKAGE / room / "invented.py", line))
    assert len(broken) == 1, broken
    assert f"src/{PACKAGE}/{room}/invented.py:" in broken[0]
    assert expected in broken[0]
