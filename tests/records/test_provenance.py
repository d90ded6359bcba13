"""Provenance names versions and the commit, imports nothing heavy, and gives nothing private away."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from thoughtgraft.records import spec as provenance_module
from thoughtgraft.records.spec import Meter, collect_provenance, source_state, without_home


def test_the_facts_are_there_and_nothing_private(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    facts = collect_provenance()
    assert facts["versions"]["pyarrow"]
    assert facts["started_utc"].endswith("+00:00")
    text = json.dumps(facts)
    for private in ("secretsecret", str(Path.home()) + "/", str(Path.cwd()), f'"{socket.gethostname()}"'):
        assert private not in text
    if getpass.getuser() not in ("root", "user"):
        assert getpass.getuser() not in text


def test_versions_are_read_without_importing_torch():
    code = "import sys, thoughtgraft.records.spec as p; p.collect_provenance(); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout == "False\n"


def test_git_is_optional(monkeypatch):
    def missing(*_args, **_kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance_module.subprocess, "run", missing)
    assert source_state() == {}


def test_somebody_elses_repository_says_nothing(monkeypatch):
    monkeypatch.setattr(provenance_module, "_git", lambda *_args: "/elsewhere")
    assert source_state() == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ana/sets/x.jsonl", "~/sets/x.jsonl"),
        ("thoughtgraft run --out=/home/ana/r --model '/home/ana/a b'", "thoughtgraft run --out=~/r --model '~/a b'"),
        ("/home/anabel/x", "/home/anabel/x"),
        ("/mnt/home/ana/x", "/mnt/home/ana/x"),
        ("gsm8k:test", "gsm8k:test"),
    ],
)
def test_the_home_folder_names_nobody(monkeypatch, text, shown):
    monkeypatch.setenv("HOME", "/home/ana")
    assert without_home(text) == shown
    monkeypatch.setenv("HOME", "/")
    assert without_home(text) == text


def test_the_meter_measures():
    facts = Meter().finish()
    assert facts["wall_s"] >= 0
    assert facts["cpu_s"] >= 0
    assert facts["peak_memory_mb"] > 10
