"""What the README shows is what works."""

from __future__ import annotations

import json
import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_python_examples_run(capsys):
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert len(names["records"]) == 50 * (1 + 6 * 5)
    assert "swap" in capsys.readouterr().out


def test_every_command_it_names_exists():
    from typer.main import get_command

    from thoughtgraft.cli.app import app

    named = set(re.findall(r"thoughtgraft ([a-z]+)", README)) - {"import"}
    assert {"demo", "think", "run", "status", "analyze", "verify", "evaluate", "problems", "train"} <= named
    assert named <= set(get_command(app).commands)


def test_every_file_it_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_example_runs(capsys):
    exec((ROOT / "examples" / "graft_one_thought.py").read_text(), {})
    assert "answer with the donor's" in capsys.readouterr().out


def test_the_notebook_runs_and_shows_no_machine(capsys):
    text = (ROOT / "examples" / "tour.ipynb").read_text()
    names: dict[str, object] = {}
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"], "stored as it was run"
            exec("".join(cell["source"]), names)
    assert re.search(r"certificate passed: (\d+) of \1 checks", capsys.readouterr().out)
    assert not re.search(r"/(home|work|tmp|root)/", text)


def test_files_that_pages_and_docstrings_name_are_there():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    named = {
        (page.name, name)
        for page in [*pages, *(ROOT / "src").rglob("*.py")]
        for name in re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    theirs = {("assembly.py", "src/model.py")}  # a file of CODI's official code
    places = (ROOT / "src" / "thoughtgraft", ROOT)
    assert not [pair for pair in named - theirs if not any((place / pair[1]).is_file() for place in places)]
