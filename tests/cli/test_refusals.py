"""What the shell refuses: in one sentence, with exit code 2, without torch, and without leaving anything behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from thoughtgraft.cli import app as errors
from thoughtgraft.cli import read as runs_module
from thoughtgraft.cli.app import app
from thoughtgraft.engine.states import STORAGE
from thoughtgraft.engine.verify.suite import LEVELS
from thoughtgraft.models.lm import PACKAGED
from thoughtgraft.models.load import _DTYPES
from thoughtgraft.models.names import BASES, DTYPES
from thoughtgraft.probing.probes import PROBES
from thoughtgraft.studies import checks
from thoughtgraft.training.recipe import TINY

STORED = Path(__file__).parents[1] / "stored" / "rule1-schema1"

# Runs many commands in one process that has no torch, and says of each how it ended.
BLOCKED = """
    import json, sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"torch", "transformers"}:
                raise ImportError(f"{name} was imported before the options were checked")

    sys.meta_path.insert(0, Blocked())
    from typer.testing import CliRunner
    from thoughtgraft.cli.app import app

    for words in json.loads(sys.stdin.read()):
        result = CliRunner().invoke(app, words)
        error = None if isinstance(result.exception, SystemExit) else repr(result.exception)
        print(json.dumps([result.exit_code, result.stderr.strip(), error]))
"""


def without_torch(
    commands: list[list[str]], folder: Path, home: Path = Path("/nowhere")
) -> list[tuple[int, str, str | None]]:
    """Exit code, stderr and stray exception of each command, run in an empty folder."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BLOCKED)],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200", "HOME": str(home)},
        check=True,
    )
    return [tuple(json.loads(line)) for line in run.stdout.splitlines()]


