"""The erasure study: what it can be asked, and how it is drawn, made and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from thoughtgraft.errors import PlanError
from thoughtgraft.studies import checks
from thoughtgraft.studies.options import Base, Flags, LoraAlpha, PromptSuffix, RunOptions, Tokenizer
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.study import Design, Door, Said, Study, open_model

if TYPE_CHECKING:
    import pandas as pd

    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.report.render import ReportPaths
    from thoughtgraft.studies.run import Run

DRAWS = 20
"""Random draws. Fewer than 19 cannot reach 5% as a rank among them."""


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
        from thoughtgraft.studies.erasure.measure import slot_sets

        before = load_run(options.run)
        spec, known = before.spec, before.states().labels
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
        from thoughtgraft.studies.erasure.measure import prepare

        names = ("layers", "slots", "draws", "hosts", "seed")
        job = prepare(drawn, model, options.target, **{name: getattr(options, name) for name in names})
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
