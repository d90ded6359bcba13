"""`analyze_operations`: what the residual streams of a run say about labels of its problems, in one frozen result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.errors import AnalysisError
from thoughtgraft.probing.controls import control_task
from thoughtgraft.probing.picture import Picture, describe, words_still_climb
from thoughtgraft.probing.rows import FEWEST, Rows, join, make_folds
from thoughtgraft.probing.stratum import Settings, Stratum, analyse_stratum
from thoughtgraft.probing.tables import PRIMARY, claim_table, probe_table, with_verdicts
from thoughtgraft.records.states import States
from thoughtgraft.stats.resampling import family_rng

ALL = "all"
FOLDER = "analysis"


@dataclass(frozen=True)
class TargetResult:
    """One label: strata (the one that claims are made on first), tables, the picture of the first stratum, and a note.

    The note says what was left out, and where the text baseline has not learnt what it can.
    """

    target: str
    strata: tuple[Stratum, ...]
    probes: pd.DataFrame
    claims: pd.DataFrame
    picture: Picture
    note: str

    @property
    def main(self) -> Stratum:
        """The stratum that figures show and claims are made on."""
        return self.strata[0]

    @property
    def kind(self) -> str:
        """`class` or `number`."""
        return self.main.rows.kind


@dataclass(frozen=True)
class OperationsResult:
    """All targets of one analysis; the first was named first and is the primary one, the others are exploratory.

    Attributes:
        targets: By target, in the order asked for.
        settings: How it was done.
        facts: What is known of the features: source, layers, positions, problems.
    """

    targets: tuple[TargetResult, ...]
    settings: Settings
    facts: Mapping[str, Any]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name, targets one after another; an empty one is left out.

        Names: probes (classes), regression (numbers), claims, confusion, similarity, cka, components, explained,
        learning_curve. The functions that make them document their columns.
        """
        parts: dict[str, list[pd.DataFrame]] = {}
        for found in self.targets:
            probes = "probes" if found.kind == "class" else "regression"
            named = {probes: found.probes, "claims": found.claims, **found.picture.tables()}
            for name, table in named.items():
                if len(table):
                    parts.setdefault(name, []).append(table)
        return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}

    def summary(self) -> dict[str, Any]:
        """What was done, as plain values for JSON."""
        return {
            "facts": dict(self.facts),
            "settings": {k: v for k, v in asdict(self.settings).items() if k not in ("n_jobs", "progress")},
            "targets": [
                {
                    "target": found.target,
                    "kind": found.kind,
                    "note": found.note,
                    "strata": [_stratum_summary(s) for s in found.strata],
                }
                for found in self.targets
            ],
        }

    def write(self, folder: Path | str) -> None:
        """Write `analysis/*.parquet` and `analysis/operations.json` below a folder, atomically.

        Raises:
            RunError: The disk refuses.
        """
        import pyarrow as pa

        from thoughtgraft.files import make_folder, to_json, write_atomic
        from thoughtgraft.records.shards import write_parquet

        place = Path(folder) / FOLDER
        make_folder(place)
        for name, table in self.tables().items():
            write_parquet(place / f"{name}.parquet", pa.Table.from_pandas(table, preserve_index=False))
        write_atomic(place / "operations.json", to_json(self.summary(), "operations.json"))


def analyze_operations(
    features: States | Path | str,
    labels: pd.DataFrame | None = None,
    target: str | Sequence[str] = "operation",
    *,
    kind: str | Mapping[str, str] = "auto",
    untrained: States | None = None,
    settings: Settings | None = None,
    out: Path | str | None = None,
) -> OperationsResult:
    """Ask of every position and layer whether a label can be read there, with every control on the same folds.

    Needs neither torch nor the model.

    Args:
        features: A run's folder, a features file, or anything with ids, layers, positions and `matrix`.
        labels: One row per problem: `id`, the targets, and where known `question`, `split`, `template`; None takes
            those that lie with the features.
        target: The label column, or several; the first is the primary one.
        kind: How a target is read (`rows.join`): one word for all, or a mapping by target.
        untrained: Features of an untrained model of the same shape, as a control.
        settings: Folds, repeats, permutations, probes, seed.
        out: A folder to write `analysis/` into; None writes nothing.

    Raises:
        AnalysisError: Labels and features do not fit, or there are too few problems.
        RunError: The features cannot be read, or the disk refuses.
    """
    settings = settings or Settings()
    source: Any = features
    if isinstance(features, str | Path):
        from thoughtgraft.records.states import load_states

        source = load_states(features)
    labels = getattr(source, "labels", None) if labels is None else labels
    if labels is None:
        raise AnalysisError("there are no labels to read", fix="pass a table with the columns id and the target")
    names = [target] if isinstance(target, str) else list(target)
    if not names or len(set(names)) < len(names):
        raise AnalysisError("the targets must be different label columns", got=", ".join(names) or "none")
    found = []
    for name in names:
        way = kind if isinstance(kind, str) else kind.get(name, "auto")
        found.append(_target(join(source.ids, labels, name, way), source, settings, untrained))
    facts = {
        "source": str(getattr(source, "source", "arrays in memory")),
        "n_problems": len(source.ids),
        "layers": list(source.layers),
        "positions": list(source.positions),
        "untrained": untrained is not None,
    }
    result = OperationsResult(tuple(found), settings, facts)
    if out is not None:
        result.write(out)
    return result


