"""Mistakes between a plan's arms and what the model is fed, or features taken from it; a trial must see each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from pytest import MonkeyPatch
from tests.mutations.plant import SELF, Function, Mutation, Plant, arguments, result, together, wrap
from torch import Tensor

from thoughtgraft.edits import known
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.edit import Edit
from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine import answer as decode
from thoughtgraft.engine import cells, collect, rollout, score
from thoughtgraft.engine import latents as forked
from thoughtgraft.engine import rows as edits
from thoughtgraft.engine import rows as grid
from thoughtgraft.engine import states as features
from thoughtgraft.engine.verify import records
from thoughtgraft.models import codi
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.thoughts import Thoughts

_NOISE = known.Noise.__call__


def _rotated(patch: MonkeyPatch) -> None:
    honest = edits.Edited.of

    def of(members: Any, *more: Any) -> edits.Edited:
        made = honest(members, *more)
        many = made.donors is not None and len(members) > 64
        return replace(made, donors=made.donors.roll(1)) if many and made.donors is not None else made

    patch.setattr(edits.Edited, "of", of)


def _last_token_believed(model: Any, state: Any, ids: Tensor, best: Tensor, *more: Any) -> tuple[Any, ...]:
    last = (ids >= 0).sum(1, keepdim=True) - 1
    return model, state, ids, best.scatter(1, last, ids.gather(1, last)), *more


def _refused_seen(patch: MonkeyPatch) -> None:
    def make(honest: Function) -> Function:
        def accept(model: Any, state: Any, ids: Tensor, *more: Any) -> None:
            honest(model, state, ids, *more)
            state.bias[:, -ids.shape[1] :] = 0

        return accept

    wrap(patch, score, "_accept", make)


def _every_row(patch: MonkeyPatch) -> None:
    @contextmanager
    def edited(model: LatentReasoner, by_layer: Any, *more: Any) -> Iterator[None]:
        hooks = [model.layers[layer].register_forward_hook(lambda m, a, out: 0 * out) for layer in by_layer]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    patch.setattr(forked, "edited_streams", edited)


def _fed_instead(arm: Arm, *more: Any) -> tuple[Any, ...]:
    return replace(arm, after=arm.after.replace("freeze_kv", "freeze_input")), *more


def _next_thought(actions: tuple[Action, ...], *_: Any) -> tuple[Action, ...]:
    last = len(actions) - 1
    return tuple(
        Action(Feed.REPLAY, min(k + 1, last)) if action == Action(Feed.REPLAY, k) else action
        for k, action in enumerate(actions)
    )


def _gap_kept(actions: tuple[Action, ...], *_: Any) -> tuple[Action, ...]:
    edited = [k for k, action in enumerate(actions) if action.feed is Feed.EDIT]
    inside = range(edited[0], edited[-1]) if edited else ()
    return tuple(Action(Feed.CLEAN) if k in inside and a.feed is Feed.LIVE else a for k, a in enumerate(actions))


def _places_kept(patch: MonkeyPatch) -> None:
    def make(honest: Function) -> Function:
        def init(self: grid.Grid, rows: Any, n_problems: int, num_latents: int, *more: Any, **options: Any) -> None:
            honest(self, rows, n_problems, num_latents, *more, **options)
            self.thoughts = torch.full_like(self.thoughts, num_latents)

        return init

    wrap(patch, grid.Grid, "__init__", make)


def _features_late(found: tuple[Tensor, Tensor], *_: Any) -> tuple[Tensor, Tensor]:
    resid, hidden = found
    return torch.cat([resid[:, :1], resid[:, :-1]], 1), hidden


def _edit(kind: type[Edit], call: Callable[[Any, Tensor, EditContext], Tensor]) -> Plant:
    return lambda patch: patch.setattr(kind, "__call__", call)


def _mean_of(others: Callable[[Tensor], Tensor]) -> Plant:
    def from_fed(fed: Tensor, *more: Any) -> edits.Source:
        return edits.Source(fed, others(fed))

    class Source(edits.Source):
        pass

    Source.from_fed = staticmethod(from_fed)  # type: ignore[assignment,method-assign]
    return lambda patch: patch.setattr(cells, "Source", Source)


def _halved(patch: MonkeyPatch) -> None:
    def made(**parts: Any) -> Thoughts:
        return Thoughts(**{**parts, "fed": parts["fed"].half().to(parts["fed"])})

    patch.setattr(collect, "Thoughts", made)


EDIT_MUTATIONS = (
    Mutation(
        "donors rotated where an edit has more than 64 rows",
        "engine: rows that are edited together get each other's donors",
        _rotated,
        SELF,
        ("library agrees", "scores by definition", "edited vectors by definition"),
        "of swap CT",
    ),
    Mutation(
        "a draft accepted whatever its last token",
        "engine: the clean answer's last token is believed without being compared",
        arguments(score, "_accept", _last_token_believed),
        SELF,
        ("what is never written",),
        "most for swap CT0-CT5",
    ),
    Mutation(
        "freeze_kv = freeze_input",
        "engine: what should keep its clean keys and values is fed the clean vector again",
        arguments(cells, "schedule", _fed_instead),
        SELF,
        ("library agrees", "scores by definition"),
        "freeze_kv",
    ),
    Mutation(
        "freeze_input feeds the next thought",
        "engine: frozen slots are fed the clean vector of the slot after them",
        result(cells, "schedule", _next_thought),
        SELF,
        ("library agrees", "scores by definition"),
        "freeze_input",
    ),
    Mutation(
        "noise alike in all cells",
        "edit: noise is drawn from the slot alone",
        _edit(known.Noise, lambda self, live, at: _NOISE(self, live, replace(at, keys=("",) * len(live)))),
        SELF,
        ("library agrees", "scores by definition"),
        "of noise CT",
    ),
    Mutation(
        "edited vectors rounded to bfloat16",
        "engine: what an edit gives loses 16 bits",
        result(edits.Edited, "apply", lambda found, *_: found.bfloat16().to(found)),
        SELF,
        ("library agrees", "scores by definition"),
        "",
    ),
    Mutation(
        "a residual stream edited one block early",
        "engine: the edit of block l acts on block l - 1",
        arguments(
            forked,
            "edited_streams",
            lambda model, by_layer, *more: (model, {max(at - 1, 0): x for at, x in by_layer.items()}, *more),
        ),
        SELF,
        ("library agrees", "scores by definition"),
        "after L2",
    ),
    Mutation(
        "features of CTk taken at k - 1",
        "features: each position's residual stream is that of the one before",
        together(*(result(place, "states_of", _features_late) for place in (features, records))),
        SELF,
        ("states by definition",),
        "most in the residual stream after L",
    ),
    Mutation(
        "EOT allowed, in the engine",
        "engine: ids that are never written are not left out",
        together(
            *(lambda patch, place=place: patch.setattr(place, "forbid", lambda *_: None) for place in (decode, score))
        ),
        SELF,
        ("what is never written",),
        "",
    ),
    Mutation(
        "double spaces kept",
        "adapter: questions are tokenized as they are",
        lambda patch: patch.setattr(codi, "prompt_text", str.strip),
        SELF,
        ("library agrees", "states by definition"),
        "",
        spaced=True,
    ),
    Mutation(
        "the mean includes the host",
        "edit: the mean is over all problems",
        _mean_of(lambda fed: fed.mean(0).expand_as(fed)),
        SELF,
        ("library agrees", "scores by definition", "edited vectors by definition"),
        "fed_norm of mean CT2",
    ),
    Mutation(
        "the mean is over the hosts alone",
        "edit: problems that are donors only are left out of it",
        _mean_of(
            lambda fed: torch.stack([fed[[i for i in range(3) if i != host]].mean(0) for host in range(len(fed))])
        ),
        SELF,
        ("library agrees", "scores by definition", "edited vectors by definition"),
        "fed_norm of mean CT2",
    ),
    Mutation(
        "shuffle may keep the slot",
        "edit: the donor's slot is drawn from all",
        _edit(known.Shuffle, lambda self, live, at: at.donor()),
        SELF,
        ("library agrees", "scores by definition", "edited vectors by definition"),
        "of shuffle CT2",
    ),
    Mutation(
        "self reads the live vector",
        "edit: a self-swap puts back what is there, not what was saved",
        _edit(known.Self, lambda self, live, at: live),
        SELF,
        ("wild answers",),
        "most for self CT5",
    ),
    Mutation(
        "slots between edited ones stay clean",
        "engine: what lies between two edits is not computed again",
        result(cells, "schedule", _gap_kept),
        SELF,
        ("library agrees", "answers are greedy", "scores by definition"),
        "of swap CT0,CT5",
    ),
    Mutation(
        "the end of thought keeps its place after a skip",
        "engine: positions count the slot that was left out",
        _places_kept,
        SELF,
        ("library agrees", "scores by definition"),
        "most for truncate CT4",
    ),
    Mutation(
        "a residual edit reaches every row of its step",
        "engine: the rows that run beside it are edited, too",
        _every_row,
        SELF,
        ("library agrees", "answers are greedy", "scores by definition"),
        "most for swap CT1",
    ),
    Mutation(
        "refused tokens of a draft stay visible",
        "engine: what follows a refused draft attends to it",
        _refused_seen,
        SELF,
        ("wild answers",),
        "most for swap CT",
    ),
    Mutation(
        "thoughts kept as float16",
        "engine: saved thoughts lose bits, and edits draw on them",
        _halved,
        SELF,
        ("states by definition", "edited vectors by definition"),
        "most in the thoughts",
    ),
    Mutation(
        "answers one token longer than asked",
        "engine: the limit is off by one",
        arguments(rollout, "begin", lambda *a: (*a[:6], a[6] + 1, *a[7:])),
        SELF,
        ("what is never written", "wild answers"),
        "token_ids of",
    ),
    Mutation(
        "noise alike at all slots of a cell",
        "edit: noise is drawn from the cell alone",
        _edit(known.Noise, lambda self, live, at: _NOISE(self, live, replace(at, slot=0))),
        SELF,
        ("library agrees", "scores by definition"),
        "of noise CT1-CT3",
    ),
)