REFUSED = {
    "rnu": "No such command 'rnu'. Did you mean 'run'? Fix: `thoughtgraft --help` says what there is.",
    "--bogus": "No such option: --bogus",
    "run resampeling --out o": "No such command 'resampeling'. Did you mean 'resampling'?",
    "demo --hots 3": "No such option: --hots",
    "demo --hosts": "'--hosts' requires an argument",
    "demo extra": "unexpected extra argument(s) (extra). Fix: put a text of several words in quotes; `",
    "demo --hosts 1": "--hosts is not usable; got '1'; expected at least 2. Fix: `thoughtgraft demo --help`",
    "demo --hosts=three": "--hosts is not usable; got 'three'; expected a whole number",
    "demo --hosts 4 --donors 9": "9 donors for each of 4 problems; expected 1..3",
    "demo --hosts 3000": "arithmetic:test does not hold so many problems",
    "demo --seed 99999999999999999999999999": "the seed is not usable; got 99999999999999999999999999",
    "demo --seed -1": "the seed is not usable; got -1; expected a whole number, 0..",
    "demo --device gpu": "unknown device; got 'gpu'; expected auto, cpu, cuda, cuda:N or mps. Fix: did you mean",
    "demo --engine Ray": "unknown engine; got 'Ray'; expected local, ray. Fix: did you mean 'ray'?",
    "demo --workers 2": "the local engine has no workers; got --workers",
    "demo --tracker wandbb": "unknown tracker; got 'wandbb'; expected none, wandb. Fix: did you mean 'wandb'?",
    "demo --certify maybe": "unknown choice for --certify; got 'maybe'; expected auto, full, off",
    "demo --out ''": "--out is empty; got ''. Fix: leave --out out, or look whether a shell's variable is set",
    "demo --out=": "--out is empty",
    "demo --out FILE": "is a file; expected a folder. Fix: choose another folder with --out",
    "demo --out FILE/below": "is a file; expected a folder",
    "demo --out FULL": "holds other things and no run; got note.txt",
    "run resampling": "Missing option '--out'",
    "run resampling --out o --preset Pilot": "unknown preset; got 'Pilot'; expected demo, pilot, full. Fix: did",
    "run resampling --out o --hosts 1": "the number of hosts is not usable; got '1'; expected auto, or a number from 2",
    "run resampling --out o --hosts auto": "--hosts auto takes what a pilot asks for. Fix: add --pilot RUN",
    "run resampling --out o --limit 0": "--limit is not usable; got '0'; expected at least 1",
    "run resampling --out o --donors 50": "50 donors for each of 20 problems; expected 1..19",
    "run resampling --out o --protocol offical": "unknown protocol; got 'offical'",
    "run resampling --out o --dtype float23": "unknown dtype; got 'float23'; expected float32, bfloat16, float16",
    "run resampling --out o --batch-size 0": "batch size is not usable; got '0'; expected auto or a number from 1",
    "run resampling --out o --num-latents 0": "--num-latents is not usable; got 0; expected a whole number, 1 or more",
    "run resampling --out o --lora-alpha 0": "--lora-alpha is not usable; got 0.0; expected a number above 0",
    "run resampling --out o --model tiny-cody": "no model at 'tiny-cody'; got a path that does not exist; expected",
    "run resampling --out o --model ''": "--model is empty",
    "run resampling --out o --base nothere": "no base model at 'nothere'",
    "run resampling --out o --tokenizer FILE": "the tokenizer FILE is a file; expected a folder or a hub id",
    "run resampling --out o --problems arithmetic:tset": "arithmetic has no split 'tset'",
    "run resampling --out o --problems gsm8k": "gsm8k needs a split; expected gsm8k:test",
    "run resampling --out o --problems gsm8k:dev": "gsm8k has no split 'dev'; expected gsm8k:test",
    "run resampling --out o --problems gsm8k:Test": "Fix: did you mean 'gsm8k:test'?",
    "run resampling --out o --problems ~/no.jsonl": "there is no file HOME/no.jsonl",
    "run resampling --out o --pilot nothere": "nothere is not a run; expected an existing folder",
    "run resampling --out o --ray-address auto": "the local engine has no workers; got --ray-address",
    "run operations --out o --mode Full": "unknown mode; got 'Full'; expected prototype, full, analysis_only. Fix: did",
    "run operations --out o --layers erly": "unknown layer; got 'erly'; expected early, middle, late, all. Fix: did",
    "run operations --out o --layers x": "Fix: numbers from 0, with commas between, do too",
    "run operations --out o --probes linear,forrest": "unknown probe; got 'forrest'",
    "run operations --out o --target colour": "no such label to read; got colour; expected operation, n_steps",
    "run operations --out o --data FILE": "--data and --labels are for existing features",
    "run operations --out o --mode analysis_only": "there is no run or file o",
    "run erasure nothere --out o": "nothere is not a run",
    "run erasure STORED --out o": "holds no features",
    "run erasure STORED --out o --slots CT2": "unknown slot; got 'CT2'; expected each. Fix: numbers from 0",
    "drift --out o --protocols official,offical": "unknown protocol; got 'offical'",
    "drift --out o --hosts 3 --donors 9": "9 donors for each of 3 problems",
    "status nothere": "nothere is not a run; expected an existing folder. Fix: give the folder that was given to --out",
    "status FILE --watch": "FILE is not a run; expected a folder with run.json",
    "analyze FULL": "is not a run; expected a folder with run.json",
    "report nothere": "nothere is not a run",
    "records nothere": "nothere is not a run",
    "records STORED --format xls": "unknown export format; got 'xls'; expected csv, parquet, jsonl",
    "compare STORED nothere": "nothere is not a run",
    "verify --level Full": "unknown level of certification; got 'Full'; expected core, full. Fix: did you mean 'full'?",
    "verify --cases nothere.json": "there is no file nothere.json",
    "verify --out nothere": "nothere is not a run",
    "doctor nothere": "no model at 'nothere'",
    "import nothere": "there is no file nothere",
    "evaluate --limit 5000": "arithmetic:test cannot give the number of problems asked for; got n=5000; expected 1..",
    "evaluate --card --num-latents 3": "a card holds accuracies from the trained number of thoughts",
    "evaluate --card --model FULL": "has no readable card.json",
    "zoo nothere": "nothere has no readable card.json",
    "zoo --out FILE": "is a file; expected a folder",
    "zoo --out o --donors 200": "200 donors for each of 100 problems",
    "zoo --out o tiny-codi FULL": "has no readable card.json",
    "problems nothere.json": "there is no file nothere.json",
    "problems FULL": "is a folder; expected a file",
    "problems --rule x": "unknown rule for operations; got 'x'; expected annotations, cot-exploration",
    "problems --label --out x.csv": "x.csv: labels cannot be written so; got '.csv'; expected .json or .parquet",
    "problems NESTED": "not usable JSON; got brackets in brackets without end",
    "problems DIGITS": "line 1: not usable JSON; got a number of more than 4,300 digits",
    "problems TWICE": "line 1: not usable JSON; got the field 'answer' twice in one object",
    "problems ZEROS": "not text in UTF-8; got a zero byte at character 0. Fix: save the file as UTF-8",
    "train --out o --method codii": "unknown method; got 'codii'",
    "train --out o --optim sgd": "--optim is not usable; got 'sgd'; expected 'adamw' or 'muon'",
    "train --out o --learning-rate nan": "--learning-rate is not usable; got nan; expected greater than 0",
    "train --out o --base nothere": "no base model at 'nothere'; got a path that does not exist; expected tiny, smol",
    "train --out o --validation x": "unknown problems; got 'x'",
    "train --out o --max-steps 0 --teacher-steps 0": "there is nothing to train",
    "train --out FILE": "is a file; expected a folder",
    "export FULL --out o": "is not an adapter; got no adapter.safetensors",
    "think ''": "there is no question to think about; got ''; expected a word problem. Fix: thoughtgraft think",
    "think '   '": "there is no question to think about; got '   '",
    "think 'a \udcff'": r"a word of the command cannot be read; got 'a \udcff'; expected text in UTF-8",
    "demo --out o\udcff": r"a word of the command cannot be read; got 'o\udcff'; expected text in UTF-8",
    f"run resampling --out o --batch-size {'9' * 5000}": "batch size is not usable; got '999",
    f"run resampling --out o --hosts {'9' * 5000}": "the number of hosts is not usable; got '999",
    f"run operations --out o --layers {'9' * 5000}": "unknown layer; got '999",
    "think 'a b' --top 0": "--top is not usable; got '0'; expected at least 1",
    "think 'a b' --num-latents -3": "--num-latents is not usable; got -3",
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file, a folder with something in it, files that are wrong in a known way, and a stored run."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "full").mkdir()
    (folder / "full" / "note.txt").write_text("mine")
    texts = {
        "FILE": ("file", b"text"),
        "NESTED": ("nested.json", b"[" * 200_000 + b"]" * 200_000),
        "DIGITS": ("digits.jsonl", b'{"question": "q?", "answer": ' + b"9" * 5_000 + b"}\n"),
        "TWICE": ("twice.jsonl", b'{"question": "q?", "answer": 1, "answer": 2}\n'),
        "ZEROS": ("zeros.jsonl", b"\0" * 100),
    }
    for name, content in texts.values():
        (folder / name).write_bytes(content)
    return {"FULL": folder / "full", "STORED": STORED, **{key: folder / name for key, (name, _) in texts.items()}}


def test_every_refusal_is_one_sentence_without_torch_that_leaves_nothing(
    places: dict[str, Path], tmp_path: Path
) -> None:
    home = places["FULL"].parent

    def filled(text: str) -> str:
        for name, place in places.items():
            text = re.sub(rf"\b{name}\b", str(place), text)
        return text.replace("HOME", str(home))

    found = without_torch([[filled(word) for word in shlex.split(line)] for line in REFUSED], tmp_path, home)
    wrong = []
    for (line, told), (code, stderr, error) in zip(REFUSED.items(), found, strict=True):
        if error or code != 2 or filled(told) not in stderr or len(stderr.splitlines()) != 1:
            wrong.append(f"{line}: exit {code}, {error or stderr}, not: {told}")
    assert not wrong, "\n".join(wrong)
    assert not list(tmp_path.iterdir()), "a refused command left something behind"


# ---- no option is forgotten --------------------------------------------------------------------------------------

FREE_TEXT = {"beside", "target", "prompt_suffix", "where", "question", "ray_address"}
"""Texts that can be anything until there is a model or a run to ask; --beside skips what is no run, with a note."""
CHECKED_LATER = {"optim"}
"""Refused by the training recipe, which is read before torch too."""
NEEDED = {
    "out": "o",
    "run": str(STORED),
    "run_a": str(STORED),
    "run_b": str(STORED),
    "question": "How many?",
    "checkpoint": "tiny-codi",
    "adapter": "adapter",
    "file": "f",
}
"""Sound values of what a command cannot be without."""


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command with its words."""
    group = get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if name == "run":
            yield from ((["run", study], found) for study, found in command.commands.items())
        else:
            yield [name], command


def textual(command: Any) -> Iterator[Any]:
    """The parameters of a command that take a text or a path."""
    hints = get_type_hints(command.callback)
    for parameter in command.params:
        kinds = {hints.get(parameter.name), *get_args(hints.get(parameter.name))}
        if kinds & {str, Path, list[str], list[Path]}:
            yield parameter


def test_every_option_that_takes_a_text_is_checked_before_torch(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a file")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter.safetensors").write_text("")
    lines, names = [], []
    for words, command in commands():
        required = {p.name: NEEDED[p.name] for p in command.params if p.required}
        for parameter in textual(command):
            if parameter.name in FREE_TEXT | CHECKED_LATER:
                continue
            # As a place it cannot be written, read or found, and it is nobody's name.
            values, typed = required | {parameter.name: "f/no such thing"}, []
            for other in command.params:
                if other.name in values:
                    flag = [] if other.param_type_name == "argument" else [other.opts[0]]
                    typed += [*flag, values[other.name]]
            lines.append([*words, *typed])
            names.append(f"{' '.join(words)} {parameter.name}")
    found = without_torch(lines, tmp_path)
    wrong = [
        f"{name}: exit {code}, {error or stderr}"
        for name, (code, stderr, error) in zip(names, found, strict=True)
        if error or code != 2 or not re.search(r"f/no such thing|\bf is a file", stderr)
    ]
    assert len(names) > 100 and not wrong, "\n".join(wrong)


def test_every_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "made").mkdir()
    for words, command in commands():
        hints = get_type_hints(command.callback, include_extras=True)
        for name, hint in hints.items():
            if Path in {*get_args(hint)} or any(Path in get_args(part) for part in get_args(hint)):
                check = get_args(hint)[-1].callback
                value = [Path("~/made")] if "list" in str(hint) else Path("~/made")
                try:
                    found = check(value)
                except Exception as error:
                    assert str(tmp_path / "made") in str(error), (words, name)
                else:
                    assert found in (tmp_path / "made", [tmp_path / "made"]), (words, name)


def test_names_that_are_repeated_for_speed_are_those_of_their_homes() -> None:
    assert (checks.PROBES, checks.LEVELS) == (PROBES, LEVELS)
    assert tuple(STORAGE) == checks.FEATURE_DTYPES and tuple(_DTYPES) == DTYPES
    assert (TINY, *PACKAGED) == BASES


# ---- the rest ----------------------------------------------------------------------------------------------------


def test_a_watch_waits_for_a_run_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, waits = tmp_path / "run", []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:  # first the folder, then what it is
            run.mkdir()
        elif len(waits) == 3:
            for file in STORED.iterdir():
                (run / file.name).symlink_to(file)

    monkeypatch.setattr(runs_module.time, "sleep", sleep)
    result = CliRunner().invoke(app, ["status", str(run), "--watch", "--json"])
    assert result.exit_code == 0, result.output
    assert result.stderr == f"waiting for a run in {run}; Ctrl-C ends this\n" and len(waits) == 3
    assert json.loads(result.stdout)["state"] == "finished"


def test_help_is_still_shown_where_nothing_was_asked_for() -> None:
    for words in ([], ["run"]):
        shown = CliRunner().invoke(app, words)
        assert shown.output.startswith("Usage: ") and "error:" not in shown.output


def test_an_empty_prompt_suffix_is_no_mistake() -> None:
    errors._refuse_unusable(["think", "x", "--prompt-suffix", "", "--prompt-suffix="])
