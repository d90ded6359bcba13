"""What studies are asked: one frozen object that the command line, Python and run.json share.

A field of an options class is a type with what it refuses (`BeforeValidator`), what it is for (`Field(description=)`)
and, where they are not `--its-name`, its flags (`Flags`). The command line is generated from nothing else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from thoughtgraft.arguments import choice, path_of, shown
from thoughtgraft.errors import PlanError, first_line, plainer
from thoughtgraft.studies import checks


@dataclass(frozen=True)
class Flags:
    """How an option is typed where it is not `--its-name`; without names it is an argument, typed by its place."""

    names: tuple[str, ...] = ()

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


# ---- the model ----------------------------------------------------------------------------------------------------

Model = Annotated[
    str,
    BeforeValidator(checks.model),
    Flags("--model", "-m"),
    Field(
        description="An embedded model (tiny-codi; `thoughtgraft zoo`), a hub id such as zen-E/CODI-gpt2, or a "
        "directory."
    ),
]
Base = Annotated[
    str | None,
    BeforeValidator(checks.base),
    Field(description="Directory or hub id with the base model's config and tokenizer, if the checkpoint has none."),
]
Tokenizer = Annotated[
    str | None,
    BeforeValidator(checks.tokenizer),
    Field(description="Directory or hub id with the tokenizer, if not the base's."),
]
Protocol = Annotated[
    str,
    BeforeValidator(checks.one_of("protocol", "models.protocols:PROTOCOLS")),
    Field(description="The rule of inference: official, official-padded, cot-exploration-original or -fixed."),
]
NumThoughts = Annotated[
    int | None,
    BeforeValidator(checks.num_thoughts),
    Field(description="How many thoughts to feed; default: as trained."),
]
LoraAlpha = Annotated[
    float | None,
    BeforeValidator(checks.lora_alpha),
    Field(description="LoRA's alpha; default: what a file beside the weights says, else 32."),
]
PromptSuffix = Annotated[
    str | None,
    BeforeValidator(checks.line_breaks),
    Field(
        description="Text between question and begin-of-thought, such as '<|eot_id|>', '\\n' or ''; default: as "
        "trained."
    ),
]
Device = Annotated[str, BeforeValidator(checks.device), Field(description="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[
    str | None,
    BeforeValidator(checks.one_of("dtype", "models.names:DTYPES")),
    Field(description="float32, bfloat16, float16 or float64; default: what suits the checkpoint."),
]

# ---- the problems, and how they are asked ---------------------------------------------------------------------------

Problems = Annotated[
    str,
    BeforeValidator(checks.problems),
    Flags("--problems", "-p"),
    Field(description="arithmetic[:split], gsm8k:test|train|validation|all, or a .jsonl/.json/.parquet file."),
]
Seed = Annotated[
    int, BeforeValidator(checks.seed), Field(description="Permutes the problems, draws donors and random edits.")
]
BatchSize = Annotated[
    int | Literal["auto"],
    BeforeValidator(checks.batch_size),
    Field(description="Rows at once, or auto. It does not change results."),
]
MaxNewTokens = Annotated[int | None, Field(ge=1, description="The longest answer; default 256.")]
Margin = Annotated[
    float | None,
    Field(description="The smallest effect that matters, pp; verdicts and a pilot's size rest on it. Default 5."),
]
Alpha = Annotated[
    float | None, Field(description="Share of runs that may say something false; 0.05 makes 95% intervals.")
]
Hosts = Annotated[
    int | Literal["auto"] | None,
    BeforeValidator(checks.hosts),
    Field(
        description="Problems, instead of the preset's number; auto: as many as --pilot asks for, at most what is left."
    ),
]

# ---- the run --------------------------------------------------------------------------------------------------------

Beside = Annotated[
    tuple[Path, ...],
    BeforeValidator(lambda paths: tuple(checks.homes(paths))),
    Field(
        description="A run, or a folder of runs, to count earlier looks in beside the folder that --out lies in; "
        "repeatable."
    ),
]
Certify = Annotated[
    str,
    BeforeValidator(checks.one_of("choice for --certify", checks.CERTIFY)),
    Field(
        description="Check model, protocol and engine first: auto (seconds), full, or off (every page of the report "
        "says so)."
    ),
]
Tracker = Annotated[
    str, BeforeValidator(checks.tracker), Field(description="none, or wandb (pip install 'thoughtgraft[wandb]').")
]
Engine = Annotated[
    str,
    BeforeValidator(checks.one_of("engine", "engine.executors:ENGINES")),
    Field(description="local (this process), or ray (pip install 'thoughtgraft[ray]')."),
]
RayAddress = Annotated[
    str | None,
    Field(description="With --engine ray: a cluster, auto or HOST:PORT. Default: Ray is started on this machine."),
]
Workers = Annotated[
    int | None,
    Field(ge=1, description="With --engine ray: processes that hold the model. Default: what the resources allow."),
]
CpusPerWorker = Annotated[float | None, Field(ge=0.1, description="With --engine ray: CPUs of each worker; 1.")]
GpusPerWorker = Annotated[
    float | None,
    Field(ge=0, description="With --engine ray: GPUs of each, or a part of one; 1, without GPUs 0."),
]


class Options(BaseModel):
    """What every study can be asked. A study adds its own fields, with defaults, in a class of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    seed: Seed = 0
    device: Device = "auto"
    batch_size: BatchSize = "auto"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Options from what was given; what was not keeps its default.

        Raises:
            PlanError: There is no such option, or a value cannot be used.
        """
        for name, value in given.items():
            choice(name, "option", cls.model_fields, PlanError)
            if isinstance(value, bool) and cls.model_fields[name].annotation is not bool:
                raise PlanError(f"{name} is not usable", got=shown(value), expected="no True or False")
        try:
            return cls(**given)
        except ValidationError as error:
            raise _refused(error) from None

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Options as run.json keeps them, as they were: places need not exist any more, and nothing is checked."""
        found: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        return cls.model_construct(None, **found)

    def stored(self) -> dict[str, Any]:
        """As run.json keeps them: every option, the home folder as `~`."""
        return {name: _stored(value) for name, value in self.model_dump(mode="json").items()}


