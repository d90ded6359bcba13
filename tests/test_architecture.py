"""The house's rules, proved: imports run one way, reading needs no torch, files are small and say their job."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap

import pytest

from tests.architecture import (
    PACKAGE,
    SRC,
    Import,
    imports_of,
    internal,
    module_file,
    module_name,
    room_of_file,
    room_of_target,
    source_files,
)

DOORS = {"errors", "arguments"}
LEAVES = {"axes", "tensorfile"} | DOORS
ALL = {"*"}

# What each room may import besides itself. A room that is not here fails: add it on purpose.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "arguments": {"errors"},
    "axes": set(),
    "tensorfile": set(),
    "problems": DOORS,
    "records": DOORS,
    "tracking": {"records"} | DOORS,
    "thoughts": LEAVES,
    "importing": {"problems", "records"} | LEAVES,
    "models": LEAVES,
    "interventions": {"problems", "thoughts"} | LEAVES,
    "engine": {"models", "interventions", "thoughts", "problems", "records"} | LEAVES,
    "readouts": {"models", "thoughts", "problems", "records"} | LEAVES,
    "training": {"models", "problems"} | LEAVES,
    "analysis": {"records", "problems"} | DOORS,
    "report": {"analysis", "records"} | DOORS,
    "explorer": {"analysis", "records"} | DOORS,
    "studies": {"problems", "interventions", "analysis", "report", "records", "runs"} | DOORS,
    "runs": {"report", "analysis", "records", "problems", "thoughts"} | DOORS,
    "cli": ALL,
    "__init__": ALL,
    "__main__": ALL,
}

READING_HALF = ["arguments", "problems", "records", "analysis", "report", "explorer", "studies", "runs"]
TORCH = {"torch", "transformers"}
MAX_LINES = 400


def violations(file_imports: list[Import]) -> list[str]:
    """The imports of this package that the allow-list does not contain, each with what would be allowed."""
    found = []
    for item in internal(file_imports):
        room, target = room_of_file(item.file), room_of_target(item.target, ALLOWED)
        if room not in ALLOWED:
            found.append(f"{item}: the room '{room}' is not in the allow-list")
        elif ALLOWED[room] != ALL and target != room and target not in ALLOWED[room]:
            found.append(f"{item}: '{room}' may import {', '.join(sorted(ALLOWED[room])) or 'nothing of ours'}")
        elif room == "studies" and f"{item.target}.".startswith(f"{PACKAGE}.interventions.ops."):
            found.append(f"{item}: a study names operations, it never imports them")
    return found


@pytest.mark.parametrize("file", source_files(), ids=lambda file: str(file.relative_to(SRC / PACKAGE)))
def test_imports_run_one_way(file):
    broken = violations(imports_of(file))
    assert not broken, "\n".join(broken)


def test_models_and_interventions_never_meet():
    assert "interventions" not in ALLOWED["models"]
    assert "models" not in ALLOWED["interventions"]


@pytest.mark.parametrize("room", [room for room in [*READING_HALF, "interventions"] if source_files(room)])
def test_torch_is_imported_only_where_it_may_be(room):
    may = {SRC / PACKAGE / "interventions" / "ops.py"}
    files = [file for file in source_files(room) if file not in may]
    broken = [str(i) for file in files for i in imports_of(file) if i.target.split(".")[0] in TORCH]
    assert not broken, "\n".join(broken)


def test_the_reference_knows_nothing_of_the_fast_path():
    start = SRC / PACKAGE / "engine" / "reference.py"
    if not start.is_file():
        pytest.skip("engine/reference.py does not exist yet")
    fast = {f"{PACKAGE}.engine.rollout", f"{PACKAGE}.engine.batching", f"{PACKAGE}.models.prefix"}
    fast |= {f"{PACKAGE}.engine.prefix"}
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
    names = [module_name(file) for room in READING_HALF for file in source_files(room)]
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


@pytest.mark.parametrize(
    ("room", "line", "expected"),
    [
        ("models", "from thoughtgraft.edits.edit import swap", "interventions"),
        ("interventions", "import thoughtgraft.models.reasoner", "models"),
        ("problems", "def f():\n    from thoughtgraft import records", "records"),
        ("records", "from ..problems import load_problems", "problems"),
        ("analysis", "import importlib\nimportlib.import_module('thoughtgraft.engine.run')", "engine"),
        ("studies", "from thoughtgraft.interventions import ops", "never imports them"),
        ("report", "from thoughtgraft import anything", "anything"),
    ],
)
def test_a_forbidden_import_is_caught_and_named(room, line, expected):
    broken = violations(imports_of(SRC / PACKAGE / room / "invented.py", line))
    assert len(broken) == 1, broken
    assert f"src/{PACKAGE}/{room}/invented.py:" in broken[0]
    assert expected in broken[0]
