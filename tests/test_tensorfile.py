"""Tensors that are written can be read, by whom the system lets read new files."""

from __future__ import annotations

import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from thoughtgraft.tensorfile import save_tensors


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_tensors({"a": torch.arange(3)}, tmp_path / "x.safetensors", {"format": "pt"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == mode
    assert load_file(tmp_path / "x.safetensors")["a"].tolist() == [0, 1, 2]
