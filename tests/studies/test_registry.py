"""A study is the same run from Python as from the command line; its options are one object at every door."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.studies.same import CIRCUMSTANCES, neutral
from typer.testing import CliRunner, Result

from thoughtgraft import load_model, load_problems, load_run, run_study
from thoughtgraft.cli.app import app
from thoughtgraft.errors import ModelError, PlanError
from thoughtgraft.studies.options import Options, stored_options
from thoughtgraft.studies.registry import STUDIES
from thoughtgraft.studies.resampling.design import ResamplingOptions
from thoughtgraft.studies.run import Run

SMALL: dict[str, Any] = {"hosts": 4, "donors": 2, "device": "cpu"}
FILES = (
    "certificate.json",
    "decision.json",
    "analysis/decision.json",
    "problems.parquet",
    "decoded.parquet",
    "analysis/positions.parquet",
    "report.md",
)


def type_in(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def typed(options: dict[str, Any]) -> list[str]:
    """Options as they are typed."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def both(folder: Path, verb: list[str], **more: Any) -> tuple[Path, Run]:
    """One study typed, and the same study from Python."""
    result = type_in(*verb, *typed(SMALL), "--out", folder / "typed" / "run")
    assert result.exit_code == 0, result.output
    called = run_study("resampling", out=folder / "called" / "run", progress=False, **SMALL, **more)
    return folder / "typed" / "run", called


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A pilot from both doors."""
    return both(tmp_path_factory.mktemp("twice"), ["run", "resampling"])


def test_python_makes_the_run_that_the_command_line_makes(twice: tuple[Path, Run]) -> None:
    same(*twice)


def test_python_makes_the_demo(tmp_path: Path) -> None:
    same(*both(tmp_path, ["demo"], preset="demo"))


def same(typed_in: Path, called: Run) -> None:
    """Run.json, certificate, records, decoded thoughts, verdicts and page are the same, times and command left out."""
    folders = (typed_in, called.path)
    specs = [json.loads((path / "run.json").read_text()) for path in folders]
    facts = [{k: v for k, v in spec.pop("provenance").items() if k not in CIRCUMSTANCES} for spec in specs]
    assert specs[0] == specs[1] and facts[0] == facts[1]
    assert specs[0]["options"] is not None and called.spec.run_id == load_run(typed_in).spec.run_id
    names = [sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()) for path in folders]
    assert names[0] == names[1] and set(FILES) <= set(names[0])
    for name in FILES:
        files = [path / name for path in folders]
        if name.endswith(".parquet"):
            pd.testing.assert_frame_equal(*map(pd.read_parquet, files))
        else:
            assert neutral(files[0].read_text()) == neutral(files[1].read_text()), name
    pd.testing.assert_frame_equal(load_run(typed_in).records(), called.records())
    assert called.pilot() == load_run(typed_in).pilot()


def test_a_run_says_what_it_was_asked_and_the_same_can_be_asked_again(twice: tuple[Path, Run]) -> None:
    typed_in, called = twice
    options = called.options
    assert isinstance(options, ResamplingOptions)
    assert (options.hosts, options.donors, options.batch_size) == (4, 2, "auto")
    assert stored_options(typed_in) == stored_options(typed_in / "run.json") == ("resampling", options.stored())
    again = run_study("resampling", out=called.path, progress=False, **options.stored())
    assert again.spec == called.spec, "the same command continues it"


@pytest.mark.parametrize("by", ["--like", "--config"])
def test_options_come_from_a_file_and_what_is_typed_wins(by: str, twice: tuple[Path, Run], tmp_path: Path) -> None:
    _, called = twice
    place = called.path / "run.json"
    if by == "--config":
        place = tmp_path / "study.toml"
        place.write_text('study = "resampling"\nhosts = 4\ndonors = 2\ndevice = "cpu"\nbeside = ["x"]\n')
        assert tomllib.loads(place.read_text())["hosts"] == 4
    words = ["run", by, place, "--donors", 3, "--dry-run", "--out", tmp_path / "o"]
    for asked in (words, ["run", "resampling", *words[1:]]):
        shown = type_in(*asked)
        assert shown.exit_code == 0, shown.output
        assert "4 hosts of arithmetic:test, 3 donors each, seed 0" in " ".join(shown.stdout.split())


def test_a_file_of_options_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    for text, told in (
        ("hots = 4", "unknown option; got 'hots'; expected"),
        ("hots = 4", "Fix: did you mean 'hosts'?"),
        ("hosts = 1", "the number of hosts is not usable; got 1; expected auto, or a number from 2 on"),
        ("donors = 0", "donors is not usable; got 0; expected at least 1"),
        ('donors = "many"', "donors is not usable; got 'many'; expected a whole number"),
        ("only_correct = 7", "only_correct is not usable; got 7"),
        ("seed = true", "seed is not usable; got True"),
        ("hosts = = 1", "study.toml cannot be read; got"),
        ('study = "erasure"', "holds options of another study; got erasure; expected resampling"),
    ):
        file.write_text(text)
        shown = type_in("run", "resampling", "--config", file, "--out", tmp_path / "o")
        assert shown.exit_code == 2 and told in " ".join(shown.stderr.split()), shown.output
    stored = Path(__file__).parents[1] / "stored" / "rule1-schema1"
    shown = type_in("run", "resampling", "--like", stored, "--out", tmp_path / "o")
    assert "does not say with which options it was begun; got an earlier run" in " ".join(shown.stderr.split())
    shown = type_in("run", "--config", file, "--out", tmp_path / "o")
    assert shown.exit_code == 2
    file.write_text("hosts = 4")
    assert "study.toml does not say which study" in type_in("run", "--config", file, "--out", tmp_path / "o").stderr


def test_python_refuses_what_the_command_line_refuses(tmp_path: Path) -> None:
    for options, told in (
        ({"hots": 3}, r"unknown option; got 'hots'.*did you mean 'hosts'"),
        ({"hosts": "auto"}, r"--hosts auto takes what a pilot asks for"),
        ({"hosts": 4, "donors": 9}, r"9 donors for each of 4 problems"),
        ({"workers": 2}, r"the local engine has no workers"),
        ({"preset": "huge"}, r"unknown preset; got 'huge'"),
    ):
        with pytest.raises(PlanError, match=told):
            run_study("resampling", out=tmp_path / "o", **options)
    with pytest.raises(PlanError, match=r"unknown study; got 'resampeling'.*did you mean 'resampling'"):
        run_study("resampeling", out=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_model_and_problems_at_hand_are_named_in_run_json(tmp_path: Path) -> None:
    model = load_model("tiny-codi", device="cpu", num_latents=2, prompt_suffix="")
    problems = load_problems("arithmetic:test", n=6)
    small = {"preset": "demo", "hosts": 4, "donors": 2, "certify": "off", "progress": False}
    found = run_study("resampling", model=model, problems=problems, out=tmp_path / "run", **small)
    assert (found.spec.num_latents, found.spec.plan["available_hosts"]) == (2, 2)
    asked = found.options
    assert isinstance(asked, ResamplingOptions)
    assert (asked.model, asked.num_latents, asked.prompt_suffix) == ("tiny-codi", 2, "")
    assert "run_study('resampling', out=" in found.spec.provenance["command"]
    with pytest.raises(PlanError, match=r"the model is loaded already; got num_latents for it\. Fix: load_model"):
        run_study("resampling", model=model, num_latents=3, out=tmp_path / "other", **small)
    with pytest.raises(PlanError, match=r"identity names the edits of a loaded model, and none is given; got 'mine'"):
        run_study("resampling", identity="mine", out=tmp_path / "other", **small)
    model.layers[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError, match="is not as it was loaded"):
        run_study("resampling", model=model, out=tmp_path / "other", **small)
    edited = run_study("resampling", model=model, identity="a hook", problems=problems, out=tmp_path / "other", **small)
    assert edited.spec.model.endswith(", edited: a hook")


def test_every_study_says_what_it_asks_and_every_option_what_it_is_for() -> None:
    for name, study in STUDIES.items():
        assert study.name == name and STUDIES.words[name].endswith(".")
        assert issubclass(study.Options, Options)
        assert all(field.description for field in study.Options.model_fields.values()), name
