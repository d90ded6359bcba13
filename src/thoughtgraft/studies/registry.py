"""The studies by name, and the two doors to them in Python: `run_study`, which makes a run, and `load_run`."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thoughtgraft import studies
from thoughtgraft.arguments import answers_for_calls, choice, path_of, shown
from thoughtgraft.errors import AnalysisError, PlanError, RunError
from thoughtgraft.studies.options import Options
from thoughtgraft.studies.study import Door, Study

if TYPE_CHECKING:
    from thoughtgraft.engine.executors import Executor
    from thoughtgraft.studies.run import Run

GENERAL = "resampling"
"""The study that reads runs of no study of this package: its page shows any arms."""


class Studies(Mapping[str, Study[Any, Any, Any]]):
    """Every study by name. A folder of this one with `STUDY = "module:Class"` is one; it is imported when asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, name: str) -> Study[Any, Any, Any]:
        if name not in self.words:
            raise KeyError(name)
        return _study(name)

    @property
    def words(self) -> dict[str, str]:
        """What each asks, in one line, by name; imports none of them."""
        return _words()


STUDIES = Studies()


@cache
def _words() -> dict[str, str]:
    found = {}
    for folder in pkgutil.iter_modules(studies.__path__):
        room = import_module(f"{studies.__name__}.{folder.name}") if folder.ispkg else None
        if hasattr(room, "STUDY"):
            found[folder.name] = (room.__doc__ or "").strip().splitlines()[0]
    return found


@cache
def _study(name: str) -> Study[Any, Any, Any]:
    folder = f"{studies.__name__}.{name}"
    module, _, cls = import_module(folder).STUDY.partition(":")
    study: Study[Any, Any, Any] = getattr(import_module(f"{folder}.{module}"), cls)()
    if study.name != name:
        # Under another name load_run would look for it in another folder.
        raise PlanError(
            f"a study is called as its folder is: studies/{name}", got=shown(study.name), expected=repr(name)
        )
    return study


@answers_for_calls(RunError)
def load_run(path: str | Path, *, seed: int | None = None, rule: int | None = None) -> Run:
    """Open a run folder for reading; it may be unfinished, or running meanwhile.

    Args:
        path: The folder; of a study of several runs, the folder that they lie in.
        seed: Seeds every resampling of the analysis; None takes the study's own, mostly 0.
        rule: The version of the rule to judge by; None takes the run's own. A run of rule 1 keeps its stored words,
            unless this is 2: then its records are judged anew.

    Raises:
        RunError: The folder is not a run's, or its `run.json` is damaged.
        AnalysisError: A rule is asked for, and the study has none.
    """
    from thoughtgraft.records.spec import read_spec, read_study
    from thoughtgraft.studies.run import Reading, Run, Runs

    folder, reading = path_of(path, "the run's folder"), Reading(seed, rule)
    several = read_study(folder)
    name = several.study if several else read_spec(folder).study
    study = STUDIES[name if name in STUDIES else GENERAL]
    if rule is not None and not study.ruled:
        fix = "leave --rule out"
        raise AnalysisError(
            f"{folder} is an {name} run, which no rule of questions judges", got=f"rule {rule}", fix=fix
        )
    if several is None:
        return Run.open(folder, study, reading)
    parts = {Path(part).name: load_run(folder / part, seed=seed) for part in several.parts}
    return Runs(folder, study, parts, replace(reading, options=study.options(several.options)))


@answers_for_calls(PlanError)
def run_study(
    name: str,
    *,
    out: str | Path,
    model: Any = None,
    problems: Any = None,
    executor: Executor | None = None,
    identity: str | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Run a study into a folder, or continue what is there: what `thoughtgraft run NAME` does, no more and no less.

    Args:
        name: The study: resampling, operations ...
        out: The run's folder.
        model: What `load_model` takes, or a loaded model; None takes the option's default.
        problems: What `load_problems` takes; None takes the option's default.
        executor: Where the cells run, as `make_executor` gives it; None takes what the options say.
        identity: What you call the hooks and edits that the loaded model carries, as `run` has it.
        progress: Show progress bars.
        options: The study's own options, as `thoughtgraft run NAME --help` lists them, `--only-correct` spelt
            `only_correct`.

    Returns:
        The run, finished, analysed and reported.

    Raises:
        ThoughtgraftError: Something cannot be run as asked: which, why, and what to do instead.
    """
    given = dict(options)
    places = {"model": model, "problems": problems}
    given |= {key: place for key, place in places.items() if isinstance(place, str | Path)}
    said = places | {"identity": identity} | options
    words = [f"{key}={shown(value)}" for key, value in said.items() if value is not None]
    door = Door(
        out=path_of(out, "the run's folder"),
        progress=progress,
        command=f"run_study({name!r}, {', '.join([f'out={str(out)!r}', *words])})",
        executor=executor,
        identity=identity,
        **{key: place for key, place in places.items() if not isinstance(place, str | Path)},
    )
    carry_out(name, given, door)
    return load_run(out)


def carry_out(name: str, given: Mapping[str, Any], door: Door) -> None:
    """The same from any door.

    Args:
        name: The study.
        given: The options that were given.
        door: Where the run goes, who is told, and what is at hand.
    """
    study = STUDIES[choice(name, "study", STUDIES, PlanError)]
    options, door = _at_hand(study.Options.of(given), given, door)
    study.check(options, door)
    study.carry_out(options, door)


_OF_LOADING = ("base", "tokenizer", "protocol", "num_latents", "lora_alpha", "prompt_suffix", "dtype", "device")


def _at_hand(options: Options, given: Mapping[str, Any], door: Door) -> tuple[Options, Door]:
    """Options that name the model and the problems which the caller has at hand, and the door with both as they are."""
    from thoughtgraft.tasks.load import as_problems

    fields = type(options).model_fields
    for place, found in (("model", door.model), ("problems", door.problems)):
        if found is not None and place not in fields:
            raise PlanError(f"this study takes its {place} from elsewhere", fix=f"leave {place} out")
    if door.identity is not None and door.model is None:
        fix = "model=load_model(...), edited, or leave identity out"
        raise PlanError(
            "identity names the edits of a loaded model, and none is given", got=shown(door.identity), fix=fix
        )
    named: dict[str, Any] = {}
    if door.problems is not None:
        problems = as_problems(door.problems)
        door, named["problems"] = replace(door, problems=problems), problems.name
    if door.model is not None:
        from thoughtgraft.models.live import admitted
        from thoughtgraft.models.reasoner import as_model

        model = admitted(as_model(door.model), door.identity)
        if twice := [name for name in _OF_LOADING if name in given]:
            fix = f"load_model(..., {twice[0]}=...), or give the model's name here"
            raise PlanError("the model is loaded already", got=f"{', '.join(twice)} for it", fix=fix)
        loaded: Mapping[str, Any] = getattr(model.recipe, "keywords", {})
        named |= {name: value for name in _OF_LOADING if isinstance(value := loaded.get(name), str | float)}
        named |= {"model": model.full_name, "protocol": model.protocol.name, "num_latents": model.num_latents}
        named |= {"dtype": model.dtype_name, "device": model.device.type}
        door = replace(door, model=model)
    return options.model_copy(update={name: value for name, value in named.items() if name in fields}), door
