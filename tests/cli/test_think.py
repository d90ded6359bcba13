"""`think`: the tokens of each thought, at every layer where asked, as a table and as JSON."""

from __future__ import annotations

import json

import pytest
from click.testing import Result
from typer.testing import CliRunner

from thoughtgraft.cli.app import app

QUESTION = "Tom has 3 bags of 4 apples. Tom buys 5 apples. How many apples does Tom have?"


def think(*words: str) -> Result:
    result = CliRunner().invoke(app, ["think", QUESTION, "--device", "cpu", *words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_the_lens_after_the_last_layer_is_that_of_the_thoughts() -> None:
    plain = json.loads(think("--json", "--top", "2").stdout)
    deep = json.loads(think("--json", "--top", "2", "--layers").stdout)
    assert len(plain["thoughts"]) == 6 and all(len(tokens) == 2 for tokens in plain["thoughts"])
    layers = sorted({state["layer"] for state in deep["thoughts"]})
    assert len(deep["thoughts"]) == 7 * len(layers)
    last = {state["position"]: state["tokens"] for state in deep["thoughts"] if state["layer"] == layers[-1]}
    for slot, tokens in enumerate(plain["thoughts"]):
        found = last["BOT" if slot == 0 else f"CT{slot - 1}"]
        assert [one["token"] for one in found] == [one["token"] for one in tokens]
        assert [one["prob"] for one in found] == pytest.approx([one["prob"] for one in tokens], abs=1e-3)
    assert plain["text"] == deep["text"] and plain["answer"] == deep["answer"]


@pytest.mark.parametrize(("words", "heads"), [((), "thought 1 2"), (("--layers",), "layer BOT CT0")])
def test_the_table_has_a_row_for_each_thought_or_layer(words: tuple[str, ...], heads: str) -> None:
    shown = " ".join(think("--top", "2", *words).stdout.replace("┃", " ").split())
    assert heads in shown and "the answer is" in shown
