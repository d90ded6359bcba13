"""Mistakes between what the model gave and what records say: scores, grades, cells; a trial must see each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pytest import MonkeyPatch
from tests.mutations.plant import SELF, Function, Mutation, Plant, arguments, result, together, wrap
from torch import Tensor

from thoughtgraft.edits import plan
from thoughtgraft.engine import answer as drafts
from thoughtgraft.engine import cells, score
from thoughtgraft.engine import cells as grading
from thoughtgraft.engine import rows as grid
from thoughtgraft.models.codi import CodiReasoner
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.tasks.grading import Number, Official
from thoughtgraft.thoughts import Thoughts


def _exchanged(patch: MonkeyPatch) -> None:
    def kl(model: Any, state: Any, hidden: Tensor, some: Any, clean_place: Tensor) -> Tensor:
        at = torch.tensor([draft.number_at or 0 for draft in some])
        logs = model.unembed(hidden[torch.arange(len(some)), at]).log_softmax(-1)
        found = (logs.exp() * (logs - logs[clean_place])).sum(-1)
        return found.masked_fill(torch.tensor([draft.number_at is None for draft in some]), torch.nan)

    patch.setattr(score, "_kl", kl)


def _late(model: Any, state: Any, hidden: Tensor, some: Any, *more: Any) -> tuple[Any, ...]:
    later = [replace(d, number_at=min(d.number_at + 1, len(d.ids) - 1)) if d.number_at is not None else d for d in some]
    return model, state, hidden, later, *more


_no_stop = together(*(result(place, "answer_tail", lambda tail, *_: tail[:-1]) for place in (drafts, cells)))


def _own_gold(draft: drafts.Draft, *_: Any) -> drafts.Draft:
    return draft if draft.number_at is None else replace(draft, gold=draft.ids[draft.number_at :])


def _own_number(model: Any, cell: Any, at: int, thoughts: Thoughts, tail: Function) -> tuple[Any, ...]:
    return model, cell, at, thoughts, lambda host, number: tail(host, thoughts.pred[host] or number)


def _graded(change: Callable[[dict[str, Any]], None]) -> Plant:
    def all_of(found: list[dict[str, Any]], *_: Any) -> list[dict[str, Any]]:
        for record in found:
            if record.get("error") is None:
                change(record)
        return found

    return result(grading.Recorder, "rows", all_of)


def _gold_adopted(record: dict[str, Any]) -> None:
    theirs = record.get("donor_pred")
    if theirs is not None and theirs == record["gold"] and theirs != record["base_pred"]:
        record["adopted"] = record["pred"] == theirs


def _own_adopted(record: dict[str, Any]) -> None:
    if (theirs := record.get("donor_pred")) is not None and theirs == record["base_pred"]:
        record["adopted"] = record["pred"] == theirs


def _not_gold(record: dict[str, Any]) -> None:
    record["changed"] = not record["correct"]


def _as_floats(patch: MonkeyPatch) -> None:
    patch.setattr(Number, "same", Official.same)


def _special_kept(self: LatentReasoner, ids: Any) -> str:
    return str(self.tokenizer.decode([i for i in ids if i < len(self.tokenizer)]))


def _with_itself(found: dict[int, list[int]], *_: Any) -> dict[int, list[int]]:
    return {host: [host, *donors[:-1]] for host, donors in found.items()}


def _strata_ignored(patch: MonkeyPatch) -> None:
    def make(honest: Function) -> Function:
        return lambda problems, n, seed, stratum: honest(problems, n, seed, "random")

    wrap(patch, plan, "draw_donors", make)


def _frozen_with_others(patch: MonkeyPatch) -> None:
    def make(honest: Function) -> Function:
        def some(self: plan.Plan, *args: Any) -> list[plan.Cell]:
            others = honest(replace(self, seed=self.seed + 1), *args)
            pairs = zip(honest(self, *args), others, strict=True)
            return [b if a.arm.after != "recompute" else a for a, b in pairs]

        return some

    wrap(patch, plan.Plan, "cells", make)


RECORD_MUTATIONS = (
    Mutation(
        "KL exchanged",
        "scores: KL(edited || clean)",
        _exchanged,
        SELF,
        ("scores by definition",),
        "kl of",
    ),
    Mutation(
        "KL one token late",
        "scores: the divergence after the number's first token",
        arguments(score, "_kl", _late),
        SELF,
        ("scores by definition",),
        "kl of",
    ),
    Mutation(
        "log-probability without the stop",
        "scores: the end of the answer is left out",
        _no_stop,
        SELF,
        ("scores by definition",),
        "logp_gold of",
    ),
    Mutation(
        "logp_gold of the model's own answer",
        "scores: what the model said unedited takes the gold answer's place",
        result(cells, "make_draft", _own_gold),
        SELF,
        ("scores by definition",),
        "logp_gold of",
    ),
    Mutation(
        "dlogp against another problem",
        "scores: the clean run beside a row is the next problem's",
        result(grid.Grid, "clean_place", lambda places, self: places.roll(1)),
        SELF,
        ("scores by definition",),
        "",
    ),
    Mutation(
        "adoption eligible where the donor's answer is gold",
        "grades: being right counts as taking the donor's answer",
        _graded(_gold_adopted),
        SELF,
        ("answers are graded",),
        "adopted of",
    ),
    Mutation(
        "a host as its own donor",
        "cells: the host is drawn with the others",
        result(plan, "draw_donors", _with_itself),
        SELF,
        ("cells and donors",),
        "donor_id of swap CT1 on problem arithmetic_test_0 is 'arithmetic_test_0'",
    ),
    Mutation(
        "EOT allowed, by the adapter",
        "adapter: it names no id that is never written",
        lambda patch: patch.setattr(CodiReasoner, "forbidden_ids", ()),
        SELF,
        ("what is never written",),
        "the adapter leaves out [], not [126]",
    ),
    Mutation(
        "answers compared as floats",
        "grades: 2 equals 2.000000000000000002",
        _as_floats,
        SELF,
        ("answers are graded",),
        "base_correct of",
    ),
    Mutation(
        "the donor's number scored as the host's",
        "scores: logp_donor is of the host's own clean number",
        arguments(cells, "_row", _own_number),
        SELF,
        ("scores by definition",),
        "logp_donor of",
    ),
    Mutation(
        "changed means not gold",
        "grades: a wrong answer that stays the same counts as changed",
        _graded(_not_gold),
        SELF,
        ("answers are graded",),
        "changed of baseline",
    ),
    Mutation(
        "text keeps special tokens",
        "adapter: answers are decoded with them",
        lambda patch: patch.setattr(LatentReasoner, "decode", _special_kept),
        SELF,
        ("wild answers",),
        "text of",
    ),
    Mutation(
        "noise cells known without their seed",
        "cells: two seeds' noise has one key",
        arguments(
            plan._CellMaker,
            "cell",
            lambda self, arm, *more: (replace(self, seed=0) if arm.change.name == "noise" else self, arm, *more),
        ),
        SELF,
        ("cells and donors",),
        "cell of noise CT2",
    ),
    Mutation(
        "frozen arms have other donors",
        "cells: arms that are compared are not of the same pairs",
        _frozen_with_others,
        SELF,
        ("cells and donors",),
        "donor_id of swap CT1 freeze_input",
    ),
    Mutation(
        "a stratum's donors drawn from all",
        "cells: donors of the same operation are any",
        _strata_ignored,
        SELF,
        ("cells and donors",),
        "records, where the plan asks for",
    ),
    Mutation(
        "adoption eligible where the donor says what the host says",
        "grades: an answer that stays the same counts as taken over",
        _graded(_own_adopted),
        SELF,
        ("answers are graded",),
        "adopted of",
    ),
)
