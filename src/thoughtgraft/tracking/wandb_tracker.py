"""Weights & Biases as a tracker; the only file that imports wandb."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from thoughtgraft.records.spec import RECORDS_FOLDER, THOUGHTS_FILE
from thoughtgraft.tracking.tracker import TRACKER_FOLDER, identity

if TYPE_CHECKING:
    import pandas as pd

_WRITE_ONCE = (f"{RECORDS_FOLDER}/", THOUGHTS_FILE)
_TABLE_ROWS = 10_000  # W&B shows no more
_PATIENCE_S = 30.0


class WandbTracker:
    """Weights & Biases, one W&B run per phase; all stay open to the end, so that no upload holds up a run.

    `WANDB_MODE` and the other variables of W&B are respected. Without a mode or a key it works offline.
    """

    def __init__(self, folder: Path, project: str, group: str) -> None:
        self._folder, self._group = folder, group
        self._project = os.environ.get("WANDB_PROJECT", project)
        self._mode: Any = None
        # Asking for the key here, where nothing prompts: init would wait for an answer that nobody gives at night.
        online = wandb.setup().settings.mode == "online"
        if "WANDB_MODE" not in os.environ and online and not wandb.login(prompt=False):
            self._mode = "offline"
            where = folder / TRACKER_FOLDER
            wandb.termlog(f"no W&B key is known, so tracking is offline; to upload: wandb sync {where}/offline-run-*")
        self._runs: dict[str, Any] = {}

    def begin(self, phase: str, config: Mapping[str, Any], tags: Sequence[str]) -> None:
        """Open a W&B run named after group and phase; the same run folder goes on with the same W&B run."""
        self._folder.mkdir(parents=True, exist_ok=True)
        offline = (self._mode or os.environ.get("WANDB_MODE")) == "offline"
        # Offline there is no address to show, and what else it says has been said.
        settings = wandb.Settings(console="off", silent=offline, quiet=True, init_timeout=_PATIENCE_S)
        self._runs[phase] = run = wandb.init(
            project=self._project,
            group=os.environ.get("WANDB_RUN_GROUP", self._group),
            name=f"{self._group}_{phase}",
            job_type=phase,
            tags=[tag[:64] for tag in tags],
            config=dict(config),
            dir=os.environ.get("WANDB_DIR", str(self._folder)),
            id=f"{identity(self._folder)}-{phase}",
            resume=None if offline else "allow",
            mode=self._mode,
            reinit="create_new",
            settings=settings,
        )
        for name in ("accuracy/*", "impact_pp/*", "errors", "cells_per_s"):
            run.define_metric(name, step_metric="cells")

    def log(self, phase: str, metrics: Mapping[str, float]) -> None:
        """A point of each curve."""
        self._runs[phase].log(dict(metrics))

    def summary(self, phase: str, metrics: Mapping[str, Any]) -> None:
        """Values of the W&B run's summary."""
        self._runs[phase].summary.update(dict(metrics))

    def table(self, phase: str, name: str, table: pd.DataFrame) -> None:
        """A W&B table of the first 10,000 rows; what is no scalar becomes text."""
        plain = table.head(_TABLE_ROWS).astype(object)
        cells = [[_scalar(value) for value in row] for row in plain.itertuples(index=False, name=None)]
        columns = [str(column) for column in table.columns]
        self._runs[phase].log({name: wandb.Table(columns=columns, data=cells, allow_mixed_types=True)})

    def figure(self, phase: str, name: str, png: Path) -> None:
        """A W&B image."""
        self._runs[phase].log({name: wandb.Image(str(png))})

    def folder(self, phase: str, name: str, files: Mapping[str, Path]) -> None:
        """An artifact of type `run`; what may be written anew before it is uploaded is copied first."""
        artifact = wandb.Artifact(name, type="run")
        for inside, file in files.items():
            stays = inside.startswith(_WRITE_ONCE)
            artifact.add_file(str(file), name=inside, policy="immutable" if stays else "mutable")
        self._runs[phase].log_artifact(artifact)

    def finish(self, ok: bool) -> None:
        """Wait for the uploads and close."""
        for run in self._runs.values():
            run.finish(exit_code=0 if ok else 1)


def _scalar(value: Any) -> Any:
    """A value as a table's cell: null for what is undefined, text for what is no scalar."""
    value = value.tolist() if hasattr(value, "tolist") else value  # numpy's arrays and scalars
    if value is None or type(value).__name__ == "NAType" or value != value:
        return None
    return value if isinstance(value, str | bool | int | float) else str(value)
