"""The operations study: what it can be asked, which problems, layers and features it takes, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.errors import PlanError
from thoughtgraft.studies import checks
from thoughtgraft.studies.options import ModelOptions
from thoughtgraft.studies.study import Design, Door, Said, Study

if TYPE_CHECKING:
    from thoughtgraft.engine.features import Keep
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.probing.stratum import Settings
    from thoughtgraft.report.render import ReportPaths
    from thoughtgraft.studies.operations.figures import OperationsData
    from thoughtgraft.studies.run import Run
    from thoughtgraft.tasks.labels import ClassSample

MODES = {"prototype": 20, "full": 200}
"""Problems of each class. A class that holds fewer gives all it has. With one seed, the prototype's problems are
among the full run's: it is a rehearsal, and claims nothing."""

LAYER_NAMES = {"early": 4 / 16, "middle": 8 / 16, "late": 14 / 16}
"""Where the named layers lie, as shares of the depth: the origin's 4, 8 and 14 of 16."""


def choose_layers(names: str, depth: int) -> tuple[int, ...]:
    """The layers that `--layers` asks for, in ascending order, each once.

    Args:
        names: `all`, or a list such as `early,late` or `4,8,14`; layer l is the stream after block l, 0-based. Names
            stand for their share of the depth, rounded down: of 16 layers 4, 8, 14; of 12 layers 3, 6, 10.
        depth: Blocks of the model.

    Raises:
        PlanError: A name is unknown, or the model has no such layer.
    """
    if names.strip() == "all":
        return tuple(range(depth))
    chosen = set()
    for name in (part.strip() for part in names.split(",")):
        if name in LAYER_NAMES:
            chosen.add(int(LAYER_NAMES[name] * depth))
        elif (layer := typed_number(name)) is not None and layer < depth:
            chosen.add(layer)
        else:
            raise PlanError(
                "the model has no such layer",
                got=shown(name),
                expected=f"all, {', '.join(LAYER_NAMES)}, or numbers in 0..{depth - 1}",
                fix="--layers early,middle,late",
            )
    return tuple(sorted(chosen))


def named_layers(layers: Sequence[int], depth: int) -> dict[str, int]:
    """The names of those layers that have one at this depth."""
    return {name: int(share * depth) for name, share in LAYER_NAMES.items() if int(share * depth) in layers}


ANALYSIS_ONLY = "analysis_only"
"""The mode that makes no features and reads those that are there."""


class OperationsOptions(ModelOptions):
    """What the study can be asked."""

    mode: Annotated[
        str,
        BeforeValidator(checks.one_of("mode", tuple(MODES), ANALYSIS_ONLY)),
        Field(
            description="prototype (20 problems of each class), full (200), or analysis_only (of --data; needs no "
            "model)."
        ),
    ] = "prototype"
    data: Annotated[
        Path | None,
        BeforeValidator(checks.existing_place),
        Field(description="analysis_only: a run's folder, or a .npz or .safetensors file; default: the --out folder."),
    ] = None
    labels: Annotated[
        Path | None,
        BeforeValidator(checks.existing_file),
        Field(description="analysis_only: labels of --data, a .csv, .parquet or .json with a column id."),
    ] = None
    target: Annotated[
        tuple[str, ...],
        BeforeValidator(checks.texts),
        Field(description="Label column to read; repeat for more. The first is the primary one. Default: operation."),
    ] = ()
    probes: Annotated[
        str,
        BeforeValidator(checks.each_of("probe", checks.PROBES)),
        Field(description="Probes, comma-separated: linear (makes the map), logistic, forest, mlp."),
    ] = ",".join(checks.PROBES)
    jobs: Annotated[
        int | None, Field(ge=1, description="Cells analysed at once; default: as many as there are processors.")
    ] = None
    layers: Annotated[
        str,
        BeforeValidator(checks.LAYERS),
        Field(description="early,middle,late (4, 8, 14 of 16 layers, scaled), all, or numbers such as 4,8,14."),
    ] = "early,middle,late"
    draw: Annotated[
        str,
        BeforeValidator(checks.one_of("draw", "tasks.labels:DRAWS")),
        Field(
            description="test or train (that split's problems), all, cot-exploration (the origin's own draw), or auto: "
            "test where the problems mix splits."
        ),
    ] = "auto"
    rule: Annotated[
        str | None,
        BeforeValidator(checks.RULE),
        Field(description="Labels by annotations or cot-exploration; default: what suits the draw."),
    ] = None
    per_class: Annotated[int | None, Field(ge=2, description="Problems of each class, instead of the mode's.")] = None
    untrained: Annotated[bool, Field(description="Also extract an untrained model's features, as a control.")] = True
    feature_dtype: Annotated[
        str | None,
        BeforeValidator(checks.one_of("type to keep features in", checks.FEATURE_DTYPES)),
        Field(description="Keep features as bfloat16, float16 or float32; default: as the model computes."),
    ] = None
    analyze: Annotated[
        bool,
        Field(description="Analyse and report at once; else later, or elsewhere, with --mode analysis_only."),
    ] = True

    @property
    def targets(self) -> tuple[str, ...]:
        """The labels to read, the primary one first."""
        return self.target or ("operation",)

    def settings(self, seed: int, progress: bool = True) -> Settings:
        """How probes are fitted."""
        from thoughtgraft.probing.stratum import Settings

        probes = tuple(name.strip() for name in self.probes.split(","))
        return Settings(seed=seed, probes=probes, n_jobs=self.jobs, progress=progress)


