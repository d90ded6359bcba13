"""An operations study from model to features, and from features to what can be read there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from thoughtgraft.analysis.probing.stratum import Settings
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.problems.classes import ClassSample


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
        from thoughtgraft.problems.operations import label_table

        # The rule of the draw says the class; operators and steps are always those of the annotations.
        return label_table(self.sample.problems).assign(operation=list(self.sample.operations))

    @property
    def table(self) -> pd.DataFrame:
        """The problems with their labels, as the run will keep them."""
        from thoughtgraft.problems.table import problem_table, with_labels

        return with_labels(problem_table(self.sample.problems), self.labels)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers asked for, 0-based."""
        from thoughtgraft.studies.operations import choose_layers

        return choose_layers(self.layer_names, len(self.model.layers))

    @cached_property
    def storage(self) -> str:
        """What features are kept as."""
        from thoughtgraft.engine.features import default_storage

        return self.feature_dtype or default_storage(self.model)

    def design(self) -> dict[str, Any]:
        """What run.json says of how the problems were chosen."""
        from thoughtgraft.studies.operations import named_layers

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
        from thoughtgraft.engine.features import STORAGE
        from thoughtgraft.studies.operations import named_layers

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
        from thoughtgraft.engine.feature_run import run_features
        from thoughtgraft.records import RunStore
        from thoughtgraft.records.layout import CERTIFICATE_FILE

        model, problems = self.model, self.sample.problems
        certificate = certified(model, problems, out, certify, console)
        run_features(
            model,
            problems,
            self.labels,
            self.layers,
            out,
            study="operations",
            storage=self.storage,
            seed=self.seed,
            untrained=self.untrained,
            design=self.design(),
            facts=start_facts(certify),
            batch_size=self.batch_size,
            max_new_tokens=self.max_new_tokens,
            beside=beside,
        )
        if certificate is not None:
            RunStore.open(out).write_json(CERTIFICATE_FILE, certificate)


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

    from thoughtgraft.analysis.operations import analyze_operations
    from thoughtgraft.analysis.probing.verdict import EVERY
    from thoughtgraft.cli.tables import claims_summary
    from thoughtgraft.records.features import has_features, load_features
    from thoughtgraft.records.layout import UNTRAINED_FOLDER
    from thoughtgraft.report.operations.write import write_operations_report

    features = load_features(data, labels)
    control = load_features(data, folder=UNTRAINED_FOLDER) if has_features(data, UNTRAINED_FOLDER) else None
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
