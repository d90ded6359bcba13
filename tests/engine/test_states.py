"""Features are the reference's own layer outputs, whatever the batch, and stay so through files, kills and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.engine.tiny import FAMILIES, difference, questions, tiny

from thoughtgraft.engine import latents as clean
from thoughtgraft.engine import states as engine
from thoughtgraft.engine.features import Keep, run_features
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.states import (
    collect_states,
    default_storage,
    residual_streams,
    state_writer,
    states_of,
    store_states,
)
from thoughtgraft.errors import ModelError, RunError
from thoughtgraft.models.load import untrained_twin
from thoughtgraft.records.state_files import read_block
from thoughtgraft.records.states import load_states
from thoughtgraft.tasks.problem import Problem, ProblemSet


def problem_set(family: str, n: int = 6) -> ProblemSet:
    return ProblemSet(tuple(Problem(f"p{i}", text, None) for i, text in enumerate(questions(family)[:n])))


def stored(folder: Path) -> dict[str, np.ndarray]:
    """Resid [P, L, d] of each problem, from the files."""
    found = {}
    for file in folder.glob("*.safetensors"):
        block = read_block(file)
        values = block.resid.take(slice(None))
        found.update(zip(block.ids, values, strict=True))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("protocol", "num_latents"), [("official", 6), ("official-padded", 3), ("official", 0)])
def test_features_are_the_references_layer_outputs(family: str, protocol: str, num_latents: int) -> None:
    model = tiny(family, protocol=protocol, num_latents=num_latents, max_new_tokens=1)
    prompts = [model.prompt(q, pad) for q, pad in zip(questions(family), (2, 0, 1), strict=False)]
    if protocol == "official":
        prompts = [model.prompt(q) for q in questions(family)[:3]]
    depth = len(model.layers)
    resid, hidden = states_of(model, prompts, range(depth))
    assert resid.shape == (len(prompts), num_latents + 1, depth, model.d_model)
    for i, prompt in enumerate(prompts):
        run = reference_run(model, prompt)
        assert difference(hidden[i], run.hidden) < 1e-9
        assert difference(resid[i], run.resid) < 1e-9
        assert difference(model.final_norm(resid[i, :, depth - 1]), run.hidden) < 1e-9


def test_layers_are_those_asked_for_and_hooks_do_not_stay() -> None:
    model = tiny("codi-llama")
    prompts = [model.prompt(q) for q in questions("codi-llama")[:2]]
    every, _ = states_of(model, prompts, range(len(model.layers)))
    some, _ = states_of(model, prompts, [1, 0])
    assert torch.equal(some, every[:, :, [1, 0]])
    with pytest.raises(KeyboardInterrupt), residual_streams(model, [0]):
        raise KeyboardInterrupt
    assert not any(block._forward_hooks for block in model.layers)


def test_questions_encoded_in_parts_have_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("codi-llama")
    prompts = [model.prompt(q) for q in questions("codi-llama")]
    together = states_of(model, prompts, [0, 1])
    monkeypatch.setattr(clean, "CPU_TOKENS", 40)
    apart = states_of(model, prompts, [0, 1])
    assert all(difference(a, b) < 1e-9 for a, b in zip(together, apart, strict=True))


@pytest.mark.parametrize("batch_size", [1, 4, "auto"])
def test_the_batch_does_not_change_features(tmp_path: Path, batch_size: int | str) -> None:
    model, problems = tiny("codi-llama"), problem_set("codi-llama")
    writer = state_writer(model, problems, [0, 1], tmp_path / "features", "float32")
    store_states(model, problems, writer, batch_size=batch_size, progress=False)
    found = stored(writer.folder)
    assert set(found) == {p.id for p in problems}
    for i, problem in enumerate(problems):
        alone, _ = states_of(model, [model.prompt(problem.question)], [0, 1])
        np.testing.assert_allclose(found[problem.id], alone[0].float().numpy(), rtol=1e-6, atol=1e-7, err_msg=str(i))


def test_a_killed_extraction_is_continued_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, problems = tiny("codi-gpt2", "float32"), problem_set("codi-gpt2")
    writer = state_writer(model, problems, [0], tmp_path / "features", "bfloat16")
    whole = state_writer(model, problems, [0], tmp_path / "whole", "bfloat16")
    store_states(model, problems, whole, batch_size=2, progress=False)
    real, calls = states_of, []

    def dying(*args: Any) -> Any:
        calls.append(len(args[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(engine, "states_of", dying)
    with pytest.raises(KeyboardInterrupt):
        store_states(model, problems, writer, batch_size=2, progress=False)
    (writer.folder / ".tmp-half").write_bytes(b"x")
    before = {file.name: file.stat().st_mtime_ns for file in writer.folder.glob("*.safetensors")}
    assert len(before) == 2 and len(stored(writer.folder)) == 4
    told: list[tuple[int, int]] = []
    store_states(model, problems, writer, batch_size=3, progress=False, beat=lambda *x: told.append(x))
    assert calls[3:] == [2]
    assert told == [(6, 6)]
    after = {file.name: file.stat().st_mtime_ns for file in writer.folder.glob("*.safetensors")}
    assert before.items() <= after.items() and not list(writer.folder.glob(".tmp-*"))
    expected = stored(whole.folder)
    for name, values in stored(writer.folder).items():
        np.testing.assert_array_equal(values, expected[name])


def test_files_stay_small_whatever_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, problems = tiny("codi-gpt2", "float32"), problem_set("codi-gpt2")
    writer = state_writer(model, problems, [0, 1], tmp_path / "features", "bfloat16")
    of_one = 7 * (2 + 1) * model.d_model * 2
    monkeypatch.setattr(engine, "_FILE_BYTES", 2 * of_one)
    store_states(model, problems, writer, batch_size=100, progress=False)
    files = list(writer.folder.iterdir())
    assert len(files) == 3 and all(2 * of_one < file.stat().st_size < 2 * of_one + 1000 for file in files)


def test_a_damaged_file_is_set_aside_and_made_again(tmp_path: Path) -> None:
    model, problems = tiny("codi-gpt2", "float32"), problem_set("codi-gpt2", 4)
    writer = state_writer(model, problems, [0], tmp_path / "features", "float32")
    store_states(model, problems, writer, batch_size=2, progress=False)
    expected, victim = stored(writer.folder), next(writer.folder.glob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="not a readable safetensors file.*its problems will be run again"):
        store_states(model, problems, writer, batch_size=2, progress=False)
    assert (tmp_path / "quarantine" / f"features-{victim.name}").is_file()
    found = stored(writer.folder)
    assert set(found) == set(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)


def test_features_of_something_else_are_not_continued(tmp_path: Path) -> None:
    model, problems = tiny("codi-gpt2", "float32"), problem_set("codi-gpt2", 2)
    writer = state_writer(model, problems, [0], tmp_path / "features", "float32")
    store_states(model, problems, writer, progress=False)
    for layers, storage, number in (([1], "float32", 2), ([0], "bfloat16", 2), ([0], "float32", 1)):
        other = state_writer(model, problems[:number], layers, tmp_path / "features", storage)
        with pytest.raises(RunError, match="was made from something else"):
            store_states(model, problems[:number], other, progress=False)


def test_what_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    model, problems = tiny("codi-gpt2", "float32"), problem_set("codi-gpt2", 2)
    with pytest.raises(ModelError, match=r"has no layer 9; expected 0\.\.2"):
        state_writer(model, problems, [9], tmp_path / "f", "float32")
    with pytest.raises(ModelError, match="cannot be kept as this type; got 'int8'"):
        state_writer(model, problems, [0], tmp_path / "f", "int8")
    writer = state_writer(model, problems, [0], tmp_path / "f", "float16")
    writer.folder.mkdir()
    with pytest.raises(ModelError, match=r"not finite; got kept as float16\. Fix: --feature-dtype float32"):
        writer.write(["a"], torch.full((1, 7, 1, 4), 1e6), torch.zeros(1, 7, 4))
    assert not list(writer.folder.iterdir())
    assert [default_storage(tiny("codi-gpt2", dtype)) for dtype in ("float32", "float64")] == ["float32", "float32"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_untrained_twin_has_the_shape_and_nothing_else(family: str) -> None:
    model = tiny(family, "float32", max_new_tokens=2)
    before = {name: value.clone() for name, value in model.lm.state_dict().items()}
    state = torch.random.get_rng_state()
    twin, again, other = untrained_twin(model), untrained_twin(model), untrained_twin(model, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.lm.state_dict().items())
    assert {k: v.shape for k, v in twin.lm.state_dict().items()} == {k: v.shape for k, v in before.items()}
    prompts = [model.prompt(q) for q in questions(family)[:2]]
    a, b, c, trained = (states_of(m, prompts, [0, 1])[0] for m in (twin, again, other, model))
    assert torch.equal(a, b) and not torch.allclose(a, c) and not torch.allclose(a, trained)
    assert len({m.model_hash for m in (twin, other, model)}) == 3 and twin.model_hash == again.model_hash
    probe = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(twin.project(probe, 0), model.project(probe, 0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_states_in_memory_are_those_of_the_files(dtype: str, tmp_path: Path) -> None:
    model, problems = tiny("codi-llama", dtype), problem_set("codi-llama")
    depth, k = len(model.layers), model.num_latents
    states = collect_states(model, problems, progress=False)
    assert states.shape == (len(problems), k + 1, depth, model.d_model)
    assert states.positions == ("BOT", *(f"CT{i}" for i in range(k))) and states.layers == tuple(range(depth))
    assert list(states.labels["id"]) == list(states.ids) == [p.id for p in problems]
    if dtype != "float64":
        writer = state_writer(model, problems, range(depth), tmp_path / "features", dtype)
        store_states(model, problems, writer, progress=False)
        assert all(np.array_equal(stored(writer.folder)[name], states.values[i]) for i, name in enumerate(states.ids))
    some = collect_states(model, problems, layers=[1, 0], positions=["CT2", 0], progress=False)
    assert (some.positions, some.layers) == (("CT2", "BOT"), (1, 0))
    assert np.array_equal(some.values, states.values[:, [3, 0]][:, :, [1, 0]])
    if dtype == "float64":
        few = collect_states(model, problems, batch_size=2, progress=False)
        np.testing.assert_allclose(few.values, states.values, rtol=1e-6)
    again = load_states(some.to_safetensors(tmp_path / "some.safetensors"))
    assert np.array_equal(again.values, some.values) and again.ids == some.ids and again.positions == some.positions
    assert np.array_equal(again.matrix("hidden", "BOT"), some.matrix("hidden", "BOT"))
    assert list(again.labels.question) == [p.question for p in problems]
    assert again._blocks[0].resid.bfloat16 == (dtype == "bfloat16")
    assert again._blocks[0].resid.values.dtype.itemsize == model.dtype.itemsize
    assert "6 problems x 2 positions (CT2, BOT) x 2 layers (1, 0)" in repr(again)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layers": [9]}, r"has no layer 9; expected 0\.\.\d+"),
        ({"layers": "last"}, r"unknown choice of layers; got 'last'; expected all. Fix: layers=\[0, 4\]"),
        ({"layers": []}, r"the layers are not usable; got \[\]"),
        ({"layers": [1, 1]}, r"the layers are not usable; got \[1, 1\]; expected .*, each once"),
        ({"layers": 0.5}, r"the layers are not usable; got 0\.5"),
        ({"positions": ["CT9"]}, r"has no position 'CT9'; expected BOT, CT0"),
        ({"positions": "CT9"}, r"has no position 'CT9'"),
        ({"positions": [-1]}, r"has no position -1"),
        ({"positions": [None]}, r"a position is not usable; got None"),
        ({"batch_size": 0}, r"batch size is not usable; got 0"),
        ({"layer": 1}, r"collect_states was called with other arguments than it has.*did you mean 'layers'\?"),
    ],
)
def test_states_that_there_are_not_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        collect_states(tiny("codi-gpt2"), problem_set("codi-gpt2"), progress=False, **options)


def test_positions_that_are_no_slots_are_refused(tmp_path: Path) -> None:
    """In memory and in a run that keeps states, before anything is written."""
    model, asked = tiny("codi-gpt2", "float32", protocol="cot-exploration-fixed"), problem_set("codi-gpt2")
    told = r"positions are not those of slots.*Fix: use the protocol official"
    with pytest.raises(ModelError, match=told):
        collect_states(model, asked)
    keep = Keep(pd.DataFrame({"id": [problem.id for problem in asked]}), [0], "float32", untrained=False)
    with pytest.raises(ModelError, match=told):
        run_features(model, asked, keep, tmp_path / "run", study="operations", progress=False)
    assert not (tmp_path / "run").exists()
