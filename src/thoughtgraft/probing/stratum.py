"""One stratum of an operations study analysed: every cell, spread over processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from thoughtgraft.errors import AnalysisError
from thoughtgraft.probing.controls import Setup, control_task, map_p, numbers_outcome, probe_linear, text_outcome
from thoughtgraft.probing.probes import LINEAR, PROBES, run_probe
from thoughtgraft.probing.rows import (
    UNTRAINED,
    Folds,
    Place,
    Rows,
    joined_places,
    make_folds,
    map_places,
)
from thoughtgraft.probing.scores import Outcome, label_orders
from thoughtgraft.records.states import States
from thoughtgraft.stats.resampling import family_rng


@dataclass(frozen=True)
class Settings:
    """How an analysis of probes is done; the defaults are the study's.

    Attributes:
        folds: Folds of each cross-validation (fewer where a class has fewer distinct questions).
        repeats: How often it is repeated for the linear probe and the baselines.
        permutations: Label permutations of the linear map.
        functions: Random functions that the linear probe's control task averages over.
        probes: Which probes; `linear` makes the map and is always there.
        probe_layers: Layers at which the fitted probes are run; None: an early, a middle and a late one.
        probe_repeats: Repeats for the fitted probes.
        seed: Seed of folds, permutations, functions and fits.
        alpha: Error of the intervals of a map together.
        margin: What a verdict holds an effect against beside 0, in the unit of the score.
        n_jobs: Cells at once; None: as many as there are processors.
        progress: Whether to show progress bars.
    """

    folds: int = 10
    repeats: int = 5
    permutations: int = 200
    functions: int = 20
    probes: tuple[str, ...] = PROBES
    probe_layers: tuple[int, ...] | None = None
    probe_repeats: int = 1
    seed: int = 0
    alpha: float = 0.05
    margin: float = 0.05
    n_jobs: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if unknown := [name for name in self.probes if name not in PROBES]:
            raise AnalysisError("unknown probe", got=", ".join(unknown), expected=", ".join(PROBES))
        for name, least in (("folds", 3), ("repeats", 1), ("permutations", 1), ("functions", 1), ("probe_repeats", 1)):
            if getattr(self, name) < least:
                raise AnalysisError(f"{name} is too small", got=getattr(self, name), expected=f"at least {least}")


@dataclass(frozen=True)
class Stratum:
    """Outcomes on one stratum.

    Attributes:
        name: `test`, or `all`.
        setup: Rows, folds, permutations and control task.
        outcomes: By place and probe.
        p: By place of the map, of the linear probe: (alone, adjusted for the map).
        text: The question-only baseline on the linear probe's folds; None without questions.
        numbers: The numbers-only baseline.
    """

    name: str
    setup: Setup
    outcomes: Mapping[tuple[Place, str], Outcome]
    p: Mapping[Place, tuple[float, float]]
    text: Outcome | None
    numbers: Outcome | None

    @property
    def rows(self) -> Rows:
        """The problems."""
        return self.setup.rows

    @property
    def cells(self) -> list[Place]:
        """The cells of the map."""
        return list(self.p)

    def linear(self, place: Place) -> Outcome:
        """The linear probe's outcome."""
        return self.outcomes[place, LINEAR]

    def folds_of(self, outcome: Outcome) -> Folds:
        """The folds that gave an outcome: all of them, or the first repeats."""
        folds = self.setup.folds
        per_repeat = len(folds.folds) // folds.repeats
        return folds if len(outcome.score) == len(folds.folds) else folds.first(len(outcome.score) // per_repeat)

    @property
    def best(self) -> Place:
        """The cell of the map with the highest score: chosen on these data, so its score is optimistic."""
        return max(self.cells, key=lambda place: self.linear(place).mean)


def chosen_layers(layers: Sequence[int], wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """The layers asked for; by default a quarter, half and seven eighths of the way through those there are.

    Raises:
        AnalysisError: A layer asked for is not there.
    """
    if wanted is not None:
        if missing := [layer for layer in wanted if layer not in layers]:
            raise AnalysisError("the features lack layers", got=missing, expected=list(layers))
        return wanted
    return tuple(dict.fromkeys(layers[min(int(share * len(layers)), len(layers) - 1)] for share in (0.25, 0.5, 0.875)))


def index_in(source: States, ids: Sequence[str]) -> np.ndarray:
    """Rows of some problems in another source's matrices.

    Raises:
        AnalysisError: It does not have them all.
    """
    place = {str(name): row for row, name in enumerate(source.ids)}
    if missing := [name for name in ids if name not in place]:
        raise AnalysisError(
            "the untrained model's features lack problems",
            got=f"{len(missing)} missing, {missing[0]} among them",
            fix="extract them for the same problems",
        )
    return np.array([place[name] for name in ids])


def analyse_stratum(
    name: str, rows: Rows, source: States, settings: Settings, untrained: States | None = None
) -> Stratum:
    """Run the linear map with its null and controls, the joined features, the fitted probes and the text baselines.

    Raises:
        AnalysisError: There are too few problems for three folds.
    """
    seed = settings.seed
    setup = Setup(
        rows,
        make_folds(rows, settings.folds, settings.repeats, seed),
        label_orders(rows.groups, rows.split, settings.permutations, family_rng(seed, "permute", rows.target, name)),
        control_task(rows, settings.functions, family_rng(seed, "control", rows.target)),
    )
    cells = map_places(source)
    places = cells + joined_places(source)
    tasks: list[tuple[States, Place, np.ndarray]] = [(source, place, rows.index) for place in places]
    if untrained is not None:
        other = index_in(untrained, rows.ids)
        tasks += [(untrained, place, other) for place in map_places(untrained, UNTRAINED)]
    words = f"{rows.target}, {name}"

    def linear(task: tuple[States, Place, np.ndarray]) -> Outcome:
        where, place, index = task
        return probe_linear(place.load(where, index), setup)

    options = {"n_jobs": settings.n_jobs, "progress": settings.progress}
    found = each(linear, tasks, what=f"map ({words})", **options)  # type: ignore[arg-type]
    outcomes = {(place, LINEAR): outcome for (_, place, _), outcome in zip(tasks, found, strict=True)}

    layers = chosen_layers(source.layers, settings.probe_layers)
    fitted = [
        (place, probe) for place in cells if place.layer in layers for probe in settings.probes if probe != LINEAR
    ]

    light = replace(setup, orders=setup.orders[:1])
    jobs = [Fit(place.load(source, rows.index), probe, light, settings) for place, probe in fitted]
    done = each(_fitted, jobs, what=f"probes ({words})", processes=True, **options)  # type: ignore[arg-type]
    outcomes |= dict(zip(fitted, done, strict=True))
    alone, whole = map_p([outcomes[place, LINEAR] for place in cells])
    p = {place: (float(a), float(w)) for place, a, w in zip(cells, alone, whole, strict=True)}
    return Stratum(name, setup, outcomes, p, text_outcome(rows, setup.folds), numbers_outcome(rows, setup.folds))


@dataclass(frozen=True)
class Fit:
    """One fitted probe to be cross-validated: all that a worker process needs."""

    x: np.ndarray
    probe: str
    setup: Setup
    settings: Settings


def _fitted(fit: Fit) -> Outcome:
    """One fitted probe with its control task (one random function: each more would cost a cross-validation)."""
    setup, seed = fit.setup, fit.settings.seed
    folds, control = setup.folds.first(fit.settings.probe_repeats), setup.control
    outcome = run_probe(fit.probe, fit.x, setup.rows, folds, seed)
    part = folds.within(control.rows) if control.defined else None
    if part is None:
        return outcome
    labelled = replace(setup.rows, values=control.values[0]).take(control.rows)
    return replace(outcome, control=run_probe(fit.probe, fit.x[control.rows], labelled, part, seed).score)


Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    n_jobs: int | None,
    what: str,
    progress: bool,
    processes: bool = False,
) -> list[Result]:
    """`work` on every item, several at once.

    Linear algebra gives up the interpreter, so threads are enough for it, each with one linear-algebra thread. Fitting
    many small models does not, so it wants processes.

    Args:
        work: A function without shared state; for processes one that can be pickled.
        items: Its arguments.
        n_jobs: Workers; None: as many as there are processors.
        what: Words beside the progress bar.
        progress: Whether to show it.
        processes: Whether workers are processes.
    """
    workers = min(n_jobs or available_cores(), max(len(items), 1))
    with tqdm(total=len(items), desc=what, disable=not progress) as bar:
        if processes and workers > 1:
            found = []
            for result in Parallel(workers, return_as="generator")(delayed(_quiet)(work, item) for item in items):
                bar.update()
                found.append(result)
            return found

        def step(item: Item) -> Result:
            result = work(item)
            bar.update()
            return result

        with threadpool_limits(1), warnings.catch_warnings(), ThreadPoolExecutor(1 if processes else workers) as pool:
            warnings.simplefilter("ignore", ConvergenceWarning)
            return list(pool.map(step, items))


def _quiet(work: Callable[[Item], Result], item: Item) -> Result:
    """In a worker process: a probe that stops at its iteration budget is the probe as specified, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return work(item)
