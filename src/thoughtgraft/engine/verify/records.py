"""Checks of a whole run: one is made in memory, and every column of its records is computed again, another way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.known import Baseline, Self, Swap
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import encode, think_clean_runs
from thoughtgraft.engine.run import run
from thoughtgraft.engine.states import states_of
from thoughtgraft.engine.verify import bench
from thoughtgraft.engine.verify.bench import gap
from thoughtgraft.engine.verify.expected import Answer, Measured, Oracle
from thoughtgraft.engine.verify.oracle import Clean, plainly, touch_of
from thoughtgraft.engine.verify.planned import Planned, Wanted
from thoughtgraft.engine.verify.statements import at_most
from thoughtgraft.engine.verify.trial import Trial
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.certificate import Check

CELLS = (
    "run_id unit arm method slots site_kind site_layer downstream protocol num_latents model_edit problem_id split "
    "n_steps operation donor_id donor_stratum pad seed cell"
).split()
GRADES = (
    "gold base_pred base_correct donor_pred donor_correct text token_ids stop_reason n_tokens pred valid correct "
    "changed adopted error"
).split()
SCORES = "logp_gold dlogp_gold logp_donor kl".split()
VECTORS = "fed_norm donor_cos".split()
"""Which check each of a record's columns belongs to."""

_BY_CHANCE = 3  # times as far as it did under one touch may a figure move under another
_FEW_HOSTS = 2
_RAISED = 1e4  # logits that ids which are never written get, so that nothing else could be


