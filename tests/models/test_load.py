"""`load_model`: a name becomes a model ready to think, or one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine.tiny import FAMILIES, GOLDEN

from thoughtgraft.errors import CheckpointError, ModelError
from thoughtgraft.models.load import find_device, load_model
from thoughtgraft.models.reasoner import LatentReasoner


def load(family: str, **options: Any) -> LatentReasoner:
    root = GOLDEN / family
    return load_model(root / "checkpoint", base=next(root.glob("base-*")), **{"device": "cpu", **options})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_golden_checkpoint_loads_ready_to_think(family: str) -> None:
    model = load(family)
    assert model.family == "codi"
    assert model.name == str(GOLDEN / family / "checkpoint")
    assert (model.num_latents, model.trained_latents, model.max_new_tokens) == (6, 6, 256)
    assert model.protocol.name == "official"
    assert (model.pad_id, model.checkpoint.bot_id, model.end_of_thought) == (103, 104, 105)  # type: ignore[attr-defined]
    assert model.forbidden_ids == (105,)
    assert not model.lm.training
    assert not any(p.requires_grad for p in model.lm.parameters())
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "wanted"), [("float64", torch.float64), ("bfloat16", torch.bfloat16), (torch.float16, torch.float16)]
)
def test_weights_and_projection_are_in_the_dtype_asked_for(dtype: str | torch.dtype, wanted: torch.dtype) -> None:
    model = load("codi-llama", dtype=dtype)
    assert {p.dtype for p in model.lm.parameters()} == {wanted}
    assert model.project(torch.zeros(1, model.d_model, dtype=wanted), 0).dtype == wanted


def test_options_reach_the_model() -> None:
    model = load("codi-gpt2", protocol="official-padded", num_latents=2)
    assert (model.protocol.name, model.num_latents, model.trained_latents) == ("official-padded", 2, 6)


def test_loading_twice_gives_the_same_hash_and_lora_alpha_belongs_to_it() -> None:
    assert (
        load("codi-gpt2").weight_hash == load("codi-gpt2").weight_hash != load("codi-gpt2", lora_alpha=16).weight_hash
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float31"}, "unknown dtype; got 'float31'; expected float32, bfloat16"),
        ({"device": "gpu"}, "unknown device; got 'gpu'; expected auto, cpu"),
        ({"protocol": "offical"}, "unknown protocol; got 'offical'"),
        ({"num_latents": 5000}, r"num_latents=5000 leaves no room for a question.*trained with 6"),
        ({"num_latents": -2}, "num_latents is not usable; got -2; expected a whole number, 0 or more"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load("codi-gpt2", **options)


def test_a_device_that_is_not_there_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ModelError, match=r"this machine has no .* device that torch can use. Fix: --device cpu"):
            find_device(name)


def test_auto_prefers_cuda_then_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto").type == "cuda"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_model(tmp_path, device="cpu")
