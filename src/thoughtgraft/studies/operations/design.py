"""The operations study: which problems, layers and features, made and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.errors import PlanError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.probing.stratum import Settings
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


def named_layers(layers: tuple[int, ...], depth: int) -> dict[str, int]:
    """The names of those layers that have one at this depth."""
    return {name: int(share * depth) for name, share in LAYER_NAMES.items() if int(share * depth) in layers}


@dataclass(frozen=True)
class FeatureJob:
    """One study's features, ready to be made."""

    model: LatentReasoner
    sample: ClassSample
    layer_names: str
    mode: str
    seed: int
    feature_dtype: str | None = None
    untrained: bool = True
    batch_size: str = "auto"
    max_new_tokens: int | None = None

    @cached_property
    def labels(self) -> pd.DataFrame:
        """One row per problem, with every column that can be a target."""
        from thoughtgraft.tasks.labels import label_table

        # The rule of the draw says the class; operators and steps are always those of the annotations.
        return label_table(self.sample.problems).assign(operation=list(self.sample.operations))

    @property
    def table(self) -> pd.DataFrame:
        """The problems with their labels, as the run will keep them."""
        from thoughtgraft.tasks.files import problem_table, with_labels

        return with_labels(problem_table(self.sample.problems), self.labels)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers asked for, 0-based."""
        return choose_layers(self.layer_names, len(self.model.layers))

    @cached_property
    def storage(self) -> str:
        """What features are kept as."""
        from thoughtgraft.engine.states import default_storage

        return self.feature_dtype or default_storage(self.model)

    def design(self) -> dict[str, Any]:
        """What run.json says of how the problems were chosen."""
        sample = self.sample
        return {
            "mode": self.mode,
            "draw": sample.draw,
            "rule": sample.rule,
            "per_class": sample.asked,
            "drawn": sample.drawn,
            "available": dict(sample.available),
            "layer_names": named_layers(self.layers, len(self.model.layers)),
        }

    def lines(self) -> list[str]:
        """The job in words: which problems, where their classes fall short, which features, how large."""
        from thoughtgraft.engine.states import STORAGE

        sample, depth = self.sample, len(self.model.layers)
        drawn = ", ".join(f"{n} {name}" for name, n in sample.drawn.items())
        lines = [
            f"{self.mode}: {len(sample.problems)} problems of {sample.problems.name} ({drawn}); draw {sample.draw}, "
            f"labels by {sample.rule}, seed {'42, its own' if sample.draw == 'cot-exploration' else self.seed}"
        ]
        lines += [
            f"{name}: only {n} where {sample.asked} were wanted; all are taken and none is filled up from elsewhere"
            for name, n in sample.short.items()
        ]
        names = {layer: name for name, layer in named_layers(self.layers, depth).items()}
        shown = ", ".join(f"{layer} ({names[layer]})" if layer in names else str(layer) for layer in self.layers)
        places = self.model.num_latents + 1
        size = len(sample.problems) * places * (len(self.layers) + 1) * self.model.d_model
        if self.storage in STORAGE:
            size *= STORAGE[self.storage].itemsize * (1 + self.untrained)
        twice = ", an untrained model's included" if self.untrained else ""
        lines.append(
            f"the stream after layers {shown} of {depth}, and the final state, at {places} positions: "
            f"{size / 1e6:,.1f} MB as {self.storage}{twice}"
        )
        return lines

    def run(self, out: Path, certify: str, console: Console, beside: Sequence[Path] = ()) -> None:
        """Make what is missing of the run's folder."""
        from thoughtgraft.cli.certify import certified, start_facts
        from thoughtgraft.engine.features import Keep, run_features

        model, problems = self.model, self.sample.problems
        certificate = certified(model, problems, out, certify, console)
        run_features(
            model,
            problems,
            Keep(self.labels, self.layers, self.storage, self.seed, self.untrained),
            out,
            study="operations",
            certificate=certificate,
            design=self.design(),
            facts=start_facts(certify),
            batch_size=self.batch_size,
            max_new_tokens=self.max_new_tokens,
            beside=beside,
        )


def read_features(
    data: Path,
    out: Path,
    labels: Path | None,
    targets: Sequence[str],
    console: Console,
    settings: Settings,
) -> None:
    """Ask what can be read from the features of a run or a file, and write it below `out`. Needs no torch."""
    from rich.markup import escape

    from thoughtgraft.probing.tables import EVERY
    from thoughtgraft.records.spec import UNTRAINED_FOLDER
    from thoughtgraft.records.states import has_features, load_states
    from thoughtgraft.studies.operations.analysis import analyze_operations
    from thoughtgraft.studies.operations.report import claims_summary, write_operations_report

    features = load_states(data, labels)
    control = load_states(data, folder=UNTRAINED_FOLDER) if has_features(data, UNTRAINED_FOLDER) else None
    result = analyze_operations(features, None, list(targets), untrained=control, settings=settings, out=out)
    paths = write_operations_report(out)
    claims = result.tables()["claims"]
    console.print(claims_summary(claims))
    for target in result.targets:
        if target.note:
            console.print(f"{target.target}: {target.note}", soft_wrap=True, markup=False, highlight=False)
    for row in claims[claims["subject"] == EVERY].itertuples():
        console.print(f"{row.target}: not judged: {row.note}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"\nThe report: [bold]{escape(str(paths.html.resolve()))}[/bold]", soft_wrap=True)