class Operations(Study[OperationsOptions, "ClassSample", "OperationsData"]):
    """Ask whether a problem's arithmetic can be read from its thoughts, at each layer and slot, beside every control.

    Example: thoughtgraft run operations --mode full --model zen-E/CODI-gpt2 --problems gsm8k:all --out runs/operations
    """

    name = "operations"
    seeds_its_analysis = True
    Options = OperationsOptions
    ruled = False

    def check(self, options: OperationsOptions, door: Door) -> None:
        """Features need a folder of their own; an analysis of what is there needs what it reads."""
        from thoughtgraft.records.spec import SPEC_FILE

        if options.mode != ANALYSIS_ONLY:
            super().check(options, door)
            return
        checks.existing_place(options.data or door.out)
        checks.writable_folder(door.out)
        if options.data and (door.out / SPEC_FILE).is_file() and not door.out.samefile(options.data):
            raise PlanError(
                f"{door.out} is a run with an analysis of its own, which this one would replace",
                got=f"--data {options.data}",
                fix="use --out another folder",
            )

    def draw(self, options: OperationsOptions, door: Door) -> ClassSample:
        """So many problems of each class."""
        from thoughtgraft.tasks.labels import draw_classes, label_table
        from thoughtgraft.tasks.load import load_problems

        if options.data is not None or options.labels is not None:
            fix = f"--mode {ANALYSIS_ONLY}, or leave them out"
            raise PlanError("--data and --labels are for existing features", fix=fix)
        n, rule = options.per_class or MODES[options.mode], options.rule
        whole = load_problems(door.asked(options.problems))
        sample = draw_classes(whole, n, seed=options.seed, draw=options.draw, rule=rule)  # type: ignore[arg-type]
        known = [str(name) for name in label_table(sample.problems)]
        if unknown := [name for name in options.targets if name not in known]:
            expected = ", ".join(name for name in known if name not in ("id", "split"))
            raise PlanError(
                "no such label to read", got=", ".join(unknown), expected=expected, fix="--target operation"
            )
        return sample

    def design(self, model: LatentReasoner, options: OperationsOptions, drawn: ClassSample) -> Design:
        """The features of these problems at the layers asked for, and why a label could never be judged by them."""
        from thoughtgraft.engine.features import Keep
        from thoughtgraft.engine.states import default_storage
        from thoughtgraft.studies.operations.analysis import never_judged
        from thoughtgraft.tasks.files import problem_table, with_labels
        from thoughtgraft.tasks.labels import label_table

        layers = choose_layers(options.layers, len(model.layers))
        # The rule of the draw says the class; operators and steps are always those of the annotations.
        labels = label_table(drawn.problems).assign(operation=list(drawn.operations))
        storage = options.feature_dtype or default_storage(model)
        work = Keep(labels, layers, storage, options.seed, options.untrained)
        table = with_labels(problem_table(drawn.problems), labels)
        never = {name: never_judged(table, name, options.settings(options.seed)) for name in options.targets}
        lines = [
            f"{name}: no claim can come of this design, whatever is read: {why}" for name, why in never.items() if why
        ]
        facts = {
            "mode": options.mode,
            "draw": drawn.draw,
            "rule": drawn.rule,
            "per_class": drawn.asked,
            "drawn": drawn.drawn,
            "available": dict(drawn.available),
            "layer_names": named_layers(layers, len(model.layers)),
        }
        return Design(drawn.problems, work, facts, lines=[*in_words(model, options, drawn, work), *lines])

    def carry_out(self, options: OperationsOptions, door: Door) -> None:
        """Make the features and read them; or read those that are there, which needs neither torch nor a model."""
        from thoughtgraft.records.spec import SPEC_FILE, StudySpec
        from thoughtgraft.studies.run import Reading, Run, Runs

        if options.mode != ANALYSIS_ONLY:
            super().carry_out(options, door)
            return
        reading = Reading(options=options, progress=door.progress)
        if (door.out / SPEC_FILE).is_file():
            self.conclude(Run.open(door.out, self, reading), door.said)
            return
        StudySpec(study=self.name, options=options.stored()).write(door.out)
        self.conclude(Runs(door.out, self, {}, reading), door.said)

    def analyse(self, run: Run) -> OperationsData:
        """Probes and their controls at every position and layer, written below `analysis/`."""
        from thoughtgraft.records.spec import UNTRAINED_FOLDER
        from thoughtgraft.records.states import has_features, load_states
        from thoughtgraft.studies.operations.analysis import analyze_operations
        from thoughtgraft.studies.operations.figures import analysed_targets, load

        options = run.options if isinstance(run.options, OperationsOptions) else OperationsOptions()
        now = run.reading.options is not None
        targets = list(options.targets) if now else analysed_targets(run.path) or list(options.targets)
        data = Path(options.data).expanduser() if options.data else run.path
        features = load_states(data, options.labels)
        control = load_states(data, folder=UNTRAINED_FOLDER) if has_features(data, UNTRAINED_FOLDER) else None
        settings = options.settings(run.seed, run.reading.progress)
        analyze_operations(features, None, targets, untrained=control, settings=settings, out=run.path)
        return load(run.path)

    def stored(self, run: Run) -> OperationsData:
        """The analysis below `analysis/`, if it is of the seed that is asked for."""
        from thoughtgraft.studies.operations.figures import SUMMARY, load

        if not (run.path / SUMMARY).is_file():
            return self.analyse(run)
        found = load(run.path)
        same = run.reading.seed in (None, found.summary["settings"]["seed"])
        return found if same else self.analyse(run)

    def report(self, run: Run, analysis: OperationsData, *, force: bool = False) -> ReportPaths:
        """The page with its figures."""
        from thoughtgraft.studies.operations.report import write_pages

        return write_pages(replace(analysis, force=force))

    def conclude(self, run: Run, said: Said) -> None:
        """Analyse and report, unless whoever carries it out wants that later."""
        now = run.reading.options
        if not isinstance(now, OperationsOptions) or now.analyze:
            super().conclude(run, said)

    def waiting(self, said: Said) -> AbstractContextManager[Any]:
        """Nothing: the probes have a bar of progress."""
        return nullcontext()

    def tell(self, run: Run, analysis: OperationsData, said: Said) -> None:
        """The claims, position by position, and what was left out."""
        from thoughtgraft.studies.operations.report import claims_summary, notes_of

        said.show(claims_summary(analysis))
        for line in notes_of(analysis):
            said.line(line)

    def group(self, options: OperationsOptions) -> str:
        """Runs of one mode go together."""
        return options.mode


