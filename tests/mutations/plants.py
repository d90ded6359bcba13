"""Known mistakes, each planted into the engine, the adapter or the loader, and what must catch it with which words."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pytest import MonkeyPatch
from tests.mutations.plant import LOADER, OFFICIAL, SELF, Mutation, wrap
from torch import Tensor, nn

from thoughtgraft.edits import known
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.edit import Edit
from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine import latents as clean_module
from thoughtgraft.engine import latents as forked_module
from thoughtgraft.engine import rollout as rollout_module
from thoughtgraft.engine import rows as grid_module
from thoughtgraft.engine.rows import Row
from thoughtgraft.models.checkpoint import assembly
from thoughtgraft.models.codi import CodiReasoner
from thoughtgraft.models.reasoner import LatentReasoner


def _feeding(change: Callable[[dict[str, Any], Tensor], Tensor]) -> Callable[[MonkeyPatch], None]:
    """A change of what the engine feeds at a slot, from `_feed`'s arguments by name and its honest result."""

    def plant(patch: MonkeyPatch) -> None:
        honest = forked_module._feed
        signature = inspect.signature(honest)

        def feed(*args: Any) -> Tensor:
            return change(signature.bind(*args).arguments, honest(*args))

        patch.setattr(forked_module, "_feed", feed)

    return plant


def _acting(change: Callable[[Row], Row]) -> Callable[[MonkeyPatch], None]:
    """A change of what the engine makes of each row."""

    def plant(patch: MonkeyPatch) -> None:
        honest = grid_module.Grid.__init__

        def init(self: Any, rows: Any, *rest: Any, **more: Any) -> None:
            honest(self, [change(row) for row in rows], *rest, **more)

        patch.setattr(grid_module.Grid, "__init__", init)

    return plant


def _edit(kind: type[Edit], call: Callable[[Any, Tensor, EditContext], Tensor]) -> Callable[[MonkeyPatch], None]:
    return lambda patch: patch.setattr(kind, "__call__", call)


def _spoil_source(arguments: dict[str, Any], fed: Tensor) -> Tensor:
    if arguments["source"] is not None:
        arguments["source"].fed[:, arguments["slot"]] *= 1.01
    return fed


def _one_later(row: Row) -> Row:
    if any(action.feed is Feed.EDIT for action in row.actions):
        first = row.actions[0] if row.actions[0].feed is Feed.CLEAN else Action(Feed.CLEAN)
        return replace(row, actions=(first, *row.actions[:-1]))
    return row


def _zero_for_skip(row: Row) -> Row:
    if Feed.ABSENT not in [action.feed for action in row.actions]:
        return row
    at = next(k for k, action in enumerate(row.actions) if action.feed is not Feed.CLEAN)
    later = (Action(Feed.LIVE),) * (len(row.actions) - at - 1)
    return replace(row, actions=(*row.actions[:at], Action(Feed.EDIT), *later), edit=known.Zero())


def _never_recomputed(row: Row) -> Row:
    feeds = [action.feed for action in row.actions]
    if Feed.EDIT not in feeds:
        return row
    at = feeds.index(Feed.EDIT)
    kept = [Action(Feed.CLEAN) if a.feed is Feed.LIVE and k > at else a for k, a in enumerate(row.actions)]
    return replace(row, actions=tuple(kept))


def _bot_first(patch: MonkeyPatch) -> None:
    def make(honest: Callable[..., Any]) -> Callable[..., Any]:
        def think(model: CodiReasoner, prompts: Any) -> Any:
            usual, waiting = model.project, [model.checkpoint.bot_id]

            def project(hidden: Tensor, slot: int) -> Tensor:
                return model.embed(torch.tensor([waiting.pop()] * len(hidden))) if waiting else usual(hidden, slot)

            model.project = project  # type: ignore[method-assign]
            try:
                return honest(model, prompts)
            finally:
                del model.project

        return think

    wrap(patch, rollout_module, "think_clean", make)


def _unprojected(patch: MonkeyPatch) -> None:
    def make(honest: Callable[..., Any]) -> Callable[..., Any]:
        def think(model: Any, prompts: Any) -> Any:
            clean = honest(model, prompts)
            return replace(clean, fed=clean.hidden[:, : model.num_latents])

        return think

    wrap(patch, rollout_module, "think_clean", make)


