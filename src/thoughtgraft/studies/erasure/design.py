"""The erasure study: what it can be asked, what is fitted on which problems, which edits are made on which."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.known import Project, Projection
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.site import Resid, slots_label
from thoughtgraft.errors import PlanError
from thoughtgraft.records.spec import refuse_another_model, without_home
from thoughtgraft.studies import checks
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
from thoughtgraft.studies.options import Base, Flags, LoraAlpha, PromptSuffix, RunOptions, Tokenizer
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.study import Design, Door, Said, Study, open_model
from thoughtgraft.tasks.problem import ProblemSet

if TYPE_CHECKING:
    import pandas as pd

    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.records.states import States
    from thoughtgraft.report.render import ReportPaths
    from thoughtgraft.studies.run import Run

DRAWS = 20
"""Random draws. Fewer than 19 cannot reach 5% as a rank among them."""

MakeEdit = Callable[[int, tuple[int, ...], int | None], Project]
"""`make_edit(layer, slots, draw)`: the edit that erases the label (draw None), or the numbered random one."""


class ErasureOptions(RunOptions):
    """What the study can be asked."""

    run: Annotated[
        Path,
        BeforeValidator(checks.run),
        Flags(),
        Field(description="The folder of a `run operations`: its features, problems and model."),
    ]
    target: Annotated[str, Field(description="Label column of that run to erase, a class for each problem.")] = (
        "operation"
    )
    layers: Annotated[
        str | None,
        BeforeValidator(checks.LAYERS),
        Field(description="all, early,middle,late or numbers, of the run's layers; default: all it holds."),
    ] = None
    slots: Annotated[
        str | None,
        BeforeValidator(checks.SLOTS),
        Field(description="each, or numbers such as 0,2; also edited together."),
    ] = None
    draws: Annotated[int, Field(ge=19, description="Random erasures; fewer than 19 can never reach 5%.")] = DRAWS
    hosts: Annotated[int | None, Field(ge=2, description="Only so many of the held-out problems are edited.")] = None
    model: Annotated[
        str | None,
        BeforeValidator(checks.model),
        Flags("--model", "-m"),
        Field(description="The run's model, where it does not lie at the recorded place."),
    ] = None
    base: Base = None
    tokenizer: Tokenizer = None
    lora_alpha: LoraAlpha = None
    prompt_suffix: PromptSuffix = None


class Erasure(Study[ErasureOptions, "Run", "pd.DataFrame"]):
    """Erase what a label can be read by (LEACE) from the residual stream: do answers change more than by chance?

    Fitted on half of the problems, done on the other half, beside random directions of the same rank and size.

    Example: thoughtgraft run erasure runs/operations --out runs/erasure
    """

    name = "erasure"
    Options = ErasureOptions
    ruled = False
    where = "an erasure study is analysed beside the features that it was fitted on"

    def draw(self, options: ErasureOptions, door: Door) -> Run:
        """The run whose features are erased."""
        before = load_run(options.run)
        spec, known = before.spec, before.features().labels
        if options.target not in known:
            raise PlanError(
                f"{options.run} has no label {options.target!r}", expected=", ".join(map(str, known.columns))
            )
        slot_sets(options.slots, spec.num_latents)
        if door.model is None and (edit := (spec.model_identity or {}).get("edit")):
            got, fix = f"a loaded model, edited: {edit['name']}", "run operations on a model as it was loaded"
            raise PlanError(f"no file holds the model of {options.run}", got=got, fix=fix)
        return before

    def model(self, options: ErasureOptions, drawn: Run, door: Door) -> LatentReasoner:
        """The features' own model, loaded as it was for them."""
        if door.model is not None:
            return door.model
        spec = drawn.spec
        made = spec.model_identity or {}
        known: dict[str, Any] = {"protocol": spec.protocol, "dtype": spec.dtype, "num_latents": spec.num_latents}
        if options.model is None:
            known["model"] = spec.model
        if options.lora_alpha is None:
            known["lora_alpha"] = _number(made.get("lora_alpha"))
        if options.prompt_suffix is None:
            known["prompt_suffix"] = (made.get("prompt") or {}).get("suffix")
        return open_model(options, door.said, **known)

    def design(self, model: LatentReasoner, options: ErasureOptions, drawn: Run) -> Design:
        """The erasures of the label and their random counterparts, fitted, and the edits of the other problems."""
        job = prepare(drawn, model, options)
        return Design(job.problems, job.design.plan, job.facts(), lines=job.lines(), kept=job)

    def finish(self, model: LatentReasoner, design: Design, run: Run) -> None:
        """Make the study's one table, for which the label is read from features of the run before."""
        from thoughtgraft.records.store import RunStore
        from thoughtgraft.studies.erasure.report import TABLE_FILE

        RunStore.open(run.path).write_table(TABLE_FILE, design.kept.table(run.records()))

    def analyse(self, run: Run) -> pd.DataFrame:
        """The table that `finish` made."""
        from thoughtgraft.records.shards import read_frame
        from thoughtgraft.studies.erasure.report import TABLE_FILE

        return read_frame(run.path / TABLE_FILE)

    def report(self, run: Run, analysis: pd.DataFrame, *, force: bool = False) -> ReportPaths:
        """The page with its tables."""
        from thoughtgraft.studies.erasure.report import write_erasure_report

        return write_erasure_report(run, analysis, force=force)

    def tell(self, run: Run, analysis: pd.DataFrame, said: Said) -> None:
        """The main columns, and what was found in a sentence for each verdict."""
        from thoughtgraft.studies.erasure.report import sentences, summary

        target = str(run.spec.plan["target"])
        said.show(summary(analysis, target))
        for line in sentences(analysis, target):
            said.line(line)


