"""`think`: the plain way to a model's thoughts, vector by vector through the library's own layers and cache.

It takes one problem or a padded batch, makes edits, keeps the states that blocks hold, and is differentiable. The
reference runs on it, and so does training, with gradients.

The fast path (`latents`) is compared with it and shares only the model's primitives and its loop. The certificate's
oracle (`verify.oracle`) is a third loop on purpose, so that it shares no mistake of this one. What all of them get from
the model is what an adapter is for: embedding, projection, unembedding and ids. The loop tells each which step is
whose.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from thoughtgraft.arguments import items, shown, whole
from thoughtgraft.errors import PlanError
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, Prompt, as_model, check_lengths
from thoughtgraft.models.thinker import Decoding, Thinker


@dataclass(frozen=True)
class Past:
    """What a model has read so far, in R rows. Reading on makes another past and leaves this one as it is.

    Attributes:
        model: Who reads; its attention is the one that is set.
        cache: Keys and values of C columns; not to be written to.
        seen: Ones where a column is read, zeros where it is filler [R, C].
        next: The position of what is read next [R, 1].
        last: The final-normed state of what was read last [R, d].
    """

    model: Thinker
    cache: DynamicCache
    seen: Tensor
    next: Tensor
    last: Tensor

    @classmethod
    def of(cls, model: Thinker, ids: Tensor, seen: Tensor, mask: Tensor | None = None) -> Past:
        """Read tokens [R, T], filler on the left.

        Args:
            model: Who reads.
            ids: Token ids [R, T].
            seen: Ones for tokens, zeros for filler [R, T].
            mask: Who attends to whom, additive [R, 1, T, T]; None: every token to those before it.
        """
        positions = (seen.cumsum(1) - 1).clamp_min(0)
        cache = DynamicCache()
        states = model.forward(model.embed(ids), positions, seen if mask is None else mask, cache)
        return cls(model, cache, seen, seen.sum(1, keepdim=True), states[:, -1])

    def read(self, vectors: Tensor, seen: Tensor | None = None) -> tuple[Past, Tensor]:
        """Read vectors [R, T, d]: the past after them, and their final-normed states [R, T, d].

        Args:
            vectors: What is fed.
            seen: Zeros for filler on the right [R, T], after which the past must not be read on; None where all is.
        """
        width = vectors.shape[1]
        seen = torch.cat([self.seen, self.seen.new_ones(len(vectors), width) if seen is None else seen], 1)
        cache = self.fork()
        positions = self.next + torch.arange(width, device=vectors.device)
        states = self.model.forward(vectors, positions, seen, cache)
        return replace(self, cache=cache, seen=seen, next=self.next + width, last=states[:, -1]), states

    def fork(self) -> DynamicCache:
        """A cache that begins with the same keys and values, which are not copied; it may be written to."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return cache

    def rows(self, index: Tensor) -> Past:
        """The past of some rows [r]."""
        cache = self.fork()
        cache.batch_select_indices(index)
        return replace(self, cache=cache, seen=self.seen[index], next=self.next[index], last=self.last[index])

    def keep(self, other: Past, column: int, last: Tensor) -> Past:
        """Let one column of another past stand where the next one would, and its state `last` [R, d]."""
        cache = self.fork()
        for i, layer in enumerate(other.cache.layers):
            cache.update(layer.keys[:, :, column, None], layer.values[:, :, column, None], i)
        seen = torch.cat([self.seen, self.seen.new_ones(len(last), 1)], 1)
        return replace(self, cache=cache, seen=seen, next=self.next + 1, last=last)

    def logits(self, target: Tensor) -> Tensor:
        """Teacher forcing: logits [R, T, V] that predict each of `target` [R, T] from those before it."""
        _, states = self.read(self.model.embed(target[:, :-1])) if target.shape[1] > 1 else (self, self.last[:, :0])
        return self.model.unembed(torch.cat([self.last[:, None], states], 1))

    @torch.no_grad()
    def write(self, decoding: Decoding) -> list[Written]:
        """Write on, each row until it has ended or reached the limit."""
        past, tokens = self, list[Tensor]()
        over = torch.zeros(len(self.last), dtype=torch.bool, device=self.last.device)
        stops = torch.tensor(decoding.ends, device=self.last.device)
        while True:
            logits = self.model.unembed(past.last).clone()
            logits[:, list(decoding.forbidden)] = -torch.inf
            tokens.append(logits.argmax(-1))
            over = over | torch.isin(tokens[-1], stops)
            if len(tokens) >= decoding.limit or over.all():
                break
            past, _ = past.read(self.model.embed(tokens[-1][:, None]))
        return [Written.until(row, decoding.ends) for row in torch.stack(tokens, 1).tolist()]


