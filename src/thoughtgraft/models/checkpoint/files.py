"""Where a checkpoint's files are: a folder, a file, a hub id or an embedded model; and writing a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from thoughtgraft.arguments import parse_json
from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.format import FAMILIES, bare_name, family_of
from thoughtgraft.models.checkpoint.guards import MAX_INDEX
from thoughtgraft.models.checkpoint.tensors import open_tensors
from thoughtgraft.models.names import check_place
from thoughtgraft.tensorfile import save_tensors

SMALL_FILES = ("*.json", "*.txt", "*.model")
WEIGHT_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter.safetensors",
)
_EPOCH = re.compile(r"checkpoint_\d+")  # what Coconut's official code saves, one file an epoch, without an ending
_SHARD = re.compile(r"(?P<model>.+)-\d+-of-(?P<count>\d{1,5})\.\w+")
_NOT_WEIGHTS = ("training_args.bin", "*optim*", "*scheduler*", "scaler*", "rng_state*", "onnx/*", "*.tmp")
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_MOST_FILES, _MOST_FOLDERS, _DEPTH = 32, 200, 3


@dataclass(frozen=True)
class Source:
    """Where a checkpoint lies on this disk.

    Attributes:
        directory: Folder with the weights and, perhaps, config.json and tokenizer files.
        weights: The weight files, one or several shards.
        notes: What other weight files lie beside them, in words.
        rivals: Those of them that hold a latent reasoner too.
    """

    directory: Path
    weights: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()


def find_checkpoint(name: str | Path) -> Source:
    """Resolves what a user gave as `--model` to weight files on disk, downloading a hub id if it is not cached.

    Args:
        name: A directory, a single weight file, or a hub id (`owner/name`).

    Returns:
        The folder and its weight files.

    Raises:
        CheckpointError: Nothing is there, the hub cannot supply it, or the folder holds no weights.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return Source(path.parent, _shards(path) if path.name.endswith(".index.json") else (path,))
    if path.is_dir():
        return _choose(path)
    # Safetensors first: asking for both formats would download the weights twice.
    directory = fetch(str(name), (*SMALL_FILES, "*.safetensors"))
    if not any(_kind(group, directory) in FAMILIES for group in _groups(directory)):
        directory = fetch(str(name), (*SMALL_FILES, "*.bin", "*.pt", "*.pth", "*.ckpt", "checkpoint_*"))
    try:
        return _choose(directory)
    except CheckpointError as error:
        raise CheckpointError(
            error.what,
            got=error.got,
            expected=error.expected,
            fix=f"run `hf download {name}` where there is a network; it fetches what is missing",
        ) from error


def find_directory(name: str | Path, role: str) -> Path:
    """Resolves a base model or a tokenizer (`role` says which) to a folder; only its small files are downloaded."""
    path = Path(check_place(name, role))
    return path if path.is_dir() else fetch(str(name), SMALL_FILES)


def fetch(name: str, patterns: Sequence[str]) -> Path:
    """Returns the cached snapshot folder of a hub repository, after downloading what matches `patterns`.

    HF_HOME, HF_HUB_OFFLINE and HF_TOKEN are respected, because huggingface_hub reads them.

    Raises:
        CheckpointError: The name is not a hub id, the repository is unknown or gated, or it cannot be reached.
    """
    check_place(name, "model")
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=list(_NOT_WEIGHTS)))
    except Exception as error:  # every transport has its own error classes; all of them end in one sentence
        # An interrupted download still says where it lies; what is missing there is named when it is opened.
        partial = getattr(error, "snapshot_path", None)
        if partial is not None:
            return Path(partial)
        raise _hub_error(name, error) from error


def _hub_error(name: str, error: Exception) -> CheckpointError:
    if isinstance(error, GatedRepoError):
        what, fix = (
            f"{name} is gated on the Hugging Face hub",
            f"accept its licence at https://huggingface.co/{name} and set HF_TOKEN, or pass an open mirror or a folder",
        )
    elif isinstance(error, RepositoryNotFoundError):
        what, fix = (
            f"{name} is neither a local path nor a repository that the Hugging Face hub shows you",
            "check the spelling; for a private repository set HF_TOKEN",
        )
    elif isinstance(error, LocalEntryNotFoundError):
        what, fix = (
            f"{name} is neither a local path nor in the Hugging Face cache, and the hub cannot be reached",
            f"run `hf download {name}` where there is a network (unset HF_HUB_OFFLINE; HF_HOME moves the cache), "
            "or pass a local directory",
        )
    else:
        what, fix = f"{name} could not be downloaded", "check the network and try again, or pass a local directory"
    detail = (str(error).splitlines() or [""])[0][:200]
    return CheckpointError(what, got=f"{type(error).__name__}: {detail}", fix=fix)


