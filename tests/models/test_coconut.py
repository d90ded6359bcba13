"""Coconut and SIM-CoT: recognised by their keys, read strictly, written back, and run by everything that runs CODI."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.engine.tiny import GOLDEN, Case, difference, expected, questions, tiny
from tests.models.test_checkpoints import State, base_of, copy_base, read_golden, state_of
from transformers import AutoTokenizer
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.answer import make_draft
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.evaluate import evaluate
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.rollout import rollout
from thoughtgraft.engine.rows import Source
from thoughtgraft.engine.run import run
from thoughtgraft.errors import CheckpointError, ModelError
from thoughtgraft.models.checkpoint.format import COCONUT, CODI, find_family
from thoughtgraft.models.checkpoint.read import read_checkpoint, write_checkpoint
from thoughtgraft.models.coconut import CoconutReasoner
from thoughtgraft.models.load import load_model
from thoughtgraft.readouts.readout import decode_thoughts, token_text
from thoughtgraft.tasks.grading import NUMBER, OFFICIAL
from thoughtgraft.tasks.problem import Problem, ProblemSet

ROOT = GOLDEN / "coconut-gpt2"
FILE, BASE = ROOT / "checkpoint" / "checkpoint_25", ROOT / "base-tiny-gpt2"
LM, WTE = "base_causallm.", "base_causallm.transformer.wte.weight"
MARKERS = ["<|start-latent|>", "<|end-latent|>", "<|latent|>"]


def problems() -> ProblemSet:
    return ProblemSet(tuple(Problem(str(i), q, Fraction(50)) for i, q in enumerate(questions("coconut-gpt2")[:4])))


@pytest.fixture
def state() -> State:
    return torch.load(FILE, weights_only=True)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def saves(tensors: State, name: str = "checkpoint_3") -> Path:
        torch.save(tensors, tmp_path / name)
        return tmp_path

    return saves


@pytest.fixture
def refuse() -> Callable[..., str]:
    """Reads a checkpoint that must be refused and returns the sentence."""

    def reads(path: Path | str, **options: Any) -> str:
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path, **{"base": BASE, **options})
        assert "Fix: " in str(caught.value)
        return str(caught.value)

    return reads


# --- what a Coconut is


@pytest.mark.parametrize("place", [FILE, FILE.parent])
def test_a_golden_coconut_loads_ready_to_think(place: Path) -> None:
    model = load_model(place, base=BASE, device="cpu")
    assert isinstance(model, CoconutReasoner)
    assert (model.family, model.protocol.name) == ("coconut", "official")
    assert (model.num_latents, model.trained_latents, model.max_new_tokens) == (6, 6, 64)
    assert (model.checkpoint.bot_id, model.end_of_thought, model.pad_id, model.decoding.ends) == (104, 105, 1, (1,))
    assert model.forbidden_ids == ()
    assert [token_text(model, i) for i in (104, 105, 106)] == MARKERS
    assert model.checkpoint.notes == ()


def test_thoughts_are_the_hidden_states_themselves() -> None:
    model = tiny("coconut-gpt2")
    found = reference_run(model, model.prompt(questions("coconut-gpt2")[0]), max_new_tokens=1)
    assert torch.equal(found.fed, found.hidden[:6])
    # Equal because nothing projects them, not because they are nothing.
    assert float(found.hidden.norm(dim=-1).min()) > 1


def test_the_number_of_thoughts_is_settable() -> None:
    model = load_model(FILE, base=BASE, device="cpu", num_latents=2)
    assert reference_run(model, model.prompt("Ben has 26 books ."), max_new_tokens=1).fed.shape == (2, 48)


def test_the_padded_protocol_of_codi_is_refused_and_says_why() -> None:
    with pytest.raises(ModelError, match=r"no protocol 'official-padded'.*one problem at a time, without padding"):
        load_model(FILE, base=BASE, device="cpu", protocol="official-padded")
    with pytest.raises(ModelError, match=r"no protocol 'official-padded'"):
        load_model(FILE, base=BASE, device="cpu").under("official-padded")


def test_the_markers_are_added_to_a_copy_of_the_tokenizer() -> None:
    own = AutoTokenizer.from_pretrained(BASE)
    model = load_model(FILE, base=BASE, tokenizer=own, device="cpu")
    assert (len(own), len(model.tokenizer)) == (104, 107)
    knows = load_model(FILE, base=BASE, tokenizer=model.tokenizer, device="cpu")
    assert knows.tokenizer is model.tokenizer


def test_a_tokenizer_of_another_size_is_refused(refuse: Callable[..., str]) -> None:
    smaller = GOLDEN / "codi-gpt2" / "base-tiny-gpt2"
    with pytest.raises(CheckpointError, match=r"got ids 103, 104, 105 from a tokenizer of 103.*ids 104, 105, 106"):
        load_model(FILE, base=BASE, tokenizer=smaller, device="cpu")
    larger = AutoTokenizer.from_pretrained(BASE)
    larger.add_tokens("<other>")
    assert "at most 104 ids, below the rows of <|start-latent|>, <|end-latent|>" in refuse(FILE, tokenizer=larger)


# --- which family


def test_the_family_is_known_from_the_keys_alone() -> None:
    assert find_family(["codi.base_model.model.lm_head.weight", "prj.1.weight"], "it") == (CODI, "")
    assert find_family(["pj_in.weight", "coconut.lm_head.weight"], "it") == (CODI, "")
    assert find_family(["expainable_llm.lm_head.weight", LM + "lm_head.weight"], "it") == (COCONUT, "")
    assert find_family(["net.module.prj.1.weight", "net.module.codi.lm_head.weight"], "it") == (CODI, "net.module.")
    assert find_family(["coconut.embedding.weight", "coconut." + LM + "lm_head.weight"], "it") == (COCONUT, "coconut.")
    with pytest.raises(
        CheckpointError,
        match=r"it is neither a CODI nor a Coconut checkpoint; got keys such as model.norm.weight; "
        r"expected codi: codi.\* or coconut.\* and prj.\*; or coconut: base_causallm.\*",
    ):
        find_family(["model.norm.weight"], "it")
    with pytest.raises(CheckpointError, match=r"keys such as \(none\)"):
        find_family([], "it")


# --- strict reading


@pytest.mark.parametrize(
    "key", [LM + "transformer.ln_f.bias", LM + "transformer.wpe.weight", LM + "transformer.h.1.mlp.c_fc.bias"]
)
def test_a_missing_key_is_named(state: State, save: Callable[..., Path], refuse: Callable[..., str], key: str) -> None:
    del state[key]
    assert f"got 1 missing: {key};" in refuse(save(state))


@pytest.mark.parametrize("key", ["prj.1.weight", LM + "transformer.h.0.gate.weight", "decoder.weight", "head.weight"])
def test_an_unexpected_key_is_named(
    state: State, save: Callable[..., Path], refuse: Callable[..., str], key: str
) -> None:
    state[key] = torch.zeros(2)
    assert f"1 unexpected: {key};" in refuse(save(state))


def test_the_second_copy_of_the_embedding_must_be_the_embedding(
    state: State, save: Callable[..., Path], refuse: Callable[..., str]
) -> None:
    original = state["embedding.weight"]
    changed = original.clone()
    changed[5, 5] += 1e-3
    for second in (changed, original.bfloat16()):
        assert f"got embedding.weight differs from {WTE}" in refuse(save(state | {"embedding.weight": second}))
    assert "embedding.weight is (106, 48), not (107, 48)" in refuse(save(state | {"embedding.weight": original[:-1]}))


def test_wrong_rows_say_what_the_rows_would_be(refuse: Callable[..., str]) -> None:
    said = refuse(FILE, base=GOLDEN / "codi-gpt2" / "base-tiny-gpt2")
    assert "expected 106 rows: the base vocabulary of 103, then <|start-latent|>, <|end-latent|>, <|latent|>" in said


def test_several_epochs_are_not_chosen_among(
    state: State, save: Callable[..., Path], refuse: Callable[..., str]
) -> None:
    folder = save(state, "checkpoint_9")
    assert read_checkpoint(folder, base=BASE).family == "coconut"
    save(state, "checkpoint_10")
    said = refuse(folder)
    assert "several epochs; got checkpoint_9, checkpoint_10" in said
    assert f"pass the file itself, such as {folder / 'checkpoint_10'}" in said
    assert read_checkpoint(folder / "checkpoint_9", base=BASE).family == "coconut"


# --- writing


@pytest.mark.parametrize("family", ["coconut-gpt2", "coconut-llama"])
def test_a_written_coconut_reads_back_under_the_official_names(tmp_path: Path, family: str) -> None:
    first = tiny(family, "float32").checkpoint
    config = type(first.lm.config)(**{**first.lm.config.to_dict(), "vocab_size": 104})
    folder = write_checkpoint(tmp_path / "made", first.lm, None, first.tokenizer, config, family="coconut")
    again = load_model(folder, device="cpu")
    assert all(torch.equal(v, again.lm.state_dict()[name]) for name, v in first.lm.state_dict().items())
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == {LM + n for n in first.lm.state_dict() if n != "lm_head.weight"} | {"embedding.weight"}
    question = questions(family)[0]
    assert again.prompt(question) == tiny(family).prompt(question)
    assert again.weight_hash == tiny(family, "float32").weight_hash


def test_the_tokenizer_written_may_know_the_markers_and_the_dtype_is_chosen(tmp_path: Path) -> None:
    first = tiny("coconut-gpt2", "float32")
    config = type(first.lm.config)(**{**first.lm.config.to_dict(), "vocab_size": 104})
    write_checkpoint(tmp_path, first.lm, None, first.tokenizer, config, dtype=torch.bfloat16, family="coconut")
    again = load_model(tmp_path, device="cpu")
    assert len(again.tokenizer) == 107
    wpe = "transformer.wpe.weight"
    assert torch.equal(again.lm.state_dict()[wpe], first.lm.state_dict()[wpe].bfloat16().float())
    with pytest.raises(CheckpointError, match=r"got 107 rows; expected 110 rows.*then <\|start-latent\|>"):
        write_checkpoint(tmp_path, first.lm, None, first.tokenizer, first.lm.config, family="coconut")


# --- SIM-CoT


def known_base(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    values = json.loads((base / "config.json").read_text())
    monkeypatch.setattr("thoughtgraft.models.checkpoint.bases.KNOWN_BASES", {"made-up/tiny": values})


def test_simcot_coconut_is_a_coconut_whose_second_model_is_ignored(
    monkeypatch: pytest.MonkeyPatch, state: State, save: Callable[..., Path]
) -> None:
    """As published: `checkpoint_28`, an empty config.json, no tokenizer, a decoder without the three rows."""
    known_base(monkeypatch, BASE)
    decoder = {n.replace(LM, "expainable_llm."): v + 1 for n, v in state.items() if n.startswith(LM)}
    decoder["expainable_llm.transformer.wte.weight"] = torch.zeros(104, 48)
    folder = save(decoder | state, "checkpoint_28")
    (folder / "config.json").write_bytes(b"")
    model = load_model(folder, tokenizer=BASE, device="cpu")
    plain = load_model(FILE, base=BASE, device="cpu")
    assert model.family == "coconut"
    assert model.weight_hash == plain.weight_hash
    assert any("empty (0 bytes)" in note for note in model.checkpoint.notes)  # type: ignore[attr-defined]
    ignored = f"ignored {len(decoder)} tensors: expainable_llm.* (SIM-CoT's auxiliary decoder)"
    assert ignored in model.checkpoint.notes  # type: ignore[attr-defined]


def test_simcot_coconut_is_found_in_the_hub_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: State
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--simcot"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    torch.save(state, snapshot / "checkpoint_28")
    assert read_checkpoint("someone/simcot", base=BASE).family == "coconut"


def test_simcot_codi_in_shards_with_an_empty_config_is_its_codi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = base_of("codi-llama")
    known_base(monkeypatch, base)
    state = state_of("codi-llama")
    own = len(state)
    state |= {n.replace("codi.", "decoder."): v for n, v in list(state.items()) if n.startswith("codi.")}
    state |= {"pj_in.weight": torch.zeros(48, 48), "pj_out.weight": torch.zeros(48, 48)}
    names = sorted(state)
    shards = {f"pytorch_model-{i + 1:05}-of-00003.bin": names[i::3] for i in range(3)}
    for file, members in shards.items():
        torch.save({name: state[name] for name in members}, tmp_path / file)
    index = {name: file for file, members in shards.items() for name in members}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    copy_base(tmp_path)
    (tmp_path / "config.json").write_bytes(b"")
    found = read_checkpoint(tmp_path)
    assert (found.family, found.base) == ("codi", "made-up/tiny")
    assert found.weight_hash == read_golden("codi-llama").weight_hash
    counts = [int(note.split()[1]) for note in found.notes if "SIM-CoT" in note]
    assert sum(counts) == len(state) - own


# --- answers


def test_an_answer_in_coconuts_words_is_graded_and_scored_at_its_number() -> None:
    model = tiny("coconut-gpt2")
    answer = model.tokenizer("### 42", add_special_tokens=False)["input_ids"]
    number = model.tokenizer("43", add_special_tokens=False)["input_ids"]
    text = model.text(answer)
    assert text == "### 42"
    assert NUMBER.parse(text) == OFFICIAL.parse(text) == "42"
    draft = make_draft(model, answer, True, "43", NUMBER)
    assert draft.number_at == 1
    assert draft.gold == (*number, 1)


@torch.no_grad()
def test_logp_gold_is_that_of_the_number_and_the_stop_after_the_hashes() -> None:
    model = tiny("coconut-gpt2")
    hashes, number = model.tokenizer("### 43", add_special_tokens=False)["input_ids"]
    answer = model.tokenizer("### 42", add_special_tokens=False)["input_ids"]
    prompt = model.prompt(questions("coconut-gpt2")[0])
    clean = reference_run(model, prompt, max_new_tokens=1)
    draft = make_draft(model, answer, True, "43", NUMBER)
    rows = [Case(Arm("baseline"), 0).row(model.num_latents)]
    scores = rollout(model, [prompt], rows, Source.from_fed(clean.fed[None]), drafts=[draft]).scores
    assert scores is not None

    after = torch.tensor([model.end_of_thought, hashes, number])
    embeds = torch.cat([model.embed(torch.tensor(prompt.ids)), clean.fed, model.embed(after)])[None]
    length = embeds.shape[1]
    mask = torch.full((length, length), -torch.inf, dtype=embeds.dtype).triu(1)[None, None]
    logp = model.unembed(model.forward(embeds, torch.arange(length)[None], mask)[0, -2:]).log_softmax(-1)
    assert float(scores.logp_gold[0]) == pytest.approx(
        float(logp[0, number] + logp[1, model.decoding.ends[0]]), abs=1e-9
    )


# --- everything runs on it


def test_a_plan_runs_and_its_controls_change_nothing() -> None:
    model = tiny("coconut-gpt2", max_new_tokens=6)
    arms = tuple(Arm(m, (k,)) for m in ("self", "swap", "mean", "zero") for k in (0, 5))
    plan = Plan((Arm("baseline"), Arm("noop"), *arms, Arm("skip", (2,)), Arm("swap", (1,), "freeze_kv")), n_donors=1)
    records = run(model, problems(), plan, progress=False)
    assert len(records) == 4 * (2 + 8 + 2)
    assert records["error"].isna().all()
    still = records["method"].isin(["baseline", "noop", "self"])
    assert not records.loc[still, "changed"].any()
    assert records.loc[~still, "changed"].any()
    assert set(records["protocol"]) == {"official"}


def test_thoughts_are_collected_and_decoded() -> None:
    model = tiny("coconut-gpt2", max_new_tokens=4)
    thoughts = collect_thoughts(model, problems(), progress=False)
    assert difference(thoughts.fed, [e["z_fed"] for e in expected("coconut-gpt2")["unpadded"][:4]]) < 1e-3
    decoded = decode_thoughts(model, thoughts, top=2)
    assert len(decoded) == 4 * 6 * 2


def test_accuracies_are_measured_with_and_without_thoughts() -> None:
    table = evaluate(tiny("coconut-gpt2", max_new_tokens=4), problems()[:2], progress=False).table()
    conditions = set(table["condition"])
    assert {"thoughts", "0 thoughts", "all thoughts zero", "explicit reasoning"} <= conditions


def test_verbs_take_it() -> None:
    options = ["--model", str(FILE), "--base", str(BASE), "--device", "cpu"]
    shown = CliRunner().invoke(app, ["think", "Ben has 26 books .", *options, "--json"])
    assert shown.exit_code == 0, shown.output
    assert len(json.loads(shown.stdout)["thoughts"]) == 6
    checked = CliRunner().invoke(app, ["verify", *options, "--json"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["passed"]
