"""Clean passes over problems: thoughts, answers, and what the layers held at each position."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from thoughtgraft.arguments import answers_for_calls, whole
from thoughtgraft.edits.arms import Action, Feed
from thoughtgraft.engine.batching import packs, plan_budget, surviving
from thoughtgraft.engine.latents import think_clean
from thoughtgraft.engine.rollout import RolloutResult, check_lengths, fits, rollout, too_long
from thoughtgraft.engine.rows import Row
from thoughtgraft.errors import ModelError, RunError
from thoughtgraft.files import io_error, make_folder, sweep, write_atomic
from thoughtgraft.models.attention import ATTENTION
from thoughtgraft.models.live import admitted
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.protocols import padding
from thoughtgraft.models.reasoner import LatentReasoner, Prompt, as_model, attention_implementation
from thoughtgraft.records.features import HIDDEN, MADE_FROM, read_block
from thoughtgraft.records.spec import QUARANTINE_FOLDER
from thoughtgraft.tasks.grading import NUMBER, Grader
from thoughtgraft.tasks.load import as_problems
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

# Questions that think at once: more are not faster.
CPU_ROWS, GPU_ROWS = 128, 512


def encode(model: LatentReasoner, problems: ProblemSet) -> list[Prompt]:
    """Each problem's prompt under the model's protocol.

    Raises:
        ModelError: A question does not fit the model's context; the error names the longest.
    """
    questions = [model.question_ids(p.question) for p in problems]
    lengths = [len(ids) for ids in questions]
    pads = padding(lengths, model.protocol)
    prompts = [model.as_prompt(ids, pad) for ids, pad in zip(questions, pads, strict=True)]
    if long := [i for i, prompt in enumerate(prompts) if not fits(model, prompt)]:
        # Visible pads make a question's neighbours long too: the longest question is the one to blame.
        worst = max(long, key=lengths.__getitem__)
        more = "" if len(long) == 1 else f" (with {len(long) - 1} more)"
        raise too_long(model, prompts[worst], f"problem {problems[worst].id!r}{more} is")
    return prompts


def answer_limit(model: LatentReasoner, tokens: int | None) -> int:
    """The longest answer, in tokens: what was asked for, or the model's own where that is None.

    Raises:
        ModelError: It is no whole number from 1.
    """
    return model.max_new_tokens if tokens is None else whole(tokens, "max_new_tokens", ModelError, least=1)


def answer_identity(
    model: LatentReasoner, max_new_tokens: int | None = None, grader: Grader = NUMBER
) -> dict[str, Any]:
    """What every answer of a model rests on: its identity, how long an answer may be, and how answers are read."""
    return {**model.identity, "max_new_tokens": answer_limit(model, max_new_tokens), "task": grader.name}


@answers_for_calls(ModelError)
def collect_thoughts(
    model: LatentReasoner,
    problems: ProblemSet,
    *,
    batch_size: int | str = "auto",
    max_new_tokens: int | None = None,
    progress: bool = True,
    stop: Callable[[], bool] | None = None,
    identity: str | None = None,
) -> Thoughts:
    """The thoughts and answers of every problem, unedited.

    Args:
        model: The model.
        problems: P problems.
        batch_size: Rows at once, or `auto`; it does not change results.
        max_new_tokens: The longest answer; None takes the model's.
        progress: Show a progress bar.
        stop: Asked before each batch: whether to end with KeyboardInterrupt.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Returns:
        `fed [P, K, d]`, `hidden [P, K+1, d]` on the CPU in the model's dtype, answers and grades.

    Raises:
        ModelError: A question does not fit the context, the model gives thoughts or logits that are not finite, or it
            is not as it was loaded and no name is given.
    """
    model, problems = admitted(as_model(model), identity), as_problems(problems)
    if not len(problems):
        raise ModelError("there are no problems to think about", fix="load at least one problem")
    limit = answer_limit(model, max_new_tokens)
    return think_clean_runs(model, problems, limit, batch_size=batch_size, progress=progress, stop=stop)


def think_clean_runs(
    model: LatentReasoner,
    problems: ProblemSet,
    max_new_tokens: int,
    *,
    batch_size: int | str = "auto",
    progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Thoughts:
    """`collect_thoughts` of a model that was admitted already: to admit it is to read all of its weights."""
    prompts = encode(model, problems)
    clean = tuple([Action(Feed.CLEAN)] * model.num_latents)
    budget = plan_budget(model, batch_size, max(map(len, prompts), default=0))
    budget = replace(budget, rows=min(budget.rows, CPU_ROWS if model.device.type == "cpu" else GPU_ROWS))
    batches = packs(range(len(problems)), lambda i: 1, lambda i: len(prompts[i]), budget)
    results: dict[int, tuple[RolloutResult, int]] = {}

    def once(batch: list[int]) -> None:
        rows = [Row(at, clean) for at in range(len(batch))]
        out = rollout(model, [prompts[i] for i in batch], rows, max_new_tokens=max_new_tokens)
        results.update({i: (out, at) for at, i in enumerate(batch)})

    with tqdm(total=len(problems), desc="clean thoughts", unit="problem", disable=not progress) as bar:
        for batch in surviving(once, batches, lambda i: 1, lambda i: [i], model.device, stop):
            bar.update(len(batch))
    found = [results[i] for i in range(len(problems))]
    hidden = torch.stack([out.hidden[at] for out, at in found]).cpu()
    refuse_broken(hidden, [out.failed[at] for out, at in found], problems)
    ids = tuple(out.answers.token_ids[at] for out, at in found)
    texts = tuple(model.text(answer) for answer in ids)
    pred = tuple(problems.grader.parse(text) for text in texts)
    return Thoughts(
        fed=torch.stack([out.fed[at] for out, at in found]).cpu(),
        hidden=hidden,
        token_ids=ids,
        texts=texts,
        stopped=tuple(out.answers.stopped[at] for out, at in found),
        pred=pred,
        correct=tuple(problems.grader.same(said, p.gold) for said, p in zip(pred, problems, strict=True)),
        problem_ids=tuple(p.id for p in problems),
        identity=answer_identity(model, max_new_tokens, problems.grader),
        problem_hash=problems.content_hash,
    )


def refuse_broken(hidden: torch.Tensor, failed: Sequence[str | None], problems: ProblemSet) -> None:
    """Raise a ModelError where a clean run's `hidden` [P, K+1, d] is not finite, or where it has `failed` [P]."""
    thought = (~hidden.isfinite().flatten(1).all(1)).tolist()
    for what, broken in (("thoughts", thought), ("logits", [reason is not None for reason in failed])):
        if any(broken):
            raise ModelError(
                f"the model's {what} are not finite numbers",
                got=f"NaN or infinite in {sum(broken)} of {len(broken)} problems, "
                f"first in {problems[broken.index(True)].id!r}",
                fix="--dtype float32 if it overflows in half precision; else its weights are damaged "
                "(thoughtgraft doctor)",
            )


