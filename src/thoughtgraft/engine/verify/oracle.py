"""The plainest way to a model's numbers: the library's own forward pass and cache, fed vector by vector.

Of the adapter it uses what an adapter is for: embedding, projection, unembedding and the ids around the thoughts; of
the loop, which ids stand before the first step and which step is whose. Attention, masks, positions and cache are the
library's. It is no user of `engine.think`, which the reference and training run on: each of the two would see a mistake
of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from thoughtgraft.arguments import parse_json
from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.edit import Change
from thoughtgraft.edits.known import Baseline, Swap, Zero
from thoughtgraft.engine.rollout import rollout
from thoughtgraft.engine.rows import Row, Source
from thoughtgraft.engine.verify.bench import gap, logits_of, noise_like
from thoughtgraft.engine.verify.statements import at_most
from thoughtgraft.errors import ModelError
from thoughtgraft.models.reasoner import LatentReasoner, attention_implementation
from thoughtgraft.records.certificate import Check

Columns = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer [R, H, T, hd]."""

_LIKE_CODI = ("codi", "pause", "direct", "cot")


@dataclass(frozen=True)
class Asked:
    """A question as the model gets it: ids [T], of which the first `pad` are visible pads; `first` opens the loop."""

    ids: tuple[int, ...]
    pad: int
    first: int | None


def ask(model: LatentReasoner, questions: Sequence[str]) -> list[Asked]:
    """The prompts of questions that are asked together.

    The words are tokenized as the official code of the family does it; begin-of-thought is the adapter's.
    """
    written = [_prompt(model, question) for question in questions]
    longest = max(map(len, written))
    found = []
    for ids in written:
        pad = longest - len(ids) if model.protocol.pads_visible else 0
        shown = model.loop.shown(ids)
        found.append(Asked((model.pad_id,) * pad + shown, pad, None if len(shown) == len(ids) else ids[-1]))
    return found


def _prompt(model: LatentReasoner, question: str) -> list[int]:
    official = model.question_ids(question)
    if model.family in _LIKE_CODI:
        question = question.strip().replace("  ", " ")
    elif model.family != "coconut":
        return list(official)
    return [*model.tokenizer(f"{question}{model.prompt_suffix}")["input_ids"], official[-1]]


def never_written(model: LatentReasoner) -> tuple[int, ...]:
    """The ids that greedy decoding leaves out: the official CODI leaves out end-of-thought, Coconut nothing."""
    if model.family in _LIKE_CODI:
        return (model.end_of_thought,)
    return () if model.family == "coconut" else model.decoding.forbidden


@contextmanager
def plainly(model: LatentReasoner) -> Iterator[None]:
    """Run the model with the library's own attention."""
    with torch.inference_mode(), attention_implementation(model.lm, "sdpa"):
        yield


