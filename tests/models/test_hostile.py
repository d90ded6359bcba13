"""Files made to hurt are refused within a second and 500 MB, and nothing in them is executed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.models import hostile

SAID = {
    "header of 2^60 bytes": "whose header claims",
    "header of 90 MB": "a header larger than any model's",
    "10^9 rows without bytes": "truncated or not a safetensors file",
    "10^9 rows of hole": "larger than any model's",
    "10^9 rows over one number": "claims more than it stores",
    "10^9 rows on no device": "as no plain tensor",
    "10^13 numbers in the older format": "truncated",
    "layer 10^9": "numbered past their own count",
    "zip bomb": "compressed archive",
    "zip with a comment": "is truncated",
    "pickle nested as deep as is let through": "a pickle larger than any model's",
    "zip directory of 1 GB": "a directory larger than any model's",
    "pickle of 50 MB": "a pickle larger than any model's",
    "older format with a pickle of 50 MB": "a pickle larger than any model's",
    "code in a zip file": "nothing in it was executed",
    "code in an older file": "nothing in it was executed",
    "code in a bare pickle": "nothing in it was executed",
    "code in an adapter": "nothing in it was executed",
    "nested config": "not JSON",
    "nested index": "is not a shard index",
    "index of other files": "outside its own folder",
    "link to a device": "is a link out of its folder",
    "link to another folder": "is a link out of its folder",
    "names that write on the terminal": "names a tensor as no model does",
    "a name of 1 MB": "names a tensor as no model does",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_hostile_files_are_refused_cheaply_and_executed_never(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    names = hostile.write_all(tmp_path / "attacks", marker)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.hostile", str(tmp_path / "attacks"), str(len(names))],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
        stdin=subprocess.DEVNULL,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = dict(zip(names, json.loads(done.stdout.splitlines()[-1]), strict=True))
    assert not marker.exists()
    for name, result in results.items():
        assert result["loads"] is False, (name, result["words"])
        assert SAID.get(name, "") in result["words"], (name, result["words"])
        assert "\x1b" not in result["words"]
        assert len(result["words"]) < 5000
        # A slow processor is slow with sound files too.
        assert result["seconds"] < max(1, 20 * result["sound"]), (name, result["seconds"])
        assert result["peak_mb"] < 500, (name, result["peak_mb"])