@dataclass(frozen=True)
class Written:
    """An answer: its ids without the end of sequence, and whether it ended by itself."""

    ids: tuple[int, ...]
    stopped: bool

    @classmethod
    def until(cls, ids: Sequence[int], ends: Sequence[int]) -> Written:
        """What stands before the first end."""
        at = next((i for i, token in enumerate(ids) if token in ends), None)
        return cls(tuple(ids[:at]), at is not None)


@dataclass(frozen=True)
class Change:
    """One edit of a run: what a step is fed, or the residual stream after a block at the position that it makes.

    Attributes:
        step: The 0-based step of the loop; that of a slot k is `model.loop.step_of(k)`, k itself in most loops.
        edit: From live vectors [P, d] to those that take their place.
        layer: The 0-based block; None for what the step is fed.
    """

    step: int
    edit: Callable[[Tensor], Tensor]
    layer: int | None = None


@dataclass(frozen=True)
class Keep:
    """At one step nothing is computed: another run's keys and values stand there, in every layer, and its states."""

    step: int
    run: Trace


@dataclass(frozen=True)
class Trace:
    """What P problems thought in S steps.

    Where `grad` is on, the single vectors of `steps` and `streams` are nodes of the graph: gradients can be asked for
    with respect to them. The stacked ones (`fed`, `hidden`, `resid`) are copies, for reading.

    Attributes:
        start: The past after the prompt.
        past: The past after the last step.
        steps: What each step was fed, S times [P, d].
        states: The final-normed states at the prompt's last token and after each step, S + 1 times [P, d].
        streams: By position and layer the residual stream after that block [P, d]: position 0 is the prompt's last
            token, k + 1 step k.
        layers: The blocks that were captured, 0-based.
        grad: Whether gradients are kept.
    """

    start: Past
    past: Past
    steps: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    streams: Mapping[tuple[int, int], Tensor]
    layers: tuple[int, ...] = ()
    grad: bool = False

    @property
    def fed(self) -> Tensor:
        """The thoughts as the loop counts them [P, K, d]: what each step was fed, in most loops."""
        return _stacked(self._thoughts()[0], self.states[0])

    @property
    def hidden(self) -> Tensor:
        """The states that they are made from, and the one that nothing is made of [P, K + 1, d], in most loops."""
        return _stacked(self._thoughts()[1], self.states[0])

    def _thoughts(self) -> tuple[list[Tensor], list[Tensor]]:
        model = self.past.model
        with torch.set_grad_enabled(self.grad):
            return model.loop.thoughts(model, self.steps, self.states)

    @property
    def resid(self) -> Tensor:
        """The captured residual streams [P, S + 1, L, d], layers in the order of `layers`."""
        positions = range(len(self.states))
        by_position = [_stacked([self.streams[p, layer] for layer in self.layers], self.states[0]) for p in positions]
        return torch.stack(by_position, 1)

    def close(self) -> Past:
        """The past after end-of-thought, from which the answer is written."""
        model = self.past.model
        with torch.set_grad_enabled(self.grad):
            return self.past.read(model.embed_token(model.end_of_thought, self.past.last)[:, None])[0]

    @with_ieee_products
    def logits(self, target: Tensor) -> Tensor:
        """Logits [P, T, V] that predict each token of the answers `target` [P, T] from those before it."""
        with torch.set_grad_enabled(self.grad):
            return self.close().logits(target)

    @with_ieee_products
    def answer(self, max_new_tokens: int | None = None) -> list[Written]:
        """The greedy answer of each problem, which ends at the latest where its own context does.

        Args:
            max_new_tokens: The longest answer; None takes the model's.
        """
        model = as_model(self.past.model)
        decoding, end, most = model.decoding, self.close(), model.max_positions
        if max_new_tokens is not None:
            decoding = replace(decoding, limit=max_new_tokens)
        room = [decoding if most is None else decoding.within(most - place) for place in end.next[:, 0].tolist()]
        if all(one == decoding for one in room):
            return end.write(decoding)
        one_by_one = end.next.new_tensor(range(len(room)))[:, None]
        return [end.rows(row).write(one)[0] for row, one in zip(one_by_one, room, strict=True)]