class Strip:
    """R rows behind columns that were computed before.

    Args:
        model: The model, under the library's own attention.
        columns: What stands before, of one row or of R.
        rows: R.
    """

    def __init__(self, model: LatentReasoner, columns: Columns, rows: int) -> None:
        self.model, self.rows, self.cache = model, rows, DynamicCache()
        for layer, (keys, values) in enumerate(columns):
            self.cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)

    def feed(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """The final-normed states [R, T, d] of vectors [R, T, d] that follow what was fed before."""
        out = self.model.lm.base_model(
            inputs_embeds=vectors, attention_mask=mask, past_key_values=self.cache, use_cache=True
        )
        states: Tensor = out.last_hidden_state
        return states

    def write(self, ids: Tensor) -> Tensor:
        """The states [R, T, d] of ids [R, T], which are forgotten again."""
        return Strip(self.model, self.columns, self.rows).feed(self.model.embed(ids))

    @property
    def columns(self) -> Columns:
        """Keys and values so far."""
        return [(layer.keys, layer.values) for layer in self.cache.layers]

    def replace(self, rows: Sequence[int], column: int, clean: Columns) -> None:
        """Put one column of a clean run's keys and values in the place of these rows' own."""
        for own, kept in zip(self.columns, clean, strict=True):
            for mine, theirs in zip(own, kept, strict=True):
                mine[list(rows), :, column] = theirs[0, :, column]


@dataclass(frozen=True)
class Clean:
    """One problem, unedited.

    Attributes:
        length: Tokens of its prompt.
        columns: Keys and values of the prompt and the K steps of the loop.
        steps: What each step was fed [K, d].
        fed: The thoughts as they are recorded [K, d]: the same, or, where begin-of-thought opens the loop, those after
            it and the last one, which nothing is fed.
        hidden: What each of them is projected from, and the state after the last [K + 1, d]; [K, d] in that case.
        streams: The residual stream after each of L blocks, at begin-of-thought and at each step [K + 1, L, d].
    """

    length: int
    columns: Columns
    steps: Tensor
    fed: Tensor
    hidden: Tensor
    streams: Tensor

    def before(self) -> Columns:
        """The prompt's columns."""
        return [(keys[:, :, : self.length], values[:, :, : self.length]) for keys, values in self.columns]


def think(model: LatentReasoner, asked: Asked, touch: float = 0.0) -> Clean:
    """Think once; `touch` is a relative error of the question's embeddings."""
    embeds = touched(model.embed(torch.tensor([asked.ids], device=model.device))[0], touch, 0)[None]
    strip = Strip(model, [], 1)
    streams: list[list[Tensor]] = []
    steps, hidden = [], []
    with listening_to_blocks(model, streams):
        state = strip.feed(embeds, _padded(asked, embeds))[:, -1]
        hidden.append(state)
        for slot in range(model.num_latents):
            opens = slot == 0 and asked.first is not None
            steps.append(
                model.embed(torch.tensor([asked.first], device=model.device)) if opens else model.project(state, slot)
            )
            state = strip.feed(touched(steps[-1], touch, slot)[:, None])[:, -1]
            hidden.append(state)
    fed = list(steps)
    if asked.first is not None:
        hidden = hidden[1:]
        fed = [model.project(state, slot) for slot, state in enumerate(hidden)]
    none = embeds[0, :0]
    made = [torch.cat(x) if x else none for x in (steps, fed, hidden)]
    return Clean(len(asked.ids), strip.columns, made[0], made[1], made[2], torch.stack([torch.cat(x) for x in streams]))


def _padded(asked: Asked, like: Tensor) -> Tensor | None:
    """Where pads are visible: no token of the question sees them, and they look at all of the prompt evenly."""
    if not asked.pad:
        return None
    length, pad = len(asked.ids), asked.pad
    mask = torch.full((length, length), -torch.inf, dtype=like.dtype, device=like.device)
    for row in range(length):
        if row < pad:
            mask[row] = torch.finfo(like.dtype).min
        else:
            mask[row, pad : row + 1] = 0
    return mask[None, None]


@contextmanager
def listening_to_blocks(model: LatentReasoner, heard: list[list[Tensor]]) -> Iterator[None]:
    """Write down what each block gives at the last position, one list of [R, d] for each pass."""

    def hook(layer: int) -> Callable[[Any, Any, Tensor], None]:
        def hear(module: Any, args: Any, output: Tensor) -> None:
            if layer == 0:
                heard.append([])
            heard[-1].append(output[:, -1].clone())

        return hear

    with _hooked(model, {layer: hook(layer) for layer in range(len(model.layers))}):
        yield


@contextmanager
def editing_streams(model: LatentReasoner, edits: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Replace the states [R, T, d] that some blocks give by what `edits` makes of them."""
    with _hooked(model, {layer: (lambda m, a, output, e=edit: e(output.clone())) for layer, edit in edits.items()}):
        yield


@contextmanager
def _hooked(model: LatentReasoner, hooks: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
    handles = [model.layers[layer].register_forward_hook(hook) for layer, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def touched(vectors: Tensor, touch: float, seed: int) -> Tensor:
    """Vectors [n, d] with a relative error."""
    return vectors + touch * noise_like(vectors, seed) if touch else vectors


def touch_of(model: LatentReasoner) -> float:
    """The relative error of what is fed at which the sensitivity of single records to rounding is measured.

    It is smaller than the bench's, the root of epsilon: there one of 663 records of a random network had long moved as
    far as it could.
    """
    return float(torch.finfo(model.dtype).eps ** 0.75)


_SAME = 0.02
"""Distance, relative to the largest figure, that two float32 programs may show on networks of high gain."""


def read_cases(path: str | Path) -> dict[str, Any]:
    """The cases in a file.

    Raises:
        ModelError: It is not such a file.
    """
    try:
        cases = parse_json(Path(path).read_text())
        if len(cases["questions"]) != len(cases["unpadded"]):
            raise ValueError("questions and unpadded differ in length")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} holds no official cases",
            got=repr(error),
            expected="JSON with questions and unpadded (input_ids, z_fed, first_answer_logits), as in tests/golden",
        ) from error
    return dict(cases)


def conformance(model: LatentReasoner, cases: Mapping[str, Any]) -> Check:
    """Prompts, thoughts, first answer logits, swaps and zeros, in this order; the first that differ are named."""
    name, official = "official cases", cases["unpadded"]
    prompts = [model.prompt(question) for question in cases["questions"]]
    for i, (prompt, wanted) in enumerate(zip(prompts, official, strict=True)):
        if list(prompt.ids) != wanted["input_ids"]:
            return at_most(name, torch.inf, _SAME, f"the prompt of question {i} has other ids")

    def row(change: Change, case: Mapping[str, Any]) -> Row:
        arm = Arm(change, [case["slot"]] if "slot" in case else ())
        actions = schedule(arm, model.num_latents, model.loop.step_of)
        return Row(case["host"], actions, arm.edit, case["host"], case.get("donor"))

    hosts: list[Mapping[str, Any]] = [
        {"host": i, "first_answer_logits": c["first_answer_logits"]} for i, c in enumerate(official)
    ]
    groups: dict[Change, list[Mapping[str, Any]]]
    groups = {Baseline(): hosts, Swap(): cases.get("swaps", []), Zero(): cases.get("zeros", [])}
    groups = {change: [c for c in found if c.get("slot", 0) < model.num_latents] for change, found in groups.items()}
    clean = rollout(model, prompts, [row(Baseline(), hosts[0])], max_new_tokens=1)
    wanted = torch.tensor([case["z_fed"] for case in official])
    if wanted.shape != clean.fed.shape:
        got = f"{tuple(clean.fed.shape)} thoughts, officially {tuple(wanted.shape)}"
        return at_most(name, torch.inf, _SAME, got)
    figures = {"the thoughts": _relative(clean.fed.cpu().float(), wanted)}
    rows = [row(change, case) for change, found in groups.items() for case in found]
    found = rollout(model, prompts, rows, Source.from_fed(clean.fed.clone()), max_new_tokens=1, keep_logits=True)
    logits, at = logits_of(found).float(), 0
    for change, members in groups.items():
        if members:
            there = torch.tensor([case["first_answer_logits"] for case in members])
            figures[f"the logits of {change.name}"] = _relative(logits[at : at + len(members)], there)
            at += len(members)
    first = next((what for what, figure in figures.items() if not figure <= _SAME), "")
    detail = f"{len(rows)} runs on {len(prompts)} questions" + (f"; {first} are the first to differ" if first else "")
    return at_most(name, max(figures.values()), _SAME, detail)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return gap(ours, theirs) / float(theirs.abs().max())