def _choose(directory: Path) -> Source:
    """The weight files of a folder that hold a latent reasoner, told by their tensors' names.

    Raises:
        CheckpointError: There are none, or it is not ours to choose among several.
    """
    groups = _groups(directory)
    if not groups:
        raise _no_weights(directory)
    if len(groups) == 1:
        _check_inside(groups[0], directory)
        _check_whole(groups[0])
        return Source(directory, groups[0])
    kinds = {group: _kind(group, directory) for group in groups}
    named = [group for group in groups if kinds[group] in FAMILIES]
    if len(named) > 1 and not _is_standard(named[0]):
        shown = [group[0].name for group in named]
        what = "epochs" if all(map(_EPOCH.fullmatch, shown)) else "models"
        raise CheckpointError(
            f"{directory} holds the checkpoints of several {what}",
            got=", ".join(shown[:8]),
            expected="one",
            fix=f"pass the file itself, such as {directory / shown[-1]}",
        )
    chosen = (named or groups)[0]
    _check_inside(chosen, directory)
    _check_whole(chosen)
    others = [group for group in groups if group != chosen]
    notes = [f"read {_title(chosen)}; beside it lies {_title(group)} ({kinds[group]})" for group in others]
    return Source(directory, chosen, tuple(notes), tuple(_title(group) for group in named if group != chosen))


def _groups(directory: Path) -> list[tuple[Path, ...]]:
    """The weight files of a folder: each alone, or all shards of one model; those of standard names first."""
    found: list[tuple[Path, ...]] = []
    for name in WEIGHT_NAMES:
        path = directory / name
        if path.exists():
            found.append(_shards(path) if name.endswith(".index.json") else (path,))
    taken = {path for group in found for path in group}
    others: list[Path] = [
        path
        for path in directory.iterdir()
        if path not in taken
        and (path.suffix in _ENDINGS or _EPOCH.fullmatch(path.name))
        and not any(path.match(pattern) for pattern in _NOT_WEIGHTS)
        and not path.is_dir()
    ]
    shards: dict[tuple[str, str], list[Path]] = {}  # whose index is not there
    for path in sorted(others, key=_order):
        if match := _SHARD.fullmatch(path.name):
            shards.setdefault((match["model"], match["count"]), []).append(path)
    whole = [tuple(paths) for paths in shards.values()]
    left = [path for path in others if not _SHARD.fullmatch(path.name)]
    return [*found, *whole, *((path,) for path in sorted(left, key=_order)[:_MOST_FILES])]


def _order(path: Path) -> tuple[str, int]:
    """By name, numbers at its end by their size."""
    name, number = re.fullmatch(r"(.*?)(\d*)", path.stem if path.suffix in _ENDINGS else path.name).groups()  # type: ignore[union-attr]
    return name, int(number or 0)


def _kind(group: tuple[Path, ...], directory: Path) -> str:
    """What a group of files holds, in words; a family's name where it is a latent reasoner."""
    try:
        _check_inside(group, directory)
        names = open_tensors(group)
    except CheckpointError as error:
        return f"not readable: {error.what}"
    found = family_of(map(bare_name, names))
    return "no latent reasoner" if found is None else found[0].name


def _is_standard(group: Sequence[Path]) -> bool:
    return group[0].name in WEIGHT_NAMES or len(group) > 1


def _title(group: Sequence[Path]) -> str:
    return group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more shards"