_ASKED = "a question, a prompt, or a list of either"


def _check_changes(edits: Sequence[Change | Keep], n_steps: int) -> None:
    """Refuse what would change nothing, or fail on the way.

    Raises:
        PlanError: An edit is none, acts at a step that there is not, or cannot be called.
    """
    fix = "think(model, question, edits=[Change(2, lambda live: 0 * live)]), for example"
    for one in items(edits, "the edits", PlanError, expected="a list of Change and Keep", fix=fix):
        if not isinstance(one, Change | Keep):
            raise PlanError("one of the edits is none", got=shown(one), expected="a Change or a Keep", fix=fix)
        if whole(one.step, "the step of an edit", PlanError, least=0) >= n_steps:
            raise PlanError("an edit acts at a step that there is not", got=one.step, expected=f"0..{n_steps - 1}")
        if isinstance(one, Change) and not callable(one.edit):
            raise PlanError("the edit of a Change is a function", got=shown(one.edit), expected="edit(live) -> vectors")


@with_ieee_products
def think(
    model: LatentReasoner,
    prompts: str | Prompt | Sequence[str | Prompt],
    *,
    edits: Sequence[Change | Keep] = (),
    capture: Sequence[int] = (),
    grad: bool = False,
    order: Sequence[int] | None = None,
) -> Trace:
    """Think about P problems, in one padded batch, by plain forward passes of the library.

    Args:
        model: The model; it runs under the attention that is set.
        prompts: Questions, or prompts that the model made.
        edits: What is changed on the way, in this order where two meet.
        capture: 0-based blocks whose residual streams are kept, at begin-of-thought and at every step.
        grad: Keep the graph, so that gradients can be taken through every step.
        order: The steps whose vectors are made, one after the other; None: 0..K-1. Fewer end the thoughts early; one
            left out is never made.

    Raises:
        ModelError: A question does not fit the model's context.
        PlanError: An edit gives vectors of another shape, or a block is asked for that the model does not have.
    """
    model = as_model(model)
    several = [prompts] if isinstance(prompts, str | Prompt) else prompts
    given: list[str | Prompt] = items(several, "the prompts", PlanError, expected=_ASKED)
    if not given:
        raise PlanError("there is nothing to think about", expected=_ASKED)
    _check_changes(edits, model.num_latents if order is None else len(order))
    asked = [model.prompt(one) if isinstance(one, str) else one for one in given]
    check_lengths(model, asked)
    depth, wanted = len(model.layers), [*capture, *(one.layer for one in edits if isinstance(one, Change))]
    if strange := [layer for layer in wanted if layer is not None and not 0 <= layer < depth]:
        raise PlanError(f"{model.name} has no layer {strange[0]}", expected=f"layers 0..{depth - 1}")
    with torch.set_grad_enabled(grad):
        heard: dict[tuple[int, int], Tensor] = {}
        with _streams(model, 0, capture, (), heard):
            start = ask(model, asked)
        return think_on(start, edits=edits, capture=capture, order=order, heard=heard)


def ask(model: LatentReasoner, prompts: Sequence[Prompt]) -> Past:
    """The past after P prompts, filled up on the left."""
    longest = max(map(len, prompts))
    empty = [longest - len(prompt) for prompt in prompts]
    ids = [[model.pad_id] * n + list(prompt.ids) for n, prompt in zip(empty, prompts, strict=True)]
    seen = [[0] * n + [1] * len(prompt) for n, prompt in zip(empty, prompts, strict=True)]
    mask = None
    if any(prompt.pad for prompt in prompts):
        mask = torch.stack([_mask(prompt, n, model.dtype) for n, prompt in zip(empty, prompts, strict=True)])[:, None]
        mask = mask.to(model.device)
    return Past.of(model, torch.tensor(ids, device=model.device), torch.tensor(seen, device=model.device), mask)


