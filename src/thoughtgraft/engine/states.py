"""States: what a model's layers held at each latent position of its clean run, in memory or into files."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from thoughtgraft.arguments import answers_for_calls, choice, items, shown, whole
from thoughtgraft.edits.site import slots_label
from thoughtgraft.engine.batching import surviving
from thoughtgraft.engine.collect import encode, question_batches, refuse_broken
from thoughtgraft.engine.latents import think_clean
from thoughtgraft.errors import ModelError, RunError
from thoughtgraft.files import StoredTensor, io_error, make_folder, sweep, write_atomic
from thoughtgraft.models.attention import ATTENTION
from thoughtgraft.models.live import admitted
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import (
    LatentReasoner,
    Prompt,
    as_model,
    attention_implementation,
    check_lengths,
    require_positions,
)
from thoughtgraft.records.spec import QUARANTINE_FOLDER
from thoughtgraft.records.state_files import HIDDEN, MADE_FROM, read_block
from thoughtgraft.records.states import States
from thoughtgraft.tasks.files import problem_table
from thoughtgraft.tasks.load import as_problems
from thoughtgraft.tasks.problem import ProblemSet

Every = Literal["all"]


@answers_for_calls(ModelError)
def collect_states(
    model: LatentReasoner,
    problems: ProblemSet,
    *,
    layers: Every | int | Sequence[int] = "all",
    positions: Every | str | int | Sequence[str | int] = "all",
    batch_size: int | str = "auto",
    progress: bool = True,
    identity: str | None = None,
) -> States:
    """What the model's layers held at its latent positions, unedited.

    `resid[p, l]` is the residual stream after block l at position p, and `hidden[p]` the final-normed state there, of
    which the next thought is made. They come from the same pass that makes the clean thoughts of every experiment.

    Args:
        model: The model.
        problems: P problems, or what `load_problems` takes for rows.
        layers: Blocks, 0-based, in the order wanted; `all` of them.
        positions: Names (`BOT`, `CT0`, ...; CTk consumes `fed[k]`) or places (0 is `BOT`) in the order wanted.
        batch_size: Rows at once, or `auto`; it does not change results.
        progress: Show a progress bar.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Returns:
        The states in memory, in the model's own type, with the problems as labels.

    Raises:
        ModelError: The model has no such layer or position, feeds itself otherwise than one thought a position, gives
            states that are not finite, or is not as it was loaded and no name is given.
    """
    model, problems = admitted(as_model(model), identity), as_problems(problems)
    require_positions(model)
    blocks = _blocks(model, layers)
    places = _places(model, positions)
    names = tuple(position_names(model)[p] for p in places)
    prompts = encode(model, problems)
    batches = question_batches(model, prompts, batch_size, range(len(problems)))
    resid = torch.empty((len(problems), len(places), len(blocks), model.d_model), dtype=model.dtype)
    hidden = torch.empty((len(problems), len(places), model.d_model), dtype=model.dtype)

    def once(batch: list[int]) -> None:
        streams, last = states_of(model, [prompts[i] for i in batch], blocks)
        resid[batch], hidden[batch] = streams[:, places].cpu(), last[:, places].cpu()

    with tqdm(total=len(problems), desc="states", unit="problem", disable=not progress) as bar:
        for batch in surviving(once, batches, lambda i: 1, lambda i: [i], model.device):
            bar.update(len(batch))
    for found in (resid, hidden):
        refuse_broken(found, [None] * len(problems), problems)
    ids = [problem.id for problem in problems]
    source = f"{model.full_name} on {problems.name}"
    table = problem_table(problems)
    return States.of(_held(resid), ids, blocks, names, hidden=_held(hidden), labels=table, source=source)


def _blocks(model: LatentReasoner, layers: Any) -> list[int]:
    if isinstance(layers, str):
        choice(layers, "choice of layers", ["all"], ModelError, fix="layers=[0, 4], for example")
        return list(range(len(model.layers)))
    given = [layers] if isinstance(layers, int) else layers
    expected = f"'all', or numbers of 0..{len(model.layers) - 1}"
    several = items(given, "the layers", ModelError, expected=expected)
    blocks = [whole(layer, "a layer", ModelError) for layer in several]
    check_layers(model, blocks)
    if not blocks or len(set(blocks)) < len(blocks):
        raise ModelError("the layers are not usable", got=shown(layers), expected=f"{expected}, each once")
    return blocks


def _places(model: LatentReasoner, positions: Any) -> list[int]:
    """The 0-based places of positions."""
    known = position_names(model)
    if isinstance(positions, str) and positions == "all":
        return list(range(len(known)))
    given = [positions] if isinstance(positions, int | str) else positions
    expected = f"'all', or some of {', '.join(known)}"
    places = []
    for position in items(given, "the positions", ModelError, expected=expected):
        place = known.index(position) if position in known else position
        if isinstance(place, str) or not 0 <= whole(place, "a position", ModelError) < len(known):
            raise ModelError(f"{model.name} has no position {shown(position)}", expected=", ".join(known))
        places.append(int(place))
    if not places or len(set(places)) < len(places):
        raise ModelError("the positions are not usable", got=shown(positions), expected=f"{expected}, each once")
    return places


def _held(tensor: Tensor) -> StoredTensor:
    """A tensor as numpy holds it; of bfloat16, which it does not know, the bits."""
    if tensor.dtype == torch.bfloat16:
        return StoredTensor(tensor.view(torch.int16).numpy().view(np.uint16), bfloat16=True)
    return StoredTensor(tensor.numpy())


_FILE_BYTES = 64 << 20  # of one file, and so about what is held in memory of the features
STORAGE = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class StateWriter:
    """Where features go, and what is there already. One file holds the problems of one batch; none is rewritten.

    Attributes:
        folder: The folder of these features.
        layers: L blocks of the model, 0-based.
        positions: Names of the K + 1 positions: `BOT`, `CT0`, ...
        storage: What the numbers are kept as.
        made_from: Hash of model, protocol and problems.
    """

    folder: Path
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    storage: torch.dtype
    made_from: str

    def recover(self, quarantine: Path) -> set[str]:
        """The ids whose features are stored; what does not parse is set aside.

        Raises:
            RunError: The folder cannot be written, or holds features of something else.
        """
        make_folder(self.folder)
        sweep(self.folder, min_age_s=0.0)  # Only the holder of the run's lock writes here: nothing here is at work.
        stored: set[str] = set()
        for file in sorted(self.folder.glob("*.safetensors")):
            try:
                block = read_block(file)
            except RunError as error:
                _set_aside(file, quarantine, error)
                continue
            if (block.made_from, block.layers, block.positions) != (self.made_from, self.layers, self.positions):
                raise RunError(
                    f"{file} was made from something else",
                    got=f"{block.made_from}, layers {list(block.layers)}",
                    expected=f"{self.made_from}, layers {list(self.layers)}",
                    fix="use --out another folder",
                )
            stored.update(block.ids)
        return stored

    def write(self, ids: Sequence[str], resid: Tensor, hidden: Tensor) -> None:
        """Store the features of some problems, whole or not at all.

        Args:
            ids: n problems.
            resid: [n, P, L, d].
            hidden: [n, P, d].

        Raises:
            ModelError: A value does not fit the type that it is kept as.
            RunError: The disk is full or broken.
        """
        tensors = {"resid": resid.to(self.storage), HIDDEN: hidden.to(self.storage)}
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise ModelError(
                    f"{name} holds values that are not finite",
                    got=f"kept as {str(self.storage).removeprefix('torch.')}",
                    fix="--feature-dtype float32; if that does not help, --dtype float32",
                )
        unit = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:20]
        axes = {"ids": list(ids), "layers": self.layers, "positions": self.positions}
        metadata = {name: json.dumps(value) for name, value in axes.items()} | {MADE_FROM: self.made_from}
        data = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, metadata)
        write_atomic(self.folder / f"{unit}.safetensors", data)


def _set_aside(file: Path, quarantine: Path, error: RunError) -> None:
    make_folder(quarantine)
    try:
        file.replace(quarantine / f"{file.parent.name}-{file.name}")
    except OSError as failure:
        raise io_error(f"the damaged file {file} cannot be moved to {quarantine}", failure) from failure
    warnings.warn(f"{error} Moved to {quarantine}; its problems will be run again.", stacklevel=3)


def default_storage(model: LatentReasoner) -> str:
    """What a model's features are kept as unless said: its own type, but never wider than float32."""
    return model.dtype_name if model.dtype_name in STORAGE else "float32"


