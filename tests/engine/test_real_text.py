"""Real text: any characters from prompt to record and file; a question that leaves no room is named before a run."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from tests.engine.bytewise import UGLY, write_bytewise
from tests.engine.tiny import tiny

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine import evaluate
from thoughtgraft.engine.collect import collect_thoughts, encode
from thoughtgraft.engine.evaluate import explicit_correct
from thoughtgraft.engine.features import Keep, run_features
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.run import run
from thoughtgraft.engine.verify.suite import certificate_for
from thoughtgraft.errors import ModelError
from thoughtgraft.models.load import load_model
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.export import export_records
from thoughtgraft.studies.registry import load_run
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.numbers import extract_answer
from thoughtgraft.tasks.problem import Problem, ProblemSet


def problems(*questions: str) -> ProblemSet:
    return ProblemSet(
        tuple(Problem(f"ugly_{i}", q, Fraction(i), split="ugly") for i, q in enumerate(questions)), "ugly"
    )


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> LatentReasoner:
    folder = write_bytewise(tmp_path_factory.mktemp("bytewise") / "model")
    model = load_model(folder, device="cpu", dtype="float32")
    model.max_new_tokens = 24
    return model


def test_the_prompt_holds_every_character_of_the_question(bytewise: LatentReasoner) -> None:
    for question, prompt in zip(UGLY, encode(bytewise, problems(*UGLY)), strict=True):
        shown = bytewise.tokenizer.decode(prompt.ids[:-1])
        assert shown == question.strip().replace("  ", " ")


def test_any_text_is_thought_about_as_the_reference_does(bytewise: LatentReasoner) -> None:
    ugly = problems(*UGLY)
    found = collect_thoughts(bytewise, ugly, progress=False)
    for i, prompt in enumerate(encode(bytewise, ugly)):
        assert found.token_ids[i] == reference_run(bytewise, prompt).token_ids


def test_any_text_goes_through_records_and_files_unchanged(bytewise: LatentReasoner, tmp_path: Path) -> None:
    """The net is random: what it writes holds quotes, line breaks, control characters and halves of characters."""
    plan = Plan((Arm("baseline"), Arm("swap", (1,))), n_donors=2)
    records = run(bytewise, problems(*UGLY), plan, tmp_path / "run", progress=False)
    assert list(records["error"].dropna()) == []
    assert records["text"].str.contains(r"[\x00-\x1f]").any()
    # An answer that never stops is as long as it may be, says so, and is graded by what it holds.
    endless = records[records["stop_reason"] == "length"]
    assert len(endless) and set(endless["n_tokens"]) == {24}
    for row in records.to_dict("records"):
        assert row["valid"] == (extract_answer(row["text"]) is not None)
        assert row["correct"] == NUMBER.same(NUMBER.parse(row["text"]), row["gold"])
    [path] = export_records(tmp_path / "run", tmp_path / "records.csv").files
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["cell"]: row["text"] for row in csv.DictReader(file)}
    assert rows == dict(zip(records["cell"], records["text"], strict=True))
    [path] = export_records(tmp_path / "run", tmp_path / "records.jsonl", "jsonl").files
    read = pd.read_json(path, lines=True, dtype=False)
    assert list(read.set_index("cell")["text"].loc[list(records["cell"])]) == list(records["text"])
    assert [p.question for p in load_run(tmp_path / "run").problem_set()] == UGLY


@pytest.mark.parametrize("protocol", ["official", "official-padded"])
def test_a_question_that_is_too_long_is_named_before_anything_runs(protocol: str, tmp_path: Path) -> None:
    model = tiny("codi-gpt2", protocol=protocol)
    words = "Ben has 26 books . "
    asked = problems(words * 2, words * 30, words, words * 40)
    # Beside the longest, visible pads make every question too long; it is still the longest that is named.
    others = 3 if model.protocol.pads_visible else 1
    message = (
        rf"problem 'ugly_3' \(with {others} more\) is too long for .*codi-gpt2.*; got 201 prompt tokens, 209 with "
        r"thoughts and one answer token; expected at most 128\. Fix: shorten or drop that question\."
    )
    out, labels = tmp_path / "run", pd.DataFrame({"id": [p.id for p in asked]})
    plan = Plan((Arm("baseline"),), n_donors=1)
    for call in (
        lambda: encode(model, asked),
        lambda: collect_thoughts(model, asked, progress=False),
        lambda: run(model, asked, plan, out, progress=False),
        lambda: run_features(model, asked, Keep(labels, [0], "float32"), out, study="operations", progress=False),
        lambda: explicit_correct(model, asked, progress=False),
        lambda: certificate_for(model, asked, out, "auto"),
    ):
        with pytest.raises(ModelError, match=message):
            call()
    assert not out.exists()


@pytest.mark.parametrize("family", ["codi-gpt2", "coconut-gpt2", "codi-llama"])
def test_written_reasoning_ends_where_the_context_does(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question with little room is answered within it, and takes nothing from those beside it."""
    monkeypatch.setattr(evaluate, "_EXPLICIT_TOKENS", 40)
    model = tiny(family, "float32", ends=())
    assert model.max_positions is not None
    short, room = "Ben has 26 books .", 9
    filler = short.split()[0]
    base = len(model.explicit_ids(filler))
    long = " ".join([filler] * (model.max_positions - model.num_latents - 2 - base))
    asked = problems(short, long)
    written: list[int] = []
    text = type(model).text
    monkeypatch.setattr(type(model), "text", lambda self, ids: written.append(len(ids)) or text(self, ids))
    explicit_correct(model, asked, progress=False)
    room = model.max_positions - len(model.explicit_ids(long))
    assert 0 < room < 40 and written == [40, room]