def in_words(model: LatentReasoner, options: OperationsOptions, sample: ClassSample, work: Keep) -> list[str]:
    """The job in words: which problems, where their classes fall short, which features, how large."""
    from thoughtgraft.engine.states import STORAGE

    depth = len(model.layers)
    drawn = ", ".join(f"{n} {name}" for name, n in sample.drawn.items())
    seed = "42, its own" if sample.draw == "cot-exploration" else options.seed
    lines = [
        f"{options.mode}: {len(sample.problems)} problems of {sample.problems.name} ({drawn}); draw {sample.draw}, "
        f"labels by {sample.rule}, seed {seed}"
    ]
    lines += [
        f"{name}: only {n} where {sample.asked} were wanted; all are taken and none is filled up from elsewhere"
        for name, n in sample.short.items()
    ]
    names = {layer: name for name, layer in named_layers(work.layers, depth).items()}
    layers = ", ".join(f"{layer} ({names[layer]})" if layer in names else str(layer) for layer in work.layers)
    places = model.num_latents + 1
    size = len(sample.problems) * places * (len(work.layers) + 1) * model.d_model
    if work.storage in STORAGE:
        size *= STORAGE[work.storage].itemsize * (1 + work.untrained)
    twice = ", an untrained model's included" if work.untrained else ""
    lines.append(
        f"the stream after layers {layers} of {depth}, and the final state, at {places} positions: "
        f"{size / 1e6:,.1f} MB as {work.storage}{twice}"
    )
    return lines
