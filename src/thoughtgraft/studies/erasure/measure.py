"""The erasure study's fits and edits: what is fitted on which problems, which edits are made on which."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.known import Project, Projection
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.site import Resid, slots_label
from thoughtgraft.errors import PlanError
from thoughtgraft.records.spec import refuse_another_model, without_home
from thoughtgraft.studies.erasure.analysis import (
    Eraser,
    Fit,
    Reading,
    erasure_table,
    fit_erasure,
    mean_reading,
    read_label,
)
from thoughtgraft.studies.erasure.report import design_lines
from thoughtgraft.studies.operations.design import choose_layers
from thoughtgraft.tasks.problem import ProblemSet

if TYPE_CHECKING:
    import pandas as pd

    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.records.states import States
    from thoughtgraft.studies.run import Run

MakeEdit = Callable[[int, tuple[int, ...], int | None], Project]
"""`make_edit(layer, slots, draw)`: the edit that erases the label (draw None), or the numbered random one."""


@dataclass(frozen=True)
class ErasurePlan:
    """The plan, the sets of slots that are edited, and which draw each edit is (None: it erases the label)."""

    plan: Plan
    slot_sets: tuple[tuple[int, ...], ...]
    draws: dict[str, int | None]


def slot_sets(asked: str | None, num_latents: int) -> tuple[tuple[int, ...], ...]:
    """The sets of slots to edit: each slot asked for (`0,2`; None or `each`: every one), then all of those together.

    Raises:
        PlanError: There is no such slot.
    """
    names = [str(k) for k in range(num_latents)] if asked in (None, "each") else str(asked).replace(" ", "").split(",")
    for name in names:
        if (slot := typed_number(name)) is None or slot >= num_latents:
            raise PlanError(
                "the model has no such slot", got=shown(name), expected=f"each, or numbers in 0..{num_latents - 1}"
            )
    slots = sorted({int(name) for name in names})
    return (*((k,) for k in slots), *([tuple(slots)] if len(slots) > 1 else []))


def erasure_plan(
    layers: Sequence[int], sets: Sequence[tuple[int, ...]], make_edit: MakeEdit, *, draws: int, seed: int
) -> ErasurePlan:
    """Baseline, and at each layer and set of slots the erasure and so many random edits of its rank and size."""
    arms = [Arm("baseline")]
    names = {("erase" if draw is None else f"random {draw}"): draw for draw in (None, *range(draws))}
    for layer in layers:
        for slots in sets:
            for name, draw in names.items():
                arms.append(Arm(replace(make_edit(layer, slots, draw), name=name), slots, site=Resid(layer)))
    return ErasurePlan(Plan(tuple(arms), seed=seed), tuple(sets), names)


def halves(texts: Sequence[str], labels: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Row numbers of the problems to fit on and of those to edit: half of each class, by a seeded hash of the text.

    Problems with one text are on one side, so that nothing is edited that was fitted on.
    """
    fit: list[int] = []
    for label in sorted(set(labels)):
        rows = [i for i, name in enumerate(labels) if name == label]
        order = sorted({texts[i] for i in rows}, key=lambda text: hashlib.sha256(f"{seed} {text}".encode()).digest())
        chosen = set(order[: (len(order) + 1) // 2])
        fit += [i for i in rows if texts[i] in chosen]
    taken = {texts[i] for i in fit}
    return sorted(fit), [i for i, text in enumerate(texts) if text not in taken]


@dataclass(frozen=True)
class ErasureJob:
    """What `prepare` made.

    Attributes:
        target: The label.
        problems: The held-out problems, which are edited.
        features: Of the run's problems.
        fit_rows: Rows of `features` that the erasures are fitted on.
        held_rows: Rows of the others; those that are edited come first. The label is read on all of them.
        fits: By layer and slot.
        randoms: The random erasers of each.
        layers: Those that are edited.
        depth: Layers of the model.
        design: The plan.
        seed: Of the split, the draws and the probes' folds.
    """

    target: str
    problems: ProblemSet
    features: States
    fit_rows: list[int]
    held_rows: list[int]
    fits: dict[tuple[int, int], Fit]
    randoms: dict[tuple[int, int], list[Eraser]]
    layers: tuple[int, ...]
    depth: int
    design: ErasurePlan
    seed: int

    @cached_property
    def labels(self) -> list[str]:
        """Of every problem of the run."""
        return [str(label) for label in self.features.labels[self.target]]

    def facts(self) -> dict[str, Any]:
        """What run.json says of it beside the arms."""
        first = next(iter(self.fits.values()))
        return {
            "target": self.target,
            "source": without_home(self.features.source),
            "n_fit": len(self.fit_rows),
            "layers": list(self.layers),
            "rank": first.eraser.rank,
            "draws": len(next(iter(self.randoms.values()))),
        }

    def lines(self) -> list[str]:
        """The job in words."""
        return design_lines(self.design.plan.describe() | self.facts(), len(self.problems))

    def table(self, records: pd.DataFrame) -> pd.DataFrame:
        """The study's one table."""
        slots = sorted({k for chosen in self.design.slot_sets for k in chosen})
        single = {(layer, k): self._reading(layer, k) for layer in self.layers for k in slots}
        readings = {
            (layer, chosen): mean_reading([single[layer, k] for k in chosen])
            for layer in self.layers
            for chosen in self.design.slot_sets
        }
        return erasure_table(
            records, self.design.draws, readings, depth=self.depth, num_latents=len(self.features.positions) - 1
        )

    def _reading(self, layer: int, slot: int) -> Reading:
        x = self.features.matrix(layer, slots_label((slot,)))[self.held_rows].astype(np.float64)
        labels = [self.labels[row] for row in self.held_rows]
        eraser, randoms = self.fits[layer, slot].eraser, self.randoms[layer, slot]
        return Reading(
            before=read_label(x, labels, self.seed),
            after=read_label(eraser(x), labels, self.seed),
            random=read_label(randoms[0](x), labels, self.seed),
            chance=1 / len(set(labels)),
            change=eraser.change(x),
            random_change=float(np.mean([one.change(x) for one in randoms])),
        )


def prepare(
    run: Run,
    model: LatentReasoner,
    target: str,
    *,
    layers: str | None,
    slots: str | None,
    draws: int,
    hosts: int | None,
    seed: int,
) -> ErasureJob:
    """Fit the erasures of a label and their random counterparts, and plan the edits.

    Args:
        run: The run whose features are erased.
        model: Its model.
        target: The label.
        layers: Those that are edited, as `choose_layers` takes them; None: all that the run holds.
        slots: As `slot_sets` takes them.
        draws: Random erasures of each.
        hosts: Only so many of the held-out problems are edited; None: all.
        seed: Of the split, the draws and the probes' folds.

    Raises:
        ModelError: The protocol's positions are not those of slots.
        PlanError: The run has no such layer or slot.
        AnalysisError: The label cannot be erased.
        RunError: The run holds no features, or the model is not the run's.
    """
    from thoughtgraft.models.reasoner import require_positions

    features = run.states()
    spec = run.spec
    fix = "give the run's own model with --model, or run operations with this one"
    refuse_another_model(spec, model.identity, "this model did not make those features", fix)
    require_positions(model)
    depth = len(model.layers)
    chosen = features.layers if layers is None else choose_layers(layers, depth)
    if missing := [layer for layer in chosen if layer not in features.layers]:
        raise PlanError(f"{run.path} has no features of layer {missing[0]}", expected=list(features.layers))
    sets = slot_sets(slots, model.num_latents)
    labels = [str(label) for label in features.labels[target]]
    by_id = {problem.id: problem for problem in run.problem_set()}
    every = [by_id[name] for name in features.ids]
    fit_rows, held_rows = halves([problem.question for problem in every], labels, seed)
    held_rows = _spread(held_rows, labels)
    fits, randoms = {}, {}
    for layer in chosen:
        for slot in sorted({k for some in sets for k in some}):
            fit = fit_erasure(features.matrix(layer, slots_label((slot,)))[fit_rows], [labels[i] for i in fit_rows])
            fits[layer, slot] = fit
            randoms[layer, slot] = fit.random(draws, (seed, layer, slot))

    def make_edit(layer: int, some: tuple[int, ...], draw: int | None) -> Project:
        return Project({k: _on_torch(fits[layer, k].eraser if draw is None else randoms[layer, k][draw]) for k in some})

    return ErasureJob(
        target,
        ProblemSet(tuple(every[i] for i in held_rows[:hosts]), f"{spec.problems}, held out"),
        features,
        fit_rows,
        held_rows,
        fits,
        randoms,
        chosen,
        depth,
        erasure_plan(chosen, sets, make_edit, draws=draws, seed=seed),
        seed,
    )


def _spread(rows: list[int], labels: list[str]) -> list[int]:
    """The rows with their classes in turn, so that the first so many are balanced."""
    seen: dict[str, int] = {}
    places = []
    for row in rows:
        places.append((seen.setdefault(labels[row], 0), row))
        seen[labels[row]] += 1
    return [row for _, row in sorted(places)]


def _on_torch(eraser: Eraser) -> Projection:
    import torch

    return Projection(torch.from_numpy(eraser.u), torch.from_numpy(eraser.v), torch.from_numpy(eraser.mean))