def position_names(model: LatentReasoner) -> tuple[str, ...]:
    """The names of the K + 1 latent positions: `BOT`, then `CTk`, the one that consumes `fed[k]`."""
    return ("BOT", *(slots_label((k,)) for k in range(model.num_latents)))


def check_layers(model: LatentReasoner, layers: Sequence[int]) -> None:
    """Raise a ModelError if the model has no such block (0-based)."""
    depth = len(model.layers)
    if wrong := [layer for layer in layers if not 0 <= layer < depth]:
        raise ModelError(f"{model.name} has no layer {wrong[0]}", expected=f"0..{depth - 1}")


def state_writer(
    model: LatentReasoner, problems: ProblemSet, layers: Sequence[int], folder: Path, storage: str
) -> StateWriter:
    """The writer of one model's features on one problem set.

    Raises:
        ModelError: The model has no such layer, the type is unknown, or positions are not those of slots.
    """
    require_positions(model)
    check_layers(model, layers)
    if storage not in STORAGE:
        raise ModelError("features cannot be kept as this type", got=repr(storage), expected=", ".join(STORAGE))
    made_from = hashlib.sha256(f"{model.model_hash} {problems.content_hash} {storage}".encode()).hexdigest()[:16]
    return StateWriter(folder, tuple(layers), position_names(model), STORAGE[storage], made_from)


