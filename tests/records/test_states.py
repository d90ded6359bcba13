"""Features on disk: what a run kept and what a user brings come out as the numbers that went in, or as an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from tests.architecture import SRC

from thoughtgraft.errors import RunError
from thoughtgraft.files import map_tensors
from thoughtgraft.records.states import load_states

N, P, L, D = 5, 3, 2, 4


def blocks() -> torch.Tensor:
    return torch.randn(N, P, L, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder in two files, whose rows do not lie in the order of the problems."""
    (tmp_path / "features").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"schema_version": 1, "study": "operations", "plan": {"rule": "x"}}))
    pd.DataFrame({"id": [f"p{i}" for i in range(N)], "operation": list("aabbc")}).to_parquet(
        tmp_path / "problems.parquet"
    )
    for name, rows in (("one", [3, 0]), ("two", [4, 2, 1])):
        write(tmp_path / "features" / f"{name}.safetensors", rows, torch.bfloat16)
    return tmp_path


def write(path: Path, rows: list[int], dtype: torch.dtype, **metadata: str) -> None:
    known = {"ids": [f"p{i}" for i in rows], "layers": [1, 3], "positions": ["BOT", "CT0", "CT1"]}
    text = {name: json.dumps(value) for name, value in known.items()} | {"made_from": "h"} | metadata
    tensors = {"resid": blocks()[rows].to(dtype), "hidden": blocks()[rows, :, -1].contiguous().to(dtype)}
    save_file(tensors, path, metadata=text)


def test_a_run_gives_each_problem_its_own_row(run: Path) -> None:
    features = load_states(run)
    expected = blocks().to(torch.bfloat16).float().numpy()
    assert (features.ids, features.layers, features.positions) == (
        tuple(f"p{i}" for i in range(N)),
        (1, 3),
        ("BOT", "CT0", "CT1"),
    )
    assert (len(features), features.width, features.facts["plan"]) == (N, D, {"rule": "x"})
    for p, position in enumerate(features.positions):
        for at, layer in enumerate(features.layers):
            found = features.matrix(layer, position)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected[:, p, at])
        np.testing.assert_array_equal(features.matrix("hidden", position), expected[:, p, -1])
    np.testing.assert_array_equal(features.matrix(3, 2), features.matrix(3, "CT1"))
    assert list(features.labels["operation"]) == list("aabbc")