def _mask(prompt: Prompt, empty: int, dtype: torch.dtype) -> Tensor:
    """Additive mask [T, T] of a prompt behind `empty` columns of filler, where its pads will be seen.

    Its words see the words before them, and no pad. A pad's own row is masked everywhere in the prompt by one finite
    number, which makes its attention uniform: that is what the official code's fully masked rows do on a CPU.
    """
    length, words = empty + len(prompt), empty + prompt.pad
    mask = torch.full((length, length), -torch.inf, dtype=dtype)
    for row in range(length):
        if row < empty:
            mask[row, row] = 0
        elif row < words:
            mask[row, empty:] = torch.finfo(dtype).min
        else:
            mask[row, words : row + 1] = 0
    return mask


def think_on(
    start: Past,
    *,
    edits: Sequence[Change | Keep] = (),
    capture: Sequence[int] = (),
    order: Sequence[int] | None = None,
    heard: Mapping[tuple[int, int], Tensor] | None = None,
) -> Trace:
    """Make the thoughts after a prompt, in whatever mode torch is in; `think` says what the arguments are.

    Args:
        start: The past after the prompt.
        edits: What is changed.
        capture: Blocks whose residual streams are kept.
        order: Whose vectors are made.
        heard: What was captured at the prompt's last token.
    """
    model, past, streams = start.model, start, dict(heard or {})
    steps, states = [], [start.last]
    kept = {one.step: one.run for one in edits if isinstance(one, Keep)}
    changes = [one for one in edits if isinstance(one, Change)]
    for step, made in enumerate(range(model.num_latents) if order is None else order):
        here = [change for change in changes if change.step == step]
        if (run := kept.get(step)) is not None:
            steps.append(run.steps[step])
            past = past.keep(run.past, run.start.seen.shape[1] + step, run.states[step + 1])
            streams |= {(step + 1, layer): run.streams[step + 1, layer] for layer in capture}
        else:
            vector = model.loop.feed(model, past.last, made)
            for change in here:
                vector = _edited(change, vector) if change.layer is None else vector
            steps.append(_node(vector))
            with _streams(model, step + 1, capture, here, streams):
                past, _ = past.read(steps[-1][:, None])
        states.append(past.last)
    return Trace(start, past, tuple(steps), tuple(states), streams, tuple(capture), torch.is_grad_enabled())


def _edited(change: Change, live: Tensor) -> Tensor:
    found = change.edit(live)
    if found.shape != live.shape:
        raise PlanError(
            f"the edit at step {change.step} changed the shape", got=list(found.shape), expected=list(live.shape)
        )
    return found.to(live)


def _node(vector: Tensor) -> Tensor:
    """A vector that gradients can be asked for, if they are kept at all: of a frozen model it begins the graph."""
    return vector.detach().requires_grad_() if torch.is_grad_enabled() and not vector.requires_grad else vector


@contextmanager
def _streams(
    model: Thinker,
    position: int,
    capture: Sequence[int],
    changes: Sequence[Change],
    heard: dict[tuple[int, int], Tensor],
) -> Iterator[None]:
    """While it lasts, blocks give at the last position what changes make of it, and what is captured goes to `heard`.

    The vector of the last position is put into what the block gives, so that gradients pass through it.
    """

    def hook(layer: int) -> Callable[[Any, Any, Tensor], Tensor]:
        def at_last(module: Any, args: Any, output: Tensor) -> Tensor:
            vector = output[:, -1]
            for change in changes:
                vector = _edited(change, vector) if change.layer == layer else vector
            if layer in capture:
                heard[position, layer] = vector = _node(vector)
            return torch.cat([output[:, :-1], vector[:, None]], 1)

        return at_last

    layers = {*capture, *(change.layer for change in changes if change.layer is not None)}
    handles = [model.layers[layer].register_forward_hook(hook(layer)) for layer in sorted(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stacked(vectors: Sequence[Tensor], like: Tensor) -> Tensor:
    """S times [P, d] -> [P, S, d]."""
    return torch.stack(list(vectors), 1) if vectors else like.new_zeros(len(like), 0, like.shape[-1])