_FILE_BYTES = 64 << 20  # of one file, and so about what is held in memory of the features
STORAGE = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class FeatureWriter:
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


def feature_writer(
    model: LatentReasoner, problems: ProblemSet, layers: Sequence[int], folder: Path, storage: str
) -> FeatureWriter:
    """The writer of one model's features on one problem set.

    Raises:
        ModelError: The model has no such layer, or the type is unknown.
    """
    depth = len(model.layers)
    if wrong := [layer for layer in layers if not 0 <= layer < depth]:
        raise ModelError(f"{model.name} has no layer {wrong[0]}", expected=f"0..{depth - 1}")
    if storage not in STORAGE:
        raise ModelError("features cannot be kept as this type", got=repr(storage), expected=", ".join(STORAGE))
    positions = ("BOT", *(f"CT{k}" for k in range(model.num_latents)))
    made_from = hashlib.sha256(f"{model.model_hash} {problems.content_hash} {storage}".encode()).hexdigest()[:16]
    return FeatureWriter(folder, tuple(layers), positions, STORAGE[storage], made_from)


def extract_features(
    model: LatentReasoner,
    problems: ProblemSet,
    writer: FeatureWriter,
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
    most = min(CPU_ROWS if model.device.type == "cpu" else GPU_ROWS, max(1, _FILE_BYTES // row_bytes))
    budget = plan_budget(model, batch_size, max(map(len, prompts), default=0))
    batches = packs(todo, lambda i: 1, lambda i: len(prompts[i]), replace(budget, rows=min(budget.rows, most)))

    def once(batch: list[int]) -> None:
        found = features_of(model, [prompts[i] for i in batch], writer.layers)
        writer.write([problems[i].id for i in batch], *found)

    title = f"features of {model.name}"
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
def features_of(model: LatentReasoner, prompts: Sequence[Prompt], layers: Sequence[int]) -> tuple[Tensor, Tensor]:
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
