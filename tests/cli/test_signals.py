"""SIGINT and SIGTERM: the first ends a command in good order with 130 or 143, a second one at once, others get back."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from thoughtgraft import signals
from thoughtgraft.cli.app import ErrorGroup

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
app = typer.Typer(cls=ErrorGroup, add_completion=False)


@pytest.fixture(autouse=True)
def interruptible():
    """Signals as a terminal's program has them: a background job, and what it starts, ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@app.command("run")
def at_once(number: int) -> None:
    send(number)
    time.sleep(60)


@app.command("report")
def not_continued(number: int) -> None:
    send(number)


@app.command("demo")
def in_order(number: int) -> None:
    with signals.current().held():
        send(number)
        send(number)  # At the same moment: an echo of the first.
        typer.echo(f"asked {signals.current().asked()}")
    typer.echo("not reached")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_command_ends_where_it_is_and_says_how_to_go_on(number, code, monkeypatch):
    words = ["/somewhere/thoughtgraft", "run", str(int(number)), "--out", "a folder"]
    monkeypatch.setattr(sys, "argv", words)
    before = signal.getsignal(number)
    result = CliRunner().invoke(app, ["run", str(int(number))])
    assert result.exit_code == code
    assert "What is finished is stored" in result.stderr
    assert shlex.join(["thoughtgraft", *words[1:]]) in result.stderr, "the same command, quoted for a shell"
    assert "Traceback" not in result.output
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_command_that_cannot_be_continued_promises_nothing(number, code):
    result = CliRunner().invoke(app, ["report", str(int(number))])
    assert (result.exit_code, result.stderr) == (code, "\ninterrupted.\n")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_waits_for_the_unit_in_progress(number, code, capfd):
    result = CliRunner().invoke(app, ["demo", str(int(number))])
    assert (result.exit_code, result.stdout) == (code, "asked True\n")
    assert "a second signal ends at once" in capfd.readouterr().err


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.listening() as interruption:
            send(signal.SIGINT)
            assert not interruption.asked()
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGTERM)
            assert interruption.exit_code == 143
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_signal_ends_at_once():
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from thoughtgraft.signals import ECHO_S, listening\n"
        "with listening() as interruption, interruption.held():\n"
        "    print('ready', flush=True)\n"
        "    while not interruption.asked(): time.sleep(0.01)\n"
        "    time.sleep(ECHO_S + 0.1)\n"
        "    print('asked', flush=True)\n"
        "    while True: time.sleep(1)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for said in ("ready\n", "asked\n"):
            assert process.stdout.readline() == said
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
