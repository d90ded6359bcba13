"""The command as a whole: version, help that fits a terminal, and how threads wait."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from thoughtgraft.cli.app import app


def verbs() -> list[list[str]]:
    """Every command, those of `run` included."""
    group = get_command(app)
    found = [[name] for name in group.commands if name != "run"]  # type: ignore[attr-defined]
    return [[], *found, *(["run", name] for name in group.commands["run"].commands)]  # type: ignore[attr-defined]


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"thoughtgraft {version('thoughtgraft')}\n"


@pytest.mark.parametrize("words", verbs(), ids=" ".join)
def test_help_fits_80_columns_and_cuts_nothing(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*words, "--help"])
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    # "models..." may be repeated; "word..." at a line's end was cut.
    assert "…" not in shown.stdout and not re.search(r"[^]]\.\.\.$", shown.stdout, re.MULTILINE)


def test_every_option_says_what_it_is() -> None:
    silent = []
    for words in verbs():
        command = get_command(app)
        for word in words:
            command = command.commands[word]  # type: ignore[attr-defined]
        silent += [f"{' '.join(words)} {p.name}" for p in command.params if not getattr(p, "help", None)]
    assert not silent


@pytest.mark.parametrize(("told", "wanted"), [({}, "10000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")])
def test_waiting_threads_give_way_unless_the_user_says_otherwise(told: dict[str, str], wanted: str) -> None:
    code = (
        "import atexit, os, sys; sys.argv = ['thoughtgraft', '--version'];"
        "atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules));"
        "from thoughtgraft.cli.app import main; main()"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    run = subprocess.run([sys.executable, "-c", code], env=clean | told, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == f"{wanted} False"
