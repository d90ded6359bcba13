"""The lens reads `hidden[k]` through the unembedding; unseen words are named."""

from __future__ import annotations

import torch
from tests.engine.tiny import loaded, questions

from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.models.load import load_model
from thoughtgraft.readouts.lens import decode_thoughts, token_text, unseen_words
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
