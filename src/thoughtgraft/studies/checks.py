"""What an option refuses by itself, before torch or anything else that is slow has been imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from thoughtgraft.arguments import choice, items, path_of, place_of, positive, seed_of, shown, typed_number, whole
from thoughtgraft.errors import ModelError, PlanError, ProblemError, RunError

PROBES = ("linear", "logistic", "forest", "mlp")
LEVELS = ("core", "full")
LABEL_FILES = (".json", ".parquet")
FEATURE_DTYPES = ("bfloat16", "float16", "float32")
"""Names whose own modules are slow to import; a test holds them equal to those."""
CERTIFY = ("auto", "full", "off")
"""How a run is certified: by the core checks, by all, or not at all."""

Names = Sequence[str] | str
"""Names to choose from, or where they are: `studies.resampling:PRESETS`."""


# ---- choices -----------------------------------------------------------------------------------------------------


def one_of(what: str, names: Names, *more: str) -> Callable[[str | None], str | None]:
    """A check that lets one of these names through, or nothing."""

    def check(value: str | None) -> str | None:
        return value if value is None else choice(value, what, [*_resolved(names), *more], PlanError)

    return check


def each_of(what: str, names: Names, *more: str, numbers: bool = False) -> Callable[[str | None], str | None]:
    """A check of names with commas between; with `numbers`, those count as names."""

    def check(value: str | None) -> str | None:
        for name in [] if value is None else [part.strip() for part in value.split(",")]:
            if not numbers or typed_number(name) is None:
                fix = "numbers from 0, with commas between, do too" if numbers else None
                choice(name, what, [*_resolved(names), *more], PlanError, fix=fix)
        return value

    return check


def _resolved(names: Names) -> list[str]:
    if not isinstance(names, str):
        return list(names)
    module, _, name = names.partition(":")
    return list(getattr(import_module(f"thoughtgraft.{module}"), name))


LAYERS = each_of("layer", "studies.operations.design:LAYER_NAMES", "all", numbers=True)
SLOTS = each_of("slot", ("each",), numbers=True)
RULE = one_of("rule for operations", "tasks.labels:RULES")


def tracker(value: str) -> str:
    """A tracker that there is, and that is installed."""
    if value != "none":
        from thoughtgraft.tracking.tracking import check_tracker

        check_tracker(value)
    return value


# ---- numbers and texts -------------------------------------------------------------------------------------------


def seed(value: int | None) -> int | None:
    """A seed that records can keep."""
    return None if value is None else seed_of(value, PlanError)


def batch_size(value: str | int) -> int | str:
    """Rows at once, or auto."""
    number = typed_number(str(value))
    if value != "auto" and not number:
        raise ModelError("batch size is not usable", got=shown(value), expected="auto or a number from 1")
    return number or "auto"


def hosts(value: str | int | None) -> int | str | None:
    """A number of hosts, or auto."""
    if value is None or value == "auto":
        return value
    number = typed_number(str(value))
    if (number or 0) < 2:
        raise PlanError("the number of hosts is not usable", got=shown(value), expected="auto, or a number from 2 on")
    return number


def num_latents(value: int | None) -> int | None:
    """How many thoughts."""
    return None if value is None else whole(value, "--num-latents", ModelError, least=0)


def num_thoughts(value: int | None) -> int | None:
    """How many thoughts, where there have to be some."""
    fix = "a study needs a thought to edit or to read"
    return None if value is None else whole(value, "--num-latents", ModelError, least=1, fix=fix)


def lora_alpha(value: float | None) -> float | None:
    """A number above 0."""
    return None if value is None else positive(value, "--lora-alpha", ModelError)


def question(value: str) -> str:
    """A text that can be asked."""
    if not value.strip():
        fix = 'thoughtgraft think "Tom has 3 bags of 4 apples. How many apples does Tom have?"'
        raise PlanError("there is no question to think about", got=repr(value), expected="a word problem", fix=fix)
    return value


def texts(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Several texts, or one."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def line_breaks(value: str | None) -> str | None:
    r"""What a shell cannot easily type: `\n` for a line break."""
    return None if value is None else value.replace("\\n", "\n")


# ---- models and problems -----------------------------------------------------------------------------------------


def model(value: str | None) -> str | None:
    """An embedded model, a place that exists, or what may be a hub id."""
    return None if value is None else _place(value, "model")


def carded(value: Sequence[str] | None) -> tuple[str, ...]:
    """Embedded models, or folders of models, that have a card."""
    from thoughtgraft.models.names import model_folder
    from thoughtgraft.training.card import read_card

    names = tuple(str(place_of(name, "the model", ModelError)) for name in texts(value))
    for name in names:
        read_card(model_folder(name))
    return names


def base(value: str | None) -> str | None:
    """A place that exists, or what may be a hub id."""
    return None if value is None else _place(value, "base model")


def training_base(value: str | None) -> str | None:
    """A base that training starts from."""
    if value is None:
        return None
    from thoughtgraft.models.names import BASES

    return _place(value, "base model", BASES)


def tokenizer(value: str | None) -> str | None:
    """A place that exists, or what may be a hub id."""
    return None if value is None else _place(value, "tokenizer")


def _place(value: str, role: str, names: Sequence[str] = ()) -> str:
    from thoughtgraft.models.names import check_place

    return str(check_place(value, role, names))


def device(value: str) -> str:
    """A device that there could be."""
    from thoughtgraft.models.names import check_device

    return check_device(value)


def problems(value: str | None) -> str | None:
    """A set of problems that has a name, or a file that exists."""
    if value is None:
        return None
    from thoughtgraft.tasks.load import find_problems

    find_problems(value)
    return str(path_of(value, "problems", PlanError)) if value.startswith("~") else value


# ---- places ------------------------------------------------------------------------------------------------------


def home(value: Path | None) -> Path | None:
    """Any path; `~` is the home folder."""
    return None if value is None else path_of(value, "the path")


def homes(values: Sequence[str | Path] | None) -> list[Path]:
    """Several of them; none where nothing is given."""
    given = items(values or (), "the paths", PlanError, expected="a list of paths")
    return [path_of(value, "the path") for value in given]


def writable_folder(value: Path | None) -> Path | None:
    """A folder that can be made or written."""
    if value is None:
        return None
    from thoughtgraft.records.store import prove_writable

    folder = path_of(value, "the folder of --out")
    prove_writable(folder)
    return folder


def writable_file(value: Path | None) -> Path | None:
    """A file that can be made or replaced."""
    if value is None:
        return None
    from thoughtgraft.records.store import prove_writable

    file = path_of(value, "the file of --out")
    if file.is_dir():
        raise RunError(f"{file} is a folder", expected="a file to write")
    prove_writable(file.parent)
    return file


def labels_file(value: Path | None) -> Path | None:
    """A file that labels can be written to."""
    file = writable_file(value)
    if file is not None and file.suffix not in LABEL_FILES:
        expected = " or ".join(LABEL_FILES)
        raise ProblemError(f"{file}: labels cannot be written so", got=repr(file.suffix), expected=expected)
    return file


def existing_file(value: Path | None) -> Path | None:
    """A file that is there."""
    file = home(value)
    if file is not None and not file.is_file():
        fix = "check the path; it is read from the current directory"
        raise RunError(f"{file} is a folder" if file.is_dir() else f"there is no file {file}", fix=fix)
    return file


def existing_place(value: Path | None) -> Path | None:
    """A file or a folder that is there."""
    place = home(value)
    if place is not None and not place.exists():
        raise RunError(f"there is no run or file {place}", fix="check the path; it is read from the current directory")
    return place


def adapter(value: Path | None) -> Path | None:
    """An adapter's folder."""
    from thoughtgraft.models.names import check_adapter

    folder = home(value)
    return None if folder is None else check_adapter(folder)


def new_folder(value: Path | None) -> Path | None:
    """A folder that can be made, or is empty."""
    from thoughtgraft.models.names import check_new_folder

    folder = writable_folder(value)
    return None if folder is None else check_new_folder(folder)


def run(value: Path | None) -> Path | None:
    """A run's folder, or that of a study of several."""
    folder = home(value)
    if folder is not None:
        from thoughtgraft.records.spec import read_spec_file, read_study

        if read_study(folder) is None:
            read_spec_file(folder)
    return folder
