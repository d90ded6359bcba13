"""The doctor's verdict is the loader's, and its words name what is wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from tests.models.broken import BASE, CASES, COCONUT, SHIFTED, changed, save, whole
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.errors import ThoughtgraftError
from thoughtgraft.models.checkpoint.tensors import StoredTensor
from thoughtgraft.models.doctor.examine import diagnose
from thoughtgraft.models.doctor.rules import Diagnosis, Finding, published_for, read_facts, row_rules, stop_rules
from thoughtgraft.models.load import load_model


def said(diagnosis: Diagnosis) -> str:
    return json.dumps(diagnosis.to_json(), ensure_ascii=False)


@pytest.mark.parametrize("case", CASES)
def test_broken_checkpoints_are_diagnosed_and_the_loader_agrees(case: str, tmp_path: Path) -> None:
    broken = CASES[case]
    path = broken.make(tmp_path / "made")
    diagnosis = diagnose(path, **broken.options)
    try:
        load_model(path, device="cpu", **broken.options)
        refusal = None
    except ThoughtgraftError as error:
        refusal = error
    assert diagnosis.loads == (refusal is None) == broken.loads, refusal
    assert diagnosis.family == broken.family
    for word in broken.words:
        assert word in said(diagnosis), said(diagnosis)
    errors = [finding for finding in diagnosis.findings if finding.level == "error"]
    assert bool(errors) == (not broken.loads)
    if refusal is not None:
        assert errors[0].what == refusal.what
        assert all(finding.fix for finding in errors[:1])


def test_facts_of_a_sound_checkpoint(tmp_path: Path) -> None:
    facts = diagnose(save(tmp_path / "made", whole())).facts
    assert (facts["layers"], facts["width"], facts["embedding_rows"]) == (3, 48, 106)
    assert facts["special_tokens"] == {"pad": 103, "BOT": 104, "EOT": 105}
    assert facts["prj"] == {"present": True, "width": 48, "ln": True}
    assert facts["lora"]["modules_by_rank"] == {"8": 21}
    assert facts["dtype"] == {"float32": 78}
    assert facts["tokenizer"] == {"size": 103, "eos": "<eos>", "eos_id": 1}
    assert facts["thoughts"] == "no file says it"


def test_trained_thoughts_are_read_where_a_file_says_them() -> None:
    assert diagnose("tiny-codi").facts["thoughts"] == "6 (card.json)"


def test_coconut_is_recognised_and_agrees_with_the_loader() -> None:
    base = COCONUT.parents[1] / "base-tiny-gpt2"
    diagnosis = diagnose(COCONUT, base=base)
    assert diagnosis.family == "Coconut"
    assert diagnosis.facts["special_tokens"] == {
        "<|start-latent|>": 104,
        "<|end-latent|>": 105,
        "<|latent|>": 106,
    }
    try:
        load_model(COCONUT, base=base, device="cpu")
    except ThoughtgraftError as error:
        assert not diagnosis.loads
        assert "Coconut" in error.what
        assert error.what in said(diagnosis)
    else:
        assert diagnosis.loads


def test_the_printed_renaming_repairs_shifted_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = changed(SHIFTED)(tmp_path / "made")
    fix = next(f.fix for f in diagnose(made).findings if "shifted" in f.what)
    command = shlex.split(fix.partition(", then copy")[0])
    assert command[:2] == ["python", "-c"]
    monkeypatch.chdir(tmp_path)
    exec(command[2], {})  # the command itself, without the seconds that another interpreter would take
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE / name, tmp_path / "renamed" / name)
    assert diagnose(tmp_path / "renamed").loads


def stored(shapes: dict[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
    return {n: StoredTensor(n, shape, torch.bfloat16, lambda: torch.empty(0)) for n, shape in shapes.items()}


def llama_names(prefix: str, layers: int, width: int, rows: int) -> dict[str, tuple[int, ...]]:
    blocks = {f"{prefix}model.layers.{i}.self_attn.q_proj.weight": (width, width) for i in range(layers)}
    return {f"{prefix}model.embed_tokens.weight": (rows, width), **blocks}


@pytest.mark.parametrize(
    ("prefix", "extra", "name", "family"),
    [
        ("codi.base_model.model.", {}, "x", "CODI"),
        ("coconut.", {}, "x", "CODI"),
        ("codi.", {"decoder.norm.weight": (3,)}, "x", "SIM-CoT CODI"),
        ("codi.", {}, "internlm/SIM_COT-LLaMA3-CODI-3B", "SIM-CoT CODI"),
        ("base_causallm.", {"embedding.weight": (9, 4)}, "x", "Coconut"),
        ("base_causallm.", {"expainable_llm.norm.weight": (4,)}, "x", "SIM-CoT Coconut"),
        ("pause_lm.", {}, "x", "control: pause"),
        ("", {}, "x", "plain base model"),
        ("odd.", {}, "x", "unknown"),
    ],
)
def test_family_is_told_from_names(prefix: str, extra: dict[str, tuple[int, ...]], name: str, family: str) -> None:
    facts = read_facts(stored({**llama_names(prefix, 2, 4, 9), **extra}), name)
    assert (facts.family, facts.layers, facts.rows, facts.width) == (family, 2, 9, 4)


@pytest.mark.parametrize(
    ("family", "sizes", "accuracy"),
    [
        ("CODI", (768, 12), "43.7%"),
        ("CODI", (2048, 16), "55.6%"),
        ("SIM-CoT CODI", (2048, 16), "56%"),
        ("SIM-CoT CODI", (3072, 28), "62%"),
    ],
)
def test_published_accuracies_say_whose_they_are(family: str, sizes: tuple[int, int], accuracy: str) -> None:
    (line,) = published_for(family, sizes)
    assert accuracy in line
    assert "as published" in line
    assert published_for("Coconut", sizes) == ()


class Tokenizer:
    def __init__(self, eos: str | None, number: int | None) -> None:
        self.eos_token, self.eos_token_id = eos, number


def test_the_base_models_end_of_sequence_is_a_warning() -> None:
    listed = [128001, 128008, 128009]
    (found,) = stop_rules(Tokenizer("<|end_of_text|>", 128001), listed, 128256)
    assert found.level == "warning"
    assert "run to the token limit" in found.what
    assert list(stop_rules(Tokenizer("<|eot_id|>", 128009), listed, 128256)) == []
    (found,) = stop_rules(Tokenizer("<eos>", 1), [7], 100)
    assert "disagree about the end of an answer" in found.what


def test_rows_are_not_judged_without_a_vocabulary() -> None:
    facts = read_facts(stored(llama_names("codi.", 2, 4, 9)), "x")
    assert list(row_rules(facts, None)) == list(row_rules(facts, 6)) == []
    assert len(list(row_rules(facts, 9))) == 1


def test_a_diagnosis_cannot_contradict_itself() -> None:
    with pytest.raises(ValueError, match="loads=True beside an error"):
        Diagnosis("x", True, "CODI", findings=(Finding("error", "broken"),))


# --- the hub, and links


def hub(folder: Path, made: Path) -> None:
    """A stand-in for the hub's cache, with its links into the blobs."""
    repository = folder / "models--someone--codi"
    snapshot, blobs = repository / "snapshots" / ("0" * 40), repository / "blobs"
    for path in (snapshot, blobs, repository / "refs"):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    for i, file in enumerate(made.iterdir()):
        shutil.copy(file, blobs / str(i))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))


