"""Follow a run from elsewhere: `open_tracking`, by the tracker's name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from thoughtgraft.arguments import choice
from thoughtgraft.errors import MissingExtraError, RunError
from thoughtgraft.tracking.tracker import Tracker
from thoughtgraft.tracking.tracking import Tracking

__all__ = ["TRACKERS", "Tracker", "Tracking", "check_tracker", "open_tracking"]

TRACKERS = ("none", "wandb")


def check_tracker(name: str) -> str:
    """The name, if there is such a tracker and it is installed.

    Raises:
        RunError: There is no tracker of this name.
        MissingExtraError: It is not installed.
    """
    choice(name, "tracker", TRACKERS, RunError)
    if name == "wandb" and importlib.util.find_spec("wandb") is None:
        raise MissingExtraError("wandb", "wandb")
    return name


def open_tracking(name: str, run: str | Path, *, study: str, group: str) -> Tracking:
    """What tells the tracker of this name of a run; use it in a `with` around the run.

    Args:
        name: `none` or `wandb`.
        run: The run's folder; it need not exist yet.
        study: The study; its W&B project is `codi-` and this.
        group: What goes together, such as the preset: W&B runs are named by it and by their phase.

    Raises:
        RunError: There is no tracker of this name.
        MissingExtraError: It is not installed.
    """
    folder, project = Path(run), f"codi-{study}"
    if check_tracker(name) == "none":
        return Tracking(None, folder, study)

    def make() -> Tracker:
        from thoughtgraft.tracking.wandb_tracker import WandbTracker

        return WandbTracker(folder, project, group)

    return Tracking(make, folder, study, (project, group))
