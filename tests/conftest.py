"""What every test shares: one thread per worker, no network, no display, and the real data where it exists."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from hypothesis import settings

# Set before torch, matplotlib or the hub is imported by a test. The tensors here are tiny: more threads only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"
os.environ["MPLBACKEND"] = "Agg"

# No deadline: a busy machine is not a wrong result. Derandomized: a failure is the same failure everywhere.
settings.register_profile("thoughtgraft", deadline=None, derandomize=True)
settings.load_profile("thoughtgraft")

# Shapes in signatures are checked where tensors are transformed. Not everywhere: where users' input arrives, our own
# errors must answer it, and the checker would speak first.
jaxtyping.install_import_hook(["thoughtgraft.thoughts", "thoughtgraft.readouts"], "beartype.beartype")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the repository; the test is skipped where there is none."""
    for base in (ROOT, ROOT.parent):
        if (base / "shared" / "data").is_dir():
            return base / "shared" / "data"
    pytest.skip("needs the development data (shared/data)")


@pytest.fixture(scope="session")
def gsm8k_dir(shared_data: Path) -> Path:
    """The folder with GSM8K's train.jsonl and test.jsonl."""
    folder = shared_data / "gsm8k"
    if not (folder / "test.jsonl").is_file():
        pytest.skip("needs GSM8K's jsonl files (shared/data/gsm8k)")
    return folder


@pytest.fixture
def rule1_run(tmp_path: Path) -> Path:
    """A copy of the stored run of schema 1 that was judged by rule 1; its README says how it was made."""
    return Path(shutil.copytree(ROOT / "tests" / "stored" / "rule1-schema1", tmp_path / "rule1"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print which planted mistake was caught by what, where those tests have run."""
    reports = [r for outcome in ("passed", "failed") for r in terminalreporter.stats.get(outcome, [])]
    caught = [value for r in reports for name, value in getattr(r, "user_properties", ()) if name == "mutation"]
    if caught:
        terminalreporter.section("planted mistakes, and what caught them")
        for mistake, by, checks in caught:
            terminalreporter.write_line(f"{mistake:58} {by:15} {checks}")