def test_hub_id_in_the_cache_and_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub(tmp_path / "hub", save(tmp_path / "made", whole()))
    assert diagnose("someone/codi").loads
    assert diagnose(next((tmp_path / "hub").glob("*/snapshots/*"))).loads
    missed = diagnose("someone/else")
    assert not missed.loads
    assert "neither a local path nor in the Hugging Face cache" in said(missed)
    assert "hf download someone/else" in said(missed)


def test_links_out_of_a_folder_and_pipes_are_refused(tmp_path: Path) -> None:
    made = save(tmp_path / "made", whole())
    secret = tmp_path / "elsewhere.bin"
    (made / "pytorch_model.bin").rename(secret)
    (made / "pytorch_model.bin").symlink_to(secret)
    found = diagnose(made)
    assert not found.loads
    assert "is a link out of its folder" in said(found)
    assert diagnose(secret, base=BASE).loads  # named by the user: that is his decision
    (made / "pytorch_model.bin").unlink()
    os.mkfifo(made / "pytorch_model.bin")
    assert "is not a regular file" in said(diagnose(made))


# --- as typed


def test_command_line(tmp_path: Path) -> None:
    sound = CliRunner().invoke(app, ["doctor", "tiny-codi"])
    assert sound.exit_code == 0, sound.output
    assert "tiny-codi: CODI, would load" in sound.stdout
    made = changed(SHIFTED)(tmp_path / "made")
    broken = CliRunner().invoke(app, ["doctor", str(made), "--json"])
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["loads"] is False
    shown = CliRunner().invoke(app, ["doctor", str(made)])
    assert "would NOT load" in shown.stdout
    assert "the keys of prj are shifted" in shown.stdout
    text = CliRunner().invoke(app, ["doctor", "--help"]).stdout
    assert "Exit code 0 if it would load, 1 if not" in " ".join(text.replace("│", " ").split())
