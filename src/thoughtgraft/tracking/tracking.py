"""Follow a run from elsewhere: `open_tracking`, by the tracker's name."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from thoughtgraft.arguments import choice
from thoughtgraft.errors import MissingExtraError, RunError
from thoughtgraft.records.spec import (
    RECORDS_FOLDER,
)
from thoughtgraft.records.status import read_status
from thoughtgraft.tracking.tracker import Tracker, configuration, final_metrics, identity, run_files, running_metrics

if TYPE_CHECKING:
    pass


_EVERY_S, _SHARE = 5.0, 0.05  # looks are so far apart, and take at most this share of the time


class Tracking:
    """Tells a tracker of a run folder; use it in a `with` around the run. Nothing that a tracker does stops the run.

    Phases: `extraction` (problems, clean thoughts), the study's own (how the cells come along), `analysis` (final
    metrics, tables, figures and the folder).

    Args:
        tracker: Makes who is told; None for nobody.
        run: The run's folder.
        study: Name of the study's own phase.
        tags: Tags beside phase, model and protocol.
    """

    def __init__(
        self, tracker: Callable[[], Tracker] | None, run: str | Path, study: str, tags: tuple[str, ...] = ()
    ) -> None:
        self._make, self._run, self._study, self._tags = tracker, Path(run), study, tags
        self._tracker: Tracker | None = None
        self._begun: set[str] = set()
        self._warned = self._given_up = False
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._make is not None:
            try:
                self._tracker = self._make()
            except Exception as error:
                self._warn(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._publish()
        self._given_up = False  # what was opened is closed all the same
        self._safely(lambda tracker: tracker.finish(kind is None))

    def watch(self) -> None:
        """Look at the run's folder and tell how far it is; looks seldom enough to cost little."""
        if self._tracker is None or time.monotonic() < self._next:
            return
        start = time.monotonic()
        self._begin("extraction")
        if (self._run / RECORDS_FOLDER).is_dir():  # not every study makes records
            self._begin(self._study)
            self._safely(lambda tracker: tracker.log(self._study, running_metrics(read_status(self._run))))
        now = time.monotonic()
        self._next = now + max(_EVERY_S, (now - start) / _SHARE)

    def _publish(self) -> None:
        """Tell everything that the finished folder holds."""
        if self._tracker is None:
            return
        self._next = 0.0
        self.watch()
        self._begin("analysis")
        for name in ("problems", "decoded"):
            self._table("extraction", name, self._run / f"{name}.parquet")
        for file in sorted(self._run.glob("analysis/*.parquet")):
            self._table("analysis", f"analysis/{file.stem}", file)
        for file in sorted(self._run.glob("figures/*.png")):
            self._figure(f"figures/{file.stem}", file)
        self._safely(lambda tracker: tracker.summary("analysis", final_metrics(self._run)))
        name = f"{self._study}-{identity(self._run)}"
        self._safely(lambda tracker: tracker.folder("analysis", name, run_files(self._run)))

    def _begin(self, phase: str) -> None:
        if phase in self._begun:
            return
        self._begun.add(phase)

        def begin(tracker: Tracker) -> None:
            config = configuration(self._run)
            more = [str(config[name]) for name in ("model", "protocol") if name in config]
            tracker.begin(phase, config, [*self._tags, phase, *more])

        # Nothing can be told to a phase that did not open, and trying again could cost minutes without a network.
        self._given_up |= not self._safely(begin)

    def _table(self, phase: str, name: str, file: Path) -> None:
        def tell(tracker: Tracker) -> None:
            import pandas as pd

            tracker.table(phase, name, pd.read_parquet(file))

        if file.is_file():
            self._safely(tell)

    def _figure(self, name: str, file: Path) -> None:
        self._safely(lambda tracker: tracker.figure("analysis", name, file))

    def _safely(self, act: Callable[[Tracker], None]) -> bool:
        """Whatever goes wrong is said once, and the run goes on."""
        if self._tracker is None or self._given_up:
            return False
        try:
            act(self._tracker)
        except Exception as error:
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(f"tracking failed, the run goes on without it ({reason})", stacklevel=5)


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
