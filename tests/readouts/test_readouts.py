"""The lens reads `hidden[k]` through the unembedding; unseen words are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.tiny import loaded, questions

from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.states import collect_states
from thoughtgraft.errors import ModelError
from thoughtgraft.models.load import load_model
from thoughtgraft.readouts import kinds
from thoughtgraft.readouts import readout as readout_module
from thoughtgraft.readouts.readout import Readout, decode_thoughts, find_readout, token_text
from thoughtgraft.readouts.vocabulary import unseen_words
from thoughtgraft.records.states import States
from thoughtgraft.tasks.problem import Problem, ProblemSet


def test_rank_0_is_the_argmax_of_each_hidden_state():
    model = loaded("codi-gpt2", "float64")
    problems = ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions("codi-gpt2")[:3])))
    thoughts = collect_thoughts(model, problems, max_new_tokens=2, progress=False)
    table = decode_thoughts(model, thoughts, top=4)
    assert len(table) == 3 * 6 * 4
    first = table[table["rank"] == 0]["token"].tolist()
    best = model.unembed(thoughts.hidden[:, :6].flatten(0, 1)).argmax(-1).tolist()
    assert first == [token_text(model, t) for t in best]
    assert (table.groupby(["problem_id", "slot"])["prob"].sum() <= 1 + 1e-6).all()
    assert table.groupby(["problem_id", "slot"])["prob"].apply(lambda p: p.is_monotonic_decreasing).all()


def test_rows_outside_the_tokenizer_have_names():
    model = loaded("codi-gpt2", "float64")
    names = [token_text(model, t) for t in (model.pad_id, model.checkpoint.bot_id, model.end_of_thought)]
    assert names == ["<pad>", "<begin-of-thought>", "<end-of-thought>"]


def test_words_that_the_embedded_model_has_never_seen_are_named():
    model = load_model("tiny-codi", device="cpu")
    assert unseen_words(model, "Tom has 3 zebras and 31 apples.") == ["zebras", "31"]
    assert unseen_words(model, "TOM has 30 Apples.") == []
    assert isinstance(model.lm.dtype, torch.dtype)


def test_the_lens_after_the_last_block_is_that_of_the_thoughts():
    model = loaded("codi-llama", "float32")
    problems = ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions("codi-llama")[:3])))
    thoughts = decode_thoughts(model, collect_thoughts(model, problems, max_new_tokens=2, progress=False), top=3)
    states = collect_states(model, problems, progress=False)
    last = len(model.layers) - 1
    table = decode_thoughts(model, states, top=3)
    assert list(table.columns) == ["problem_id", "position", "layer", "rank", "token", "prob"]
    assert len(table) == 3 * 7 * len(model.layers) * 3
    final = table[(table.layer == last) & (table.position != "CT5")]  # hidden[6] is never fed, so it is no thought
    assert final.token.tolist() == thoughts.token.tolist()
    assert final.prob.tolist() == pytest.approx(thoughts.prob.tolist(), abs=1e-6)
    assert final.position.map({"BOT": 0} | {f"CT{k}": k + 1 for k in range(5)}).tolist() == thoughts.slot.tolist()
    first = decode_thoughts(model, states, top=1, layers=[0])
    state = torch.from_numpy(states.matrix(0, "CT2")[1])
    best = model.unembed(model.final_norm(state)).argmax().item()
    said = first[(first.problem_id == "1") & (first.position == "CT2")]
    assert said.token.item() == token_text(model, best)


def test_layers_that_there_are_not_are_refused():
    model = loaded("codi-gpt2", "float32")
    problems = ProblemSet([Problem("a", questions("codi-gpt2")[0], None)])
    states = collect_states(model, problems, layers=[1], progress=False)
    with pytest.raises(ModelError, match=r"the states hold no layer 0; expected some of \[1\]"):
        decode_thoughts(model, states, layers=[0])
    thoughts = collect_thoughts(model, problems, max_new_tokens=1, progress=False)
    with pytest.raises(ModelError, match=r"final states and have no layers; got layers=\[0\].*collect_states\(model"):
        decode_thoughts(model, thoughts, layers=[0])
    narrow = States.of(np.zeros((1, 1, 1, 3)), ["a"], [0], ["BOT"])
    with pytest.raises(ModelError, match=r"the states are not of .*; got width 3; expected width"):
        decode_thoughts(model, narrow)


def test_a_strangers_readout_is_one_file(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = page.split("## Add a readout")[1].split("```python\n")[1].split("```")[0]
    (tmp_path / "nearest.py").write_text(code)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    monkeypatch.setattr(readout_module, "NAMES", ("lens", "nearest"))
    model = loaded("codi-gpt2", "float32")
    states = model.lm.get_input_embeddings().weight[[3, 5]].detach()
    assert find_readout("nearest").logits(model, states, None).argmax(-1).tolist() == [3, 5]
    problems = ProblemSet((Problem("0", questions("codi-gpt2")[0], None),))
    thoughts = collect_thoughts(model, problems, max_new_tokens=2, progress=False)
    assert len(decode_thoughts(model, thoughts, top=2, readout="nearest")) == 12


def test_a_readout_that_there_is_not_is_named_with_the_close_one():
    with pytest.raises(ModelError, match=r"unknown readout; got 'lense'; expected .*lens.* Fix: did you mean 'lens'\?"):
        find_readout("lense")


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (lambda states: states, r"a readout gives a logit for each token; got \[6, \d+\]; expected \[6, \d+\]"),
        (lambda states: states.new_full((len(states), 106), float("nan")), r"a readout gave NaN"),
    ],
)
def test_what_a_readout_gives_is_checked(logits, message, monkeypatch):
    class Wrong(Readout):
        words = "wrongly"

        def logits(self, model, states, layer):
            return logits(states)

    model = loaded("codi-gpt2", "float32")
    monkeypatch.setattr(readout_module, "find_readout", lambda name: Wrong())
    asked = ProblemSet((Problem("0", questions("codi-gpt2")[0], None),))
    thoughts = collect_thoughts(model, asked, max_new_tokens=2, progress=False)
    with pytest.raises(ModelError, match=message):
        decode_thoughts(model, thoughts)