class Records:
    """A trial's records, and what they must say.

    Args:
        model: The model.
        trial: The problems, and the plan on them.
    """

    def __init__(self, model: LatentReasoner, trial: Trial) -> None:
        self.model, self.trial = model, trial
        self.thoughts = think_clean_runs(model, trial.problems, trial.limit)
        answers = [Answer(*pair) for pair in zip(self.thoughts.token_ids, self.thoughts.stopped, strict=True)]
        with plainly(model):
            self.exact = Oracle(model, trial.problems, answers)
            self.touched = Oracle(model, trial.problems, answers, touch_of(model))
        self.planned = self.plan(trial.plan, trial.limit)
        # Before the run: an edit of one's own that remembers its calls is another one after them.
        self.due = self.planned.cells()
        self.rows = self.run(model, trial.plan, trial.limit, thoughts=self.thoughts, keep_logits=True)

    def run(self, model: LatentReasoner, plan: Plan, limit: int, **more: Any) -> list[dict[str, Any]]:
        """A real run's records in memory, with None for what is undefined."""
        frame = run(model, self.trial.problems, plan, max_new_tokens=limit, progress=False, **more)
        return [{str(name): _value(x) for name, x in row.items()} for row in frame.to_dict("records")]

    def plan(self, plan: Plan, limit: int) -> Planned:
        """What a plan on these problems asks for."""
        return Planned(self.model, self.trial.problems, plan, [asked.pad for asked in self.exact.asked], limit)

    @property
    def all(self) -> list[Wanted]:
        """The generations that the records are of."""
        return self.due[: len(self.rows)]

    @property
    def told(self) -> list[dict[str, Any]]:
        """Their records; those that nothing asked for are left out."""
        return self.rows[: len(self.all)]

    @cached_property
    def measured(self) -> list[Measured]:
        """The numbers of every record."""
        with plainly(self.model):
            return self.exact.measure(self.all, answers_of(self.told))

    @cached_property
    def shaken(self) -> list[Measured]:
        """The same with the questions' embeddings touched."""
        with plainly(self.model):
            return self.touched.measure(self.all, answers_of(self.told))

    def rounding(self, of: Callable[[Measured], Tensor]) -> list[float]:
        """What rounding may do to a figure of each record."""
        return self.bounds([of(found) for found in self.measured], [of(found) for found in self.shaken])

    def bounds(self, exact: Sequence[Tensor], touched: Sequence[Tensor]) -> list[float]:
        """What rounding may do to each of some figures, as the bench measures it: from what a touch makes of them.

        The bench takes the most that any row moves. A single row may happen to move little under one touch, so it is
        taken to move as nine in ten of them do, and a few times as much.
        """
        changes = [gap(a, b) if a.numel() else 0.0 for a, b in zip(exact, touched, strict=True)]
        usual = sorted(changes)[len(changes) * 9 // 10] if changes else 0.0
        epsilon, sizes = torch.finfo(self.model.dtype).eps, [float(x.abs().max()) if x.numel() else 0.0 for x in exact]
        return [
            bench.ROUNDINGS * epsilon * (size + _BY_CHANCE * max(change, usual) / touch_of(self.model))
            for size, change in zip(sizes, changes, strict=True)
        ]


def cells(records: Records) -> Check:
    """Every generation of the plan once, in its order, with its key, its donor and nothing of another's."""
    rows, due = records.rows, records.due
    wrong = [] if len(rows) == len(due) else [f"{len(rows)} records, where the plan asks for {len(due)}"]
    run_id = rows[0]["run_id"] or "an id"
    wrong += _wrong(CELLS, rows, [records.planned.columns(one) | {"run_id": run_id} for one in due])
    return _count("cells and donors", wrong)


def library(records: Records) -> Check:
    """The first logits of every record."""
    told = [
        (row["first_logits"], found.first_logits) for row, found in zip(records.told, records.measured, strict=True)
    ]
    figures = [0.0 if said is None else gap(torch.from_numpy(said), due) for said, due in told]
    return _worst("library agrees", records.all, figures, records.rounding(lambda found: found.first_logits))


def answers(records: Records) -> Check:
    """How far the tokens of every answer, its end included, are from the best that were allowed."""
    bounds = records.rounding(lambda found: torch.cat([found.chosen, found.best]))
    return _worst("answers are greedy", records.all, [found.shortfall for found in records.measured], bounds)


def _worst(name: str, wanted: Sequence[Wanted], figures: Sequence[float], bounds: Sequence[float]) -> Check:
    """The largest figure in units of what rounding may do to it."""
    shares = [_share(*pair) for pair in zip(figures, bounds, strict=True)]
    worst = max(range(len(shares)), key=shares.__getitem__)
    where = f"most for {wanted[worst].arm.label}, of {len(shares)} records, where rounding may do"
    return at_most(name, shares[worst], 1, f"{where} {bounds[worst]:.2g}")


def grades(records: Records) -> Check:
    """Texts and grades of every record, from its tokens."""
    expected = []
    given = answers_of(records.told)
    for one, answer, found in zip(records.all, given, records.measured, strict=True):
        said = records.exact.graded(one, answer, records.trial.limit)
        expected.append(said if found.failed is None else _without_outcome(said))
    return _count("answers are graded", _wrong(GRADES, records.told, expected))


def _without_outcome(said: dict[str, Any]) -> dict[str, Any]:
    """What a record says whose edit failed: who was asked what, and that it failed."""
    known = ("gold", "base_pred", "base_correct", "donor_pred", "donor_correct")
    return {name: said[name] for name in known if name in said} | {"error": ...}


def scores(records: Records) -> Check:
    """Log-probabilities and divergences of every record: sums of differences of logits, each as exact as those are."""
    return _numbers("scores by definition", [SCORES], records, lambda found: found.best, lambda found: found.terms)


def vectors(records: Records) -> Check:
    """The norm of what an edit feeds first, and its cosine with the host's own, of every record."""
    one = torch.ones(1)  # what a cosine is a part of
    return _numbers("edited vectors by definition", [[column] for column in VECTORS], records, lambda found: one)


def states(records: Records) -> Check:
    """The clean thoughts that edits draw on, and the residual streams that probes read, of every problem."""
    model, exact, touched = records.model, records.exact.clean, records.touched.clean
    kinds: list[tuple[str, Callable[[Clean], Tensor], Tensor]] = [
        ("the thoughts", lambda clean: clean.fed, records.thoughts.fed),
        ("the states that they are made from", lambda clean: clean.hidden, records.thoughts.hidden),
    ]
    if model.loop.aligned:  # else features have no meaning, and are refused
        layers = tuple(range(len(model.layers)))
        streams, hidden = states_of(model, encode(model, records.trial.problems), layers)
        kinds += [("the final states among the features", lambda clean: clean.hidden, hidden)]
        kinds += [(f"the residual stream after L{i}", _stream_after(i), streams[:, :, i]) for i in layers]
    worst, detail = 0.0, ""
    for what, of, found in kinds:
        made = [of(clean) for clean in exact]
        bounds = records.bounds(made, [of(clean) for clean in touched])
        for mine, theirs, bound in zip(made, found, bounds, strict=True):
            figure = _share(gap(mine, theirs.to(mine)), bound) if mine.numel() else 0.0
            if figure > worst:
                worst, detail = figure, f"most in {what}, where rounding may do {bound:.2g}"
    return at_most("states by definition", worst, 1, detail)


def _stream_after(layer: int) -> Callable[[Clean], Tensor]:
    return lambda clean: clean.streams[:, layer]


def never(records: Records) -> Check:
    """Answers while the ids that are never written have the highest logits, cut in the middle of their numbers."""
    name, exact, named = "what is never written", records.exact, set(records.model.decoding.forbidden)
    if set(exact.forbidden) != named:
        return at_most(name, math.inf, 1, f"the adapter leaves out {sorted(named)}, not {sorted(exact.forbidden)}")
    at = next((n for a in exact.answers if (n := exact.words.number_at(a.ids)) is not None), 1)
    return _elsewhere(name, records, _speaking(records.model, exact.forbidden), records.exact.fed, at + 1)


def wild(records: Records) -> Check:
    """Long answers that hang on every bit of the state, of thoughts that were changed after they had been saved."""
    generator = torch.Generator().manual_seed(0)
    signs = 1 - 2 * torch.randint(2, (records.model.d_model,), generator=generator)
    model = _speaking(records.model, records.exact.forbidden, signs.to(records.model.device, records.model.dtype))
    return _elsewhere("wild answers", records, model, records.exact.fed.roll(1, -1), records.trial.limit)


def _elsewhere(name: str, records: Records, model: LatentReasoner, fed: Tensor, limit: int) -> Check:
    """The answers of a model that speaks otherwise, where edits draw on `fed`: texts and tokens."""
    limit, slots = min(limit, records.trial.limit), tuple(range(model.num_latents))
    arms = [Arm(Baseline()), *([Arm(Self(), slots[-1:])] if slots else [])]
    arms += [Arm(Swap(), some) for some in dict.fromkeys((slots[:1], slots)) if some]
    donors = min(records.trial.plan.n_donors, len(records.trial.problems) - 1)
    plan = Plan(tuple(arms), n_donors=donors, hosts=_FEW_HOSTS)
    saved = think_clean_runs(model, records.trial.problems, limit)
    rows = records.run(model, plan, limit, thoughts=replace(saved, fed=fed.to(saved.fed)))
    wanted = records.plan(plan, limit).cells()[: len(rows)]
    given = answers_of(rows)[: len(wanted)]
    with plainly(model):
        found = [oracle.on(model, fed).measure(wanted, given) for oracle in (records.exact, records.touched)]
    said = [records.exact.graded(one, answer, limit) for one, answer in zip(wanted, given, strict=True)]
    if wrong := _wrong(("text", "token_ids", "stop_reason", "n_tokens"), rows, said):
        return at_most(name, math.inf, 1, wrong[0])
    exact, touched = ([torch.cat([one.chosen, one.best]) for one in some] for some in found)
    return _worst(name, wanted, [one.shortfall for one in found[0]], records.bounds(exact, touched))


def _speaking(model: LatentReasoner, raised: Sequence[int], signs: Tensor | None = None) -> LatentReasoner:
    """The same model, but some ids have higher logits than all others, and, with `signs` [d], the others are mixed."""

    class Speaking(type(model)):  # type: ignore[misc]
        def unembed(self, hidden: Tensor) -> Tensor:
            logits: Tensor = super().unembed(hidden if signs is None else hidden * signs).clone()
            logits[..., list(raised)] += _RAISED
            return logits

    other = copy(model)
    other.__class__ = Speaking
    return other


CHECKS = (library, cells, answers, grades, scores, vectors, states, never, wild)
"""In the order in which they run."""


def answers_of(rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """The answers that records hold."""
    return [Answer(row["token_ids"] or (), row["stop_reason"] == "eos") for row in rows]


def _numbers(
    name: str,
    kinds: Sequence[Sequence[str]],
    records: Records,
    more: Callable[[Measured], Tensor] = lambda found: torch.tensor([]),
    terms: Callable[[Measured], int] = lambda found: 1,
) -> Check:
    """The largest difference in some columns, in units of what rounding may do to the columns of its kind.

    `more` are figures that they are made from; rounding may do its worst to each of the `terms` that one sums.
    """
    worst, detail = 0.0, ""
    for columns in kinds:

        def of(found: Measured, columns: Sequence[str] = columns) -> Tensor:
            known = [value for column in columns if (value := found.columns[column]) is not None]
            return torch.cat([torch.tensor(known, dtype=torch.float64), more(found)])

        bounds = records.rounding(of)
        for one, row, found, bound in zip(records.all, records.told, records.measured, bounds, strict=True):
            for column in columns:
                said, due = row[column], None if found.failed else found.columns[column]
                if said == due:
                    continue
                figure = math.inf if said is None or due is None else _share(abs(said - due), terms(found) * bound)
                if not figure <= worst:
                    told = ["undefined" if x is None else f"{x:.6g}" for x in (said, due)]
                    worst, detail = figure, f"{column} of {one.arm.label} is {told[0]}, by definition {told[1]}"
    return at_most(name, worst, 1, detail)


def _share(figure: float, bound: float) -> float:
    """A difference in units of what is allowed; where nothing is, any is too much."""
    return figure / bound if bound else math.inf if figure else 0.0


def _wrong(names: Sequence[str], rows: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> list[str]:
    """Values that are not the expected ones, in words; a name that nothing is expected of must be undefined."""
    found = []
    for row, wanted in zip(rows, expected, strict=False):
        for name in names:
            said, due = row[name], wanted.get(name)
            if said != due if due is not ... else said is None:
                found.append(
                    f"{name} of {row['arm']} on problem {row['problem_id']} is {said!r}, by definition {due!r}"
                )
    return found


def _count(name: str, wrong: Sequence[str]) -> Check:
    return at_most(name, float(len(wrong)), 0, wrong[0] if wrong else "")


def _value(value: Any) -> Any:
    """A cell of a frame as Python has it; None where it is undefined."""
    if isinstance(value, np.ndarray):
        return tuple(int(x) for x in value) if value.dtype.kind in "iu" else value
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
