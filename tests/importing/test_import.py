"""Foreign files come in with the right numbering, and hostile ones do nothing."""

from __future__ import annotations

import collections
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from thoughtgraft.cli.app import app
from thoughtgraft.errors import ForeignFileError, ThoughtgraftError
from thoughtgraft.importing.convert import read_foreign

QUESTION = "Tom has 2 bags.  He buys 3 bags. How many bags?"
ANSWER = "He has 2+3=<<2+3=5>>5 bags\n#### 5"


def cache(n: int = 3, k: int = 6, d: int = 8) -> dict[int, dict[str, Any]]:
    torch.manual_seed(0)
    return {
        i: {
            "idx": 10 * i,
            "question": QUESTION,
            "answer": ANSWER,
            "gold_numeric": 5,
            "ct_hidden_states": torch.randn(k, d),
            "baseline_prediction": f"The answer is: {5 + i}",
            "baseline_correct": i == 0,
        }
        for i in range(n)
    }


def dump(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "ct_hidden_states_cache_x.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def read_features(folder: Path) -> tuple[str, np.ndarray, dict[str, Any]]:
    with safe_open(folder / "features.safetensors", "np") as file:
        (name,) = file.keys()
        return name, file.get_tensor(name), {k: json.loads(v) for k, v in file.metadata().items()}


# --- the cache


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_cache_keeps_every_number_and_the_labels(tmp_path: Path, protocol: int) -> None:
    made = cache()
    found = read_foreign(dump(tmp_path, made, protocol))
    found.write(tmp_path / "out", tmp_path / "ct_hidden_states_cache_x.pkl")
    name, values, axes = read_features(tmp_path / "out")
    assert name == "hidden"
    assert np.array_equal(values, torch.stack([row["ct_hidden_states"] for row in made.values()]).numpy())
    assert axes == {"ids": ["test_0", "test_10", "test_20"], "positions": ["BOT", "CT0", "CT1", "CT2", "CT3", "CT4"]}
    table = pd.read_parquet(tmp_path / "out" / "problems.parquet")
    assert list(table.id) == axes["ids"]
    assert list(table.question) == [QUESTION] * 3
    assert list(table.answer) == [ANSWER] * 3
    assert list(table.gold) == ["5"] * 3
    assert list(table.baseline_prediction) == [f"The answer is: {n}" for n in (5, 6, 7)]
    assert list(table.baseline_correct) == list(table.baseline_correct_exact) == [True, False, False]
    assert list(table.n_steps) == [1, 1, 1]


def test_bfloat16_states_come_as_float32(tmp_path: Path) -> None:
    made = cache(1)
    exact = made[0]["ct_hidden_states"].bfloat16()
    made[0]["ct_hidden_states"] = exact
    found = read_foreign(dump(tmp_path, made))
    assert found.features is not None
    assert np.array_equal(found.features[0], exact.float().numpy())


def test_the_shift_is_explained(tmp_path: Path) -> None:
    notes = " ".join(read_foreign(dump(tmp_path, cache())).notes)
    for words in (
        "cache[k] is hidden[k]",
        "fed is not in the file",
        "the host is fed fed[k-1]",
        "BOT and five thoughts",
        "hidden[0] comes from position BOT",
    ):
        assert words in notes


def test_the_real_pilot_cache(shared_data: Path, gsm8k_dir: Path, tmp_path: Path) -> None:
    path = shared_data / "seed" / "ct_hidden_states_cache_pilot.pkl"
    if not path.is_file():
        pytest.skip("needs the pilot cache (shared/data/seed)")
    result = CliRunner().invoke(app, ["import", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "20 problems, hidden[0..5] of width 2048, 14 correct" in result.stdout
    name, values, axes = read_features(tmp_path / "out")
    assert (name, values.shape, len(axes["ids"])) == ("hidden", (20, 6, 2048), 20)
    table = pd.read_parquet(tmp_path / "out" / "problems.parquet")
    assert int(table.baseline_correct.sum()) == int(table.baseline_correct_exact.sum()) == 14
    lines = (gsm8k_dir / "test.jsonl").read_text(encoding="utf-8").splitlines()
    for row in table.itertuples():  # idx is the row of the test split: the ids mean what they say
        assert json.loads(lines[int(row.id.removeprefix("test_"))])["question"] == row.question


# --- hostile and damaged pickles


class Calls:
    """Unpickling it calls something."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Built:
    """Unpickling it sets the state of an object."""

    def __reduce__(self) -> tuple[Any, ...]:
        return collections.OrderedDict, (), {"state": 1}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "executed"
    path = dump(tmp_path, {0: Calls(Path.touch, marker)}, protocol)
    with pytest.raises(ForeignFileError, match="nothing in it was executed"):
        read_foreign(path)
    assert not marker.exists()


def test_code_inside_a_tensors_bytes_is_refused_and_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"x": Calls(Path.touch, marker)}, tmp_path / "inner", _use_new_zipfile_serialization=False)
    inner = (tmp_path / "inner").read_bytes()
    path = dump(tmp_path, {0: Calls(torch.storage._load_from_bytes, inner)})
    with pytest.raises(ForeignFileError, match="nothing in it was executed; got code inside a tensor's bytes"):
        read_foreign(path)
    assert not marker.exists()


def call(name: str, arguments: bytes) -> bytes:
    module, function = name.rsplit(".", 1)
    return b"\x80\x04c" + module.encode() + b"\n" + function.encode() + b"\n" + arguments + b"R."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(Built(), 4), "the step BUILD, which builds objects"),
        (b"\x80\x04}r\xff\xff\xff\x7f.", "a memory place far outside"),
        (b"\x80\x04" + b"N" * 1_000_001 + b".", "more than 1,000,000 steps"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system"),
        (call("builtins.eval", b"X\x01\x00\x00\x001\x85"), "builtins.eval"),
        (call("torch.storage._load_from_bytes", b"X\x01\x00\x00\x001\x85"), "a storage that is not bytes"),
        (call("torch._utils._rebuild_tensor_v2", b"(K\x01K\x00)))" + b"t"), "a tensor without numbers"),
        (b"", "is damaged or no pickle"),
        (b"\x80\x04}q\x00(X\x05\x00", "is damaged or no pickle"),
        (b"no pickle", "is damaged or no pickle"),
    ],
)
def test_what_data_does_not_need_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(ForeignFileError) as caught:
        read_foreign(path)
    assert said in str(caught.value)


def test_a_tensor_may_not_claim_more_than_it_has(tmp_path: Path) -> None:
    made = cache(1)
    made[0]["ct_hidden_states"] = torch.zeros(1, 1).expand(10**6, 10**6)
    with pytest.raises(ForeignFileError, match="a tensor with strides"):
        read_foreign(dump(tmp_path, made))
    made[0]["ct_hidden_states"] = torch.zeros(6, 300)
    path = dump(tmp_path, made)
    content = path.read_bytes()
    wide = content.replace(b"M" + struct.pack("<H", 300), b"J" + struct.pack("<i", 10**9))
    path.write_bytes(wide.replace(b"\x80\x04\x95" + content[3:11], b"\x80\x04", 1))  # without the frame's length
    assert wide != content
    with pytest.raises(ForeignFileError, match="nothing in it was executed; got a tensor"):
        read_foreign(path)


def test_truncated_cache(tmp_path: Path) -> None:
    path = dump(tmp_path, cache())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ForeignFileError, match="is damaged or no pickle"):
        read_foreign(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c[1].pop("idx"), "no idx"),
        (lambda c: c[1].update(idx="51"), "idx is a str; expected a int"),
        (lambda c: c[1].update(ct_hidden_states=torch.ones(5, 8)), "states of different shapes"),
        (lambda c: c[1].update(baseline_correct=torch.ones(2)), "baseline_correct is a ndarray"),
        (lambda c: c[1].update(question=""), "question"),
        (lambda c: c[1].update(idx=0), "occurs twice"),
        (lambda c: c.clear(), "a dict of problems"),
    ],
)
def test_another_layout_is_named(tmp_path: Path, change: Callable[[Any], Any], said: str) -> None:
    made = cache()
    change(made)
    with pytest.raises(ThoughtgraftError) as caught:
        read_foreign(dump(tmp_path, made))
    assert said in str(caught.value)


# --- JSON


def results() -> dict[str, Any]:
    per = [{"problem_a_idx": i, "baseline_correct": i > 0, "swapped_correct": [True, False]} for i in range(3)]
    return {"metadata": {"phase": "pilot"}, "results": {f"CT{k}": {"per_problem_results": per} for k in range(6)}}


def thoughts() -> list[dict[str, Any]]:
    def one(i: int) -> dict[str, Any]:
        layers = {
            name: np.full((6, 4), 100 * i + 10 * j).tolist() for j, name in enumerate(("early", "middle", "late"))
        }
        for rows in layers.values():
            for token in range(6):
                rows[token][0] = token
        kind = ("pure_addition", "mixed")[i % 2]
        return {
            "id": f"train_{i}", "question": QUESTION, "answer": ANSWER, "thoughts": layers, "operation_type": kind
        }  # fmt: skip

    return [one(i) for i in range(4)]


def put(folder: Path, content: object) -> Path:
    path = folder / "x.json"
    path.write_text(json.dumps(content))
    return path


def test_results_become_a_table_that_warns(tmp_path: Path) -> None:
    found = read_foreign(put(tmp_path, results()))
    table = found.tables["generations"]
    assert len(table) == 6 * 3 * 2
    assert table.groupby("its_position").correct.mean().eq(0.5).all()
    assert found.features is None
    assert "36 generations: 3 hosts, 6 positions, 2 draws each" in found.summary
    assert "its_position CTk is not slot k" in " ".join(found.notes)
    assert [file.name for file in found.write(tmp_path / "out", tmp_path / "x.json")] == [
        "generations.parquet",
        "import.json",
    ]


def test_thoughts_by_layer_are_renumbered(tmp_path: Path) -> None:
    found = read_foreign(put(tmp_path, thoughts()))
    found.write(tmp_path / "out", tmp_path / "x.json")
    name, values, axes = read_features(tmp_path / "out")
    assert (name, values.shape, axes["layers"]) == ("resid", (4, 6, 3, 4), [3, 7, 13])
    assert axes["positions"][:3] == ["BOT", "CT0", "CT1"]
    assert axes["ids"] == [f"train_{i}" for i in range(4)]
    assert values[2, :, 1, 0].tolist() == [0, 1, 2, 3, 4, 5]  # tokens stay in order
    assert values[3, 0, :, 1].tolist() == [300, 310, 320]  # and so do layers
    assert list(found.tables["problems"].operation_type[:2]) == ["pure_addition", "mixed"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"accuracy": 0.7}, "a layout that is not known; got ['accuracy']"),
        ([], "a layout that is not known"),
        ([{"id": 1}], "a layout that is not known"),
        ({"results": {"mean": 1}}, "results.mean"),
        ({"results": {}}, "no generations"),
        ({"results": {"CT0": {"per_problem_results": [{"problem_a_idx": 0}]}}}, "no baseline_correct, swapped_correct"),
        ([{**thoughts()[0], "thoughts": {"layer_8": []}}], "layers named early, middle, late"),
        ([{**thoughts()[0], "id": "seven"}], "an id such as train_7075"),
        ([{**thoughts()[0], "thoughts": {"early": [["a"]]}}], "a layout that is not known"),
    ],
)
def test_json_of_another_layout_is_refused(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(ForeignFileError) as caught:
        read_foreign(put(tmp_path, content))
    assert said in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(ForeignFileError, match="is not readable JSON"):
        read_foreign(tmp_path / "x.json")
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(ForeignFileError, match=r"no file that can be imported; got '\.csv'"):
        read_foreign(tmp_path / "x.csv")
    with pytest.raises(ForeignFileError, match="there is no file"):
        read_foreign(tmp_path / "nowhere.pkl")


# --- writing


def test_a_folder_is_never_overwritten_with_something_else(tmp_path: Path) -> None:
    path = dump(tmp_path, cache())
    out = tmp_path / "out"
    read_foreign(path).write(out, path)
    read_foreign(path).write(out, path)  # the same again is no harm
    other = dump(tmp_path, cache(2))
    with pytest.raises(ForeignFileError, match="holds something else"):
        read_foreign(other).write(out, other)
    result = CliRunner().invoke(app, ["import", str(other), "--out", str(out)])
    assert result.exit_code == 2
    assert "choose another folder with --out" in result.stderr