def test_some_problems_keep_their_rows(run: Path) -> None:
    whole = load_states(run)
    some = whole.select(["p4", "p0"])
    np.testing.assert_array_equal(some.matrix(1, "BOT"), whole.matrix(1, "BOT")[[4, 0]])
    assert list(some.labels["operation"]) == ["c", "a"]
    with pytest.raises(RunError, match="no features of 1 problems; got p9"):
        whole.select(["p9"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_type_is_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    values = blocks().to(dtype)
    save_file({"resid": values, "count": torch.arange(3)}, tmp_path / "x.safetensors")
    tensors, _ = map_tensors(tmp_path / "x.safetensors")
    assert list(tensors) == ["resid"]
    np.testing.assert_array_equal(tensors["resid"].take(slice(None)), values.float().numpy())


@pytest.mark.parametrize("shape", [(N, D), (N, P, D), (N, P, L, D)])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_users_arrays_of_each_layout(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    values, path = torch.randn(shape), tmp_path / f"mine{suffix}"
    if suffix == ".npz":
        np.savez(path, mine=values.numpy(), kind=np.array(list("xyxyx")))
    else:
        save_file({"mine": values}, path)
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"target": range(N)}).to_csv(labels, index=False)
    features = load_states(path, labels)
    positions, layers = (shape[1] if len(shape) > 2 else 1), (shape[2] if len(shape) > 3 else 1)
    assert features.positions == tuple(f"P{p}" for p in range(positions))
    assert features.layers == tuple(range(layers)) and not features.has_hidden
    np.testing.assert_array_equal(
        features.matrix(layers - 1, positions - 1), values.reshape(N, positions, layers, D)[:, -1, -1].numpy()
    )
    assert list(features.labels["target"]) == list(range(N))
    assert ("kind" in features.labels) == (suffix == ".npz")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_labels_are_matched_by_id(tmp_path: Path, suffix: str) -> None:
    np.savez(tmp_path / "x.npz", features=np.eye(3), ids=np.array(["a", "b", "c"]), layers=[7], positions=["CT0"])
    table = pd.DataFrame({"id": ["c", "d", "a", "b"], "target": [3, 4, 1, 2]})
    path = tmp_path / f"labels{suffix}"
    {".csv": lambda: table.to_csv(path, index=False), ".parquet": lambda: table.to_parquet(path)}.get(
        suffix, lambda: table.to_json(path, orient="records")
    )()
    features = load_states(tmp_path / "x.npz", path)
    assert (features.layers, features.positions) == ((7,), ("CT0",))
    assert list(features.labels["target"]) == [1, 2, 3]


def test_what_is_not_there_is_named(run: Path) -> None:
    features = load_states(run)
    with pytest.raises(RunError, match="has no layer 2; expected 1, 3"):
        features.matrix(2, "BOT")
    with pytest.raises(RunError, match="has no position 'CT9'; expected BOT, CT0, CT1"):
        features.matrix(1, "CT9")
    with pytest.raises(RunError, match=r"holds no features; .*thoughtgraft run operations"):
        load_states(run, folder="features-untrained")


def test_an_unfinished_run_is_not_read_as_a_finished_one(run: Path) -> None:
    (run / "features" / "two.safetensors").unlink()
    with pytest.raises(RunError, match=r"only 2 of 5 problems.* Fix: run the command that made this run again"):
        load_states(run)


def test_features_of_two_models_are_never_joined(run: Path) -> None:
    write(run / "features" / "two.safetensors", [4, 2, 1], torch.bfloat16, made_from="other")
    with pytest.raises(RunError, match=r"do not belong together; got .*made from other"):
        load_states(run)


def test_infinite_values_are_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.array([[1.0, 2.0], [np.inf, 0.0]]), ids=np.array(["a", "b"]))
    with pytest.raises(RunError, match="not finite; got problem b, layer 0, position P0"):
        load_states(tmp_path / "x.npz").matrix(0, 0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.zeros(3)}, "does not say which array holds the features"),
        ({"features": np.zeros((1, 1, 1, 1, 1))}, r"another layout; got shape \[1, 1, 1, 1, 1\]"),
        ({"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}, "does not say which array .* got a, b"),
        ({"features": np.zeros((2, 2)), "ids": np.array(["a"])}, "ids do not fit the features; got 1 of them; .* of 2"),
        ({"features": np.zeros((2, 2)), "ids": np.array(["a", "a"])}, "ids occur twice"),
        ({"features": np.zeros((2, 2)), "layers": np.array(["x"])}, "layers are not whole numbers"),
        ({"features": np.array([["a"]], dtype=object)}, "not a readable .npz file.*without pickled objects"),
    ],
)
def test_a_file_of_another_layout_is_explained(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=message):
        load_states(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"y": [1, 2]}, "2 rows and no column id; expected 3 rows"),
        ({"id": ["a", "b"], "y": [1, 2]}, "has no row for 1 of 3 problems; got no id 'c'"),
        ({"id": ["a", "b", "b"], "y": [1, 2, 3]}, "two rows for one problem; got id b"),
    ],
)
def test_labels_that_do_not_fit_are_explained(tmp_path: Path, table: dict[str, list[object]], message: str) -> None:
    np.savez(tmp_path / "x.npz", features=np.eye(3), ids=np.array(["a", "b", "c"]))
    pd.DataFrame(table).to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(RunError, match=message):
        load_states(tmp_path / "x.npz", tmp_path / "y.csv")


@pytest.mark.parametrize("keep", [0, 4, 40, -20])
def test_a_damaged_file_is_an_error_with_its_name(run: Path, keep: int) -> None:
    file = run / "features" / "one.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"one\.safetensors is not a readable safetensors file"):
        load_states(run)


def test_reading_needs_no_torch(run: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from thoughtgraft.records.states import load_states; "
    code += f"print(load_states({str(run)!r}).matrix(1, 'CT0').shape)"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == f"({N}, {D})", result.stderr