def never_judged(labels: pd.DataFrame, target: str, settings: Settings | None = None) -> str:
    """Why no claim of a label could be judged, whatever the features hold; empty where one could.

    Args:
        labels: One row per problem, as `analyze_operations` has them.
        target: The label column.
        settings: As `analyze_operations` has them.
    """
    settings = settings or Settings()
    try:
        whole = _frequent(join(list(map(str, labels["id"])), labels, target), settings)
        part = whole.take(whole.split == PRIMARY)
        if not len(part) or (part.kind == "class" and len(part.classes) < len(whole.classes)):
            return f"claims need problems of the split {PRIMARY!r}, and of each class some"
        control = control_task(part, 1, family_rng(settings.seed, "control", target))
        if not control.defined:
            return control.note
        if make_folds(part, settings.folds, settings.repeats, settings.seed).within(control.rows) is None:
            return f"control task undefined in a fold ({control.note.removeprefix('control task: ')})"
    except AnalysisError as error:
        return f"{error.what}{f' ({error.got})' if error.got else ''}"
    return ""


def _frequent(rows: Rows, settings: Settings) -> Rows:
    """Without classes too rare for the folds; for fewer folds where else no two classes would be left.

    Raises:
        AnalysisError: Not even two classes are frequent enough for three folds.
    """
    whole = rows.without_rare(settings.folds)
    if whole.kind == "class" and len(whole.classes) < 2:
        whole = rows.without_rare(FEWEST)
    if whole.kind == "class" and len(whole.classes) < 2:
        raise AnalysisError(f"too few problems to probe {rows.target!r}", got=whole.note, fix="label more problems")
    return whole


def _target(rows: Rows, source: States, settings: Settings, untrained: States | None) -> TargetResult:
    whole = _frequent(rows, settings)
    strata, notes = [], [whole.note] if whole.note else []
    tested = whole.split == PRIMARY
    if tested.all():
        strata.append(analyse_stratum(PRIMARY, whole, source, settings, untrained))
    else:
        if tested.any():
            try:
                part = whole.take(tested)
                if part.kind == "class" and len(part.classes) < len(whole.classes):
                    raise AnalysisError("a class has no test problem")
                strata.append(analyse_stratum(PRIMARY, part, source, settings, untrained))
            except AnalysisError as error:
                notes.append(f"no test stratum: {error.what}")
        strata.append(analyse_stratum(ALL, whole, source, settings, untrained))
    main = strata[0]
    picture = describe(main, source, settings)
    if climbing := words_still_climb(picture.curve.to_dict("records"), settings.margin):
        notes.append(climbing)
    return TargetResult(
        target=rows.target,
        strata=tuple(strata),
        probes=pd.concat([with_verdicts(probe_table(s), s, settings) for s in strata], ignore_index=True),
        claims=claim_table(main, settings),
        picture=picture,
        note="; ".join(notes),
    )


def _stratum_summary(stratum: Stratum) -> dict[str, Any]:
    rows = stratum.rows
    sizes = [int((rows.values == code).sum()) for code in range(len(rows.classes))]
    return {
        "stratum": stratum.name,
        "n": len(rows),
        "n_questions": len(np.unique(rows.groups)),
        "classes": dict(zip(rows.classes, sizes, strict=True)),
        "cv": stratum.setup.folds.label,
        "control": stratum.setup.control.note,
        "best": stratum.best.label,
    }