def store_states(
    model: LatentReasoner,
    problems: ProblemSet,
    writer: StateWriter,
    *,
    batch_size: int | str = "auto",
    progress: bool = True,
    beat: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Store the features of every problem that has none yet.

    Args:
        model: The model.
        problems: N problems.
        writer: Where they go.
        batch_size: Rows at once, or `auto`; it does not change results.
        progress: Show a progress bar.
        beat: Told how many problems are stored, of how many.

    Raises:
        ModelError: A question does not fit the model's context, or a value its storage.
        RunError: The folder holds other features or cannot be written.
    """
    stored = writer.recover(writer.folder.parent / QUARANTINE_FOLDER)
    prompts = encode(model, problems)
    todo = [i for i, problem in enumerate(problems) if problem.id not in stored]
    row_bytes = len(writer.positions) * (len(writer.layers) + 1) * model.d_model * writer.storage.itemsize
    batches = question_batches(model, prompts, batch_size, todo, max(1, _FILE_BYTES // row_bytes))

    def once(batch: list[int]) -> None:
        found = states_of(model, [prompts[i] for i in batch], writer.layers)
        writer.write([problems[i].id for i in batch], *found)

    title = f"states of {model.name}"
    with tqdm(
        total=len(problems), initial=len(problems) - len(todo), desc=title, unit="problem", disable=not progress
    ) as bar:
        done = len(problems) - len(todo)
        for batch in surviving(once, batches, lambda i: 1, lambda i: [i], model.device):
            done += len(batch)
            bar.update(len(batch))
            beat(done, len(problems))


@with_ieee_products
@torch.inference_mode()
def states_of(model: LatentReasoner, prompts: Sequence[Prompt], layers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`resid` [P, K+1, L, d] and `hidden` [P, K+1, d] of P prompts, on the model's device.

    `resid[:, p, i]` is the residual stream after block `layers[i]` at position p: 0 is begin-of-thought, p = k + 1 the
    one that consumes `fed[k]`. They come from the same pass that makes the clean thoughts of every experiment.
    """
    check_lengths(model, prompts)
    with attention_implementation(model.lm, ATTENTION), residual_streams(model, layers) as streams:
        hidden = think_clean(model, prompts).hidden
    # The questions run in one or more parts, then all of them together at each slot.
    by_layer = [torch.cat(streams[layer]).unflatten(0, (-1, len(prompts))).transpose(0, 1) for layer in layers]
    assert all(states.shape == hidden.shape for states in by_layer), "every layer runs once for each position"
    return torch.stack(by_layer, 2) if by_layer else hidden[:, :, None][:, :, :0], hidden


@contextmanager
def residual_streams(model: LatentReasoner, layers: Sequence[int]) -> Iterator[dict[int, list[Tensor]]]:
    """Collect, at each run of the layers, what these blocks (0-based) give at the last position [R, d]."""
    streams: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: int) -> Callable[[Any, Any, Tensor], None]:
        # A copy: a view would keep the whole question's states alive.
        return lambda module, args, output: streams[layer].append(output[:, -1].clone())

    handles = [model.layers[layer].register_forward_hook(keep(layer)) for layer in streams]
    try:
        yield streams
    finally:
        for handle in handles:
            handle.remove()