def _stale(patch: MonkeyPatch) -> None:
    def make(honest: Callable[..., Any]) -> Callable[..., Any]:
        kept: dict[int, Any] = {}

        def think(model: Any, prompts: Any) -> Any:
            if len(prompts) not in kept:
                kept[len(prompts)] = honest(model, prompts)
            return kept[len(prompts)]

        return think

    wrap(patch, rollout_module, "think_clean", make)


def _leaky(patch: MonkeyPatch) -> None:
    def make(honest: Callable[..., Any]) -> Callable[..., Any]:
        return lambda length, empty, pads, dtype: honest(length, torch.zeros_like(empty), pads, dtype)

    wrap(patch, clean_module, "_question_mask", make)


def _final_norm(model: LatentReasoner) -> nn.Module:
    base = model.lm.base_model
    return base.ln_f if hasattr(base, "ln_f") else base.norm


def _norm_twice_in_forward(patch: MonkeyPatch) -> None:
    def make(honest: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *args, **more: _final_norm(self)(honest(self, *args, **more))

    wrap(patch, LatentReasoner, "forward", make)


def _norm_twice_in_project(patch: MonkeyPatch) -> None:
    def make(honest: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, hidden, slot: honest(self, _final_norm(self)(hidden), slot)

    wrap(patch, CodiReasoner, "project", make)


def _other_prompt(patch: MonkeyPatch) -> None:
    def make(honest: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, question: honest(self, f"how {question}")

    wrap(patch, CodiReasoner, "question_ids", make)


def _unmerged(patch: MonkeyPatch) -> None:
    patch.setattr(assembly, "merge_lora", lambda weight, low, high, **more: weight)


def _keys_shifted(patch: MonkeyPatch) -> None:
    def build(d_model: int, prj_dim: int, norm: bool = True) -> nn.Sequential:
        layers = [nn.Linear(d_model, prj_dim), nn.GELU(), nn.Linear(prj_dim, d_model)]
        named = {str(i): layer for i, layer in enumerate(layers)}
        return nn.Sequential(OrderedDict(named | {"ln": nn.LayerNorm(d_model)}))

    patch.setattr(assembly, "build_projection", build)


def _other_epsilon(patch: MonkeyPatch) -> None:
    honest = assembly.build_lm

    def build(config: Any) -> Any:
        lm = honest(config)
        for module in lm.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 0.3
        return lm

    patch.setattr("thoughtgraft.models.checkpoint.read.build_lm", build)


MUTATIONS = (
    Mutation(
        "edit after use instead of before",
        "engine: the slot is fed the live vector, the edit comes too late",
        _feeding(lambda arguments, fed: arguments["live"].clone()),
        SELF,
        ("edits arrive", "the checks can fail", "no dead slot"),
        "feeds the host's own vector, as if nothing were edited",
    ),
    Mutation(
        "donor one step ahead",
        "edit: swap takes the donor's next thought",
        _edit(known.Swap, lambda self, live, at: at.donor(slot=min(at.slot + 1, at.donor.n_slots - 1))),
        SELF,
        ("edits arrive", "transplant", "fast equals reference"),
        "feeds what the donor is fed 1 step later",
    ),
    Mutation(
        "own thought one step behind",
        "edit: what is written at slot k was read at slot k - 1",
        _edit(known.Self, lambda self, live, at: at.host(slot=max(at.slot - 1, 0))),
        SELF,
        ("self-swap identity",),
        "most at CT",
    ),
    Mutation(
        "BOT counted as thought 0",
        "engine: the first step is fed begin-of-thought",
        _bot_first,
        SELF,
        ("thoughts fed", "fast equals reference", "library agrees"),
        "what is fed at CT0 is token 104, not a thought",
    ),
    Mutation(
        "swap without prj",
        "engine: the thoughts kept for swaps are states before the projection",
        _unprojected,
        SELF,
        ("edits arrive", "self-swap identity", "transplant"),
        "feeds the donor's state without the projection",
    ),
    Mutation(
        "final norm applied twice, in the forward pass",
        "adapter: states are normed again as they come out",
        _norm_twice_in_forward,
        SELF,
        ("thoughts fed", "library agrees"),
        "not made from the state before it",
        trained=True,
    ),
    Mutation(
        "final norm applied twice, in the projection",
        "adapter: states are normed again before prj, for every user alike",
        _norm_twice_in_project,
        SELF,
        ("weights are the file's",),
        "a state is not turned into a thought as the file's prj does it",
        trained=True,
    ),
    Mutation(
        "last state patched",
        "engine: every edit acts one slot later, that of the last slot nowhere",
        _acting(_one_later),
        SELF,
        ("edits arrive", "no dead slot", "fast equals reference"),
        "structurally null: CT5",
    ),
    Mutation(
        "pads visible",
        "engine: the question's mask shows the filler before it",
        _leaky,
        SELF,
        ("batch invariance", "padding probe"),
        "outputs change with the length of the question beside them",
    ),
    Mutation(
        "stale cache",
        "engine: keys and values of an earlier batch of the same size are used again",
        _stale,
        SELF,
        ("batch invariance", "order invariance"),
    ),
    Mutation(
        "later thoughts never recomputed",
        "engine: after an edit the clean keys and values stay",
        _acting(_never_recomputed),
        SELF,
        ("fast equals reference", "library agrees"),
    ),
    Mutation(
        "zero instead of skip",
        "engine: a skipped slot is fed zeros and keeps its place",
        _acting(_zero_for_skip),
        SELF,
        ("library agrees", "scores by definition", "edited vectors by definition"),
        "fed_norm of skip CT",
    ),
    Mutation(
        "the donor's cache mutated",
        "engine: an edit writes into the saved thoughts",
        _feeding(_spoil_source),
        SELF,
        ("cache isolation",),
        "changed: the saved thoughts",
    ),
    Mutation(
        "LoRA not merged",
        "loader: only the base weights are used",
        _unmerged,
        SELF,
        ("weights are the file's",),
        "not the file's: transformer.h.0.attn.c_attn.weight",
        reload=True,
    ),
    Mutation(
        "wrong alpha",
        "loader: LoRA scaled by 16 / r instead of 32 / r",
        lambda patch: None,
        OFFICIAL,
        ("official cases",),
        "the thoughts are the first to differ",
        reload=True,
        load=(("lora_alpha", 16),),
    ),
    Mutation(
        "prj keys shifted by one",
        "loader: prj built without the dropout at index 0",
        _keys_shifted,
        LOADER,
        (),
        "missing: prj.0.weight",
        reload=True,
    ),
    Mutation(
        "another prompt",
        "adapter: a word before the question",
        _other_prompt,
        SELF,
        ("library agrees", "states by definition"),
        "most for",
    ),
    Mutation(
        "another norm epsilon",
        "loader: a config value that no weight shows",
        _other_epsilon,
        OFFICIAL,
        ("official cases",),
        "the thoughts are the first to differ",
        reload=True,
    ),
)

UNSEEN = (
    (
        "wrong alpha or another norm epsilon (and, for an adapter of your own, another prompt), on a model that has "
        "neither official cases nor a fingerprint",
        "engine, reference and files agree with each other; only what the publisher printed could tell. Compare the "
        "accuracy with the published one (`thoughtgraft evaluate`).",
    ),
    (
        "wrong gold answers in the problem file",
        "the certificate asks what the model computes, not whether the problems are right.",
    ),
    (
        "an edit of one's own that is not what its name says",
        "the oracle calls the same function, row by row: it sees edits that hang on their neighbours, on their calls "
        "or on unseeded chance, and not what was meant.",
    ),
    (
        "what only more than a trial shows",
        "answers longer than the trial's 12 tokens, packs larger than its rows, and of plans with very many arms those "
        "that were left out. The tests of the engine go further, on small models.",
    ),
    (
        "rounding to half precision",
        "such models are checked in float32: what is proved is that the right thing is computed, not how exactly.",
    ),
    (
        "the intended model, trained another way than its authors say",
        "its weights are the file's, its answers those of the file.",
    ),
)
"""Mistakes that nothing here can see, and why."""