def _no_weights(directory: Path) -> CheckpointError:
    found = sorted(p.name for p in directory.iterdir())
    inside = _below(directory)
    if inside:
        fix = f"pass the folder that you mean, such as {inside[-1]}"
    else:
        fix = "pass the folder with the weight file, or the weight file itself"
    return CheckpointError(
        f"{directory} holds no weights" + (", but folders inside it do" if inside else ""),
        got=", ".join(str(path.relative_to(directory)) for path in inside[:8])
        or ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        or "an empty folder",
        expected=" or ".join((*WEIGHT_NAMES, "checkpoint_N")),
        fix=fix,
    )


def _below(directory: Path) -> list[Path]:
    """The folders inside that hold weights, as a trainer's steps or the hub's cache do; few are looked at."""
    level, found = [directory], []
    for _ in range(_DEPTH):
        level = [
            p for parent in level for p in sorted(parent.iterdir(), key=_order) if p.is_dir() and not p.is_symlink()
        ]
        level = level[:_MOST_FOLDERS]
        found += [folder for folder in level if _has_weights(folder)]
    return found


def _check_whole(group: Sequence[Path]) -> None:
    """Refuses shards without an index of which some are missing."""
    match = _SHARD.fullmatch(group[0].name)
    if match is not None and group[0].name not in WEIGHT_NAMES and len(group) != int(match["count"]):
        raise CheckpointError(
            f"{group[0].parent} holds {len(group)} of {int(match['count'])} shards and no index of them",
            got=", ".join(path.name for path in group[:4]),
            fix="download the missing files into the same folder",
        )


def _has_weights(folder: Path) -> bool:
    try:
        return bool(_groups(folder))
    except (CheckpointError, OSError):  # an index without its shards, a folder that may not be read
        return False


def _check_inside(weights: tuple[Path, ...], directory: Path) -> None:
    """Refuses links out of a local folder: one that came in an archive may name any file of this machine."""
    home = directory.resolve()
    if home.parent.name == "snapshots":  # the hub's cache: a snapshot links to the blobs beside it
        home = home.parent.parent
    for path in weights:
        if not path.resolve().is_relative_to(home):
            raise CheckpointError(
                f"{path} is a link out of its folder",
                got=str(path.resolve()),
                expected=f"a file in {directory}",
                fix="if you made the link yourself, pass the folder that it leads to, or copy the file",
            )


def read_object(path: Path) -> dict[str, object] | None:
    """The JSON object in a small file; None where it is no JSON object, or larger than any config or index.

    Raises:
        OSError: It cannot be read.
    """
    if not path.is_file() or path.stat().st_size > MAX_INDEX:
        return None
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:  # not JSON
        return None
    return values if isinstance(values, dict) else None


def shard_names(index: Path) -> tuple[str, ...]:
    """The shards that an index names, whether they are there or not.

    Raises:
        CheckpointError: It is not an index, or names files outside its own folder.
    """
    try:
        weight_map = (read_object(index) or {})["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})  # type: ignore[attr-defined]
    except (OSError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is not a shard index",
            got=f"{index.stat().st_size} bytes that do not parse",
            expected='JSON with a "weight_map"',
            fix="download the file again",
        ) from error
    # A shard lies beside its index; a name that leads elsewhere could read any file on this machine.
    outside = [name for name in names if Path(name).name != name or not name.isprintable()]
    if outside or not names:
        raise CheckpointError(
            f"{index} names shards outside its own folder" if outside else f"{index} names no shards",
            got=repr(outside[0][:160]) if outside else None,
            expected="file names beside the index",
            fix="download the checkpoint again from a source that you trust",
        )
    return tuple(names)


def _shards(index: Path) -> tuple[Path, ...]:
    names = shard_names(index)
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise CheckpointError(
            f"{index} names {len(names)} shards and {len(missing)} are missing: {', '.join(missing[:4])}",
            fix="download the missing files into the same folder",
        )
    return tuple(index.parent / name for name in names)


def write_folder(
    folder: Path, tensors: Mapping[str, Tensor], config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> Path:
    """Write `model.safetensors` with contiguous CPU tensors, `config.json` and the tokenizer's files.

    Returns:
        The folder, which is made if it does not exist.

    Raises:
        CheckpointError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "model.safetensors.tmp"
        save_tensors(tensors, part, {"format": "pt"})
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        part.replace(folder / "model.safetensors")  # last and in one step
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be written", got=str(error), fix="choose a folder that you may write to"
        ) from error
    return folder
