"""Whether two folders hold the same run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

CIRCUMSTANCES = {"started_utc", "command"}
OF_A_START = ("starts.json", "heartbeat.json", "DATA.md")


def neutral(text: str) -> str:
    """A text without how and when a run was started, and how long that took."""
    text = re.sub(r"^(run_study\(|thoughtgraft\b).*$", "COMMAND", text, flags=re.MULTILINE)
    return re.sub(r"20\d\d-\d\d-\d\d[T\d:+Z-]*|\b[\d.]+ (s|MB|min)\b", "", text)


def same_run(one: Path, other: Path) -> None:
    """Everything that two folders hold is the same, but for times, the command, and the folders' own names."""
    folders = (one, other)
    names = [sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()) for path in folders]
    assert names[0] == names[1]
    for name in names[0]:
        files = [path / name for path in folders]
        if name.endswith(".parquet"):
            pd.testing.assert_frame_equal(*map(pd.read_parquet, files))
        elif Path(name).name == "run.json":
            specs = [json.loads(file.read_text()) for file in files]
            facts = [{k: v for k, v in spec.pop("provenance").items() if k not in CIRCUMSTANCES} for spec in specs]
            assert specs[0] == specs[1] and facts[0] == facts[1]
            assert specs[0]["options"] is None or specs[0]["options"]["seed"] == 0
        elif name.endswith((".md", ".json", ".csv")) and Path(name).name not in OF_A_START:
            texts = [
                neutral(file.read_text().replace(str(path.parent), ""))
                for file, path in zip(files, folders, strict=True)
            ]
            assert texts[0] == texts[1], name
        elif name.endswith(".npy"):
            np.testing.assert_array_equal(*map(np.load, files))
        elif name.endswith(".safetensors"):
            tensors = [load_file(file) for file in files]
            assert tensors[0].keys() == tensors[1].keys()
            assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0]), name