def _number(alpha: str | None) -> float | None:
    """An alpha that holds for every module, as a run keeps it; others are in the file that says them."""
    try:
        return None if alpha is None else float(alpha)
    except ValueError:
        return None


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
    layers: Sequence[int], sets: Sequence[tuple[int, ...]], make_edit: MakeEdit, *, draws: int = DRAWS, seed: int = 0
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


def prepare(run: Run, model: LatentReasoner, options: ErasureOptions) -> ErasureJob:
    """Fit the erasures of a label and their random counterparts, and plan the edits.

    Raises:
        ModelError: The protocol's positions are not those of slots.
        PlanError: The run has no such layer or slot.
        AnalysisError: The label cannot be erased.
        RunError: The run holds no features, or the model is not the run's.
    """
    from thoughtgraft.models.reasoner import require_positions

    features = run.features()
    spec = run.spec
    fix = "give the run's own model with --model, or run operations with this one"
    refuse_another_model(spec, model.identity, "this model did not make those features", fix)
    require_positions(model)
    depth = len(model.layers)
    chosen = features.layers if options.layers is None else choose_layers(options.layers, depth)
    if missing := [layer for layer in chosen if layer not in features.layers]:
        raise PlanError(f"{run.path} has no features of layer {missing[0]}", expected=list(features.layers))
    sets = slot_sets(options.slots, model.num_latents)
    labels = [str(label) for label in features.labels[options.target]]
    by_id = {problem.id: problem for problem in run.problem_set()}
    every = [by_id[name] for name in features.ids]
    fit_rows, held_rows = halves([problem.question for problem in every], labels, options.seed)
    held_rows = _spread(held_rows, labels)
    fits, randoms = {}, {}
    for layer in chosen:
        for slot in sorted({k for some in sets for k in some}):
            fit = fit_erasure(features.matrix(layer, slots_label((slot,)))[fit_rows], [labels[i] for i in fit_rows])
            fits[layer, slot] = fit
            randoms[layer, slot] = fit.random(options.draws, (options.seed, layer, slot))

    def make_edit(layer: int, some: tuple[int, ...], draw: int | None) -> Project:
        return Project({k: _on_torch(fits[layer, k].eraser if draw is None else randoms[layer, k][draw]) for k in some})

    return ErasureJob(
        options.target,
        ProblemSet(tuple(every[i] for i in held_rows[: options.hosts]), f"{spec.problems}, held out"),
        features,
        fit_rows,
        held_rows,
        fits,
        randoms,
        chosen,
        depth,
        erasure_plan(chosen, sets, make_edit, draws=options.draws, seed=options.seed),
        options.seed,
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