class RunOptions(Options):
    """What a study is asked that writes a run of its own: what lies beside it, how it is certified, who is told."""

    max_new_tokens: MaxNewTokens = None
    beside: Beside = ()
    certify: Certify = "auto"
    tracker: Tracker = "none"


class ModelOptions(RunOptions):
    """What a study is asked that takes any model and any problems."""

    model: Model = "tiny-codi"
    problems: Problems = "arithmetic:test"
    base: Base = None
    tokenizer: Tokenizer = None
    protocol: Protocol = "official"
    num_latents: NumThoughts = None
    lora_alpha: LoraAlpha = None
    prompt_suffix: PromptSuffix = None
    dtype: Dtype = None


class EngineOptions(Options):
    """Where a study's cells run, for those that may run elsewhere than in this process."""

    engine: Engine = "local"
    ray_address: RayAddress = None
    workers: Workers = None
    cpus_per_worker: CpusPerWorker = None
    gpus_per_worker: GpusPerWorker = None

    @property
    def workplace(self) -> dict[str, Any]:
        """The same as `make_executor` takes them."""
        own = {"engine": self.engine, "address": self.ray_address, "workers": self.workers}
        return own | {"cpus_per_worker": self.cpus_per_worker, "gpus_per_worker": self.gpus_per_worker}


def in_order(options: type[Options]) -> list[str]:
    """The names of all options, a study's own before those that it shares."""
    classes = [cls for cls in options.__mro__ if issubclass(cls, Options)]
    return list(dict.fromkeys(name for cls in classes for name in cls.__annotations__ if name in options.model_fields))


def stored_options(place: Path) -> tuple[str, dict[str, Any]]:
    """A study's name and the options that a file holds: a TOML file, or the run.json of a run that is to be alike.

    Args:
        place: The file, or a run's folder. In TOML, `study` names the study, and all else are its options.

    Raises:
        RunError: The folder is not a run's.
        PlanError: The file cannot be read, or its run was begun before options were kept.
    """
    from thoughtgraft.records.spec import SPEC_FILE, STUDY_FILE, read_spec_file, read_study

    place = path_of(place, "the file of options", PlanError)
    checks.existing_place(place)
    if place.suffix != ".toml":
        if place.is_file() and place.name not in (SPEC_FILE, STUDY_FILE):
            raise PlanError(f"{place} holds no options", expected=f"a .toml file, a run's folder or its {SPEC_FILE}")
        folder = place if place.is_dir() else place.parent
        if (several := read_study(folder)) is not None:
            return several.study, dict(several.options)
        spec = read_spec_file(folder)
        if not isinstance(spec.get("options"), dict):
            got, fix = "an earlier run", "type its options anew: its command stands in run.json under provenance"
            for above in folder.resolve().parents[:2]:
                if (whole := read_study(above)) and folder.resolve() in [above / part for part in whole.parts]:
                    got, fix = f"a part of the {whole.study} study {above}", f"give that folder: {above}"
            raise PlanError(f"{place} does not say with which options it was begun", got=got, fix=fix)
        return str(spec["study"]), dict(spec["options"])
    try:
        found = tomllib.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{place} cannot be read", got=first_line(error), expected="TOML, such as hosts = 20"
        ) from error
    return str(found.pop("study", "")), found


def _stored(value: Any) -> Any:
    from thoughtgraft.records.spec import without_home

    if isinstance(value, str):
        return without_home(value)
    return [_stored(part) for part in value] if isinstance(value, list) else value


def _refused(error: ValidationError) -> PlanError:
    """What pydantic refuses, said as everything else that is refused here."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "an option"
    if first["type"] == "missing":
        raise PlanError(f"{name} is missing", expected="a value: it has no default")
    return PlanError(f"{name} is not usable", got=shown(first["input"]), expected=plainer(first["msg"]))
