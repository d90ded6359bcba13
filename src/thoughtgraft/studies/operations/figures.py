"""The operations study's figures of probes: maps, confusion, curves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.errors import RunError
from thoughtgraft.files import read_json
from thoughtgraft.records.certificate import Certificate, read_certificate
from thoughtgraft.records.shards import read_frame
from thoughtgraft.records.spec import SPEC_FILE, STARTS_FILE, RunSpec
from thoughtgraft.records.store import RunStore
from thoughtgraft.report.document import Banner, number, records_of
from thoughtgraft.report.figures.kit import BLUE, ORANGE, Point, Skipped, errorbars, light_grid
from thoughtgraft.stats.verdicts import Verdict
from thoughtgraft.studies.folder import certificate_banner

SUMMARY = "analysis/operations.json"
NO_RUN = "not certified: the features come from a file, not from a run of this program"


@dataclass(frozen=True)
class TargetData:
    """One label's part of every table.

    Attributes:
        name: The label column.
        kind: `class` or `number`.
        note: What was left out, and why.
        strata: Facts by stratum, the one that claims are made on first.
        tables: By name; a table that has no row of this target is empty.
    """

    name: str
    kind: str
    note: str
    strata: tuple[Mapping[str, Any], ...]
    tables: Mapping[str, pd.DataFrame]

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.name).strip("_") or "target"

    @property
    def stratum(self) -> str:
        """The stratum that figures show."""
        return str(self.strata[0]["stratum"])

    @property
    def score(self) -> tuple[str, str]:
        """(column, words) of the score."""
        return ("balanced_acc", "balanced accuracy") if self.kind == "class" else ("r2", "R²")

    def column(self, name: str) -> str:
        """`text`, `bot` or `control` as the table's column."""
        return f"{name}_{'acc' if self.kind == 'class' else 'r2'}"

    @property
    def chance(self) -> float:
        """The score of a probe that knows nothing."""
        return 1 / len(self.strata[0]["classes"]) if self.kind == "class" else 0.0

    def table(self, name: str) -> pd.DataFrame:
        """A table's rows of this target."""
        return self.tables.get(name, pd.DataFrame())

    def probes(self, stratum: str | None = None) -> pd.DataFrame:
        """The probe table of one stratum, the main one unless said."""
        table = self.table("probes" if self.kind == "class" else "regression")
        return table[table.stratum == (stratum or self.stratum)]

    def cells(self, stratum: str | None = None) -> pd.DataFrame:
        """The linear probe's rows of the map."""
        table = self.probes(stratum)
        return table[(table.features == "resid") & (table.probe == "linear")]

    @property
    def best(self) -> dict[str, Any]:
        """The map's row of highest score."""
        cells = self.cells()
        return records_of(cells.loc[[cells[self.score[0]].idxmax()]])[0]

    def baseline(self, name: str) -> dict[str, Any] | None:
        """The row of the `text` or `numbers` baseline, if there is one."""
        table = self.probes()
        found = records_of(table[table.features == name])
        return found[0] if found else None


@dataclass(frozen=True)
class OperationsData:
    """A folder with an analysis; `spec` is None where it is not a run's."""

    path: Path
    targets: tuple[TargetData, ...]
    summary: Mapping[str, Any]
    spec: RunSpec | None
    certificate: Certificate
    starts: tuple[Mapping[str, Any], ...]
    force: bool

    @property
    def broken(self) -> list[str]:
        """The certificate's failed checks."""
        return [f"check {name}" for name in self.certificate.failed]

    @property
    def refused(self) -> bool:
        """Whether results are left out."""
        return bool(self.broken) and not self.force

    @property
    def badge(self) -> tuple[str, str]:
        """(tone, words) for the head of the report."""
        return self.certificate.badge if self.spec is not None else ("open", NO_RUN)

    @property
    def banner(self) -> Banner | None:
        """The warning on every page, if one is due."""
        return certificate_banner(
            self.certificate, self.force, "the features are of the thoughts they name", self.badge[1]
        )

    @property
    def model(self) -> str:
        """What the features are of."""
        return self.spec.model if self.spec else Path(str(self.summary["facts"]["source"])).name

    @property
    def foot(self) -> str:
        """One line that every figure carries."""
        parts = ["operations", self.model]
        if self.spec is not None:
            parts += [f"protocol {self.spec.protocol}", f"run {self.spec.run_id}"]
        return " · ".join(parts + ([self.banner.word] if self.banner else []))


def load(path: Path | str, *, force: bool = False) -> OperationsData:
    """Open a folder that `analyze_operations` wrote into.

    Raises:
        RunError: It holds no such analysis, or a file of it is damaged.
    """
    path = Path(path)
    if not (path / SUMMARY).is_file():
        raise RunError(f"{path} holds no analysis of an operations study", fix=f"thoughtgraft analyze {path}")
    summary = read_json(path / SUMMARY)
    tables = {}
    for file in sorted((path / "analysis").glob("*.parquet")):
        tables[file.stem] = read_frame(file, fix=f"thoughtgraft analyze {path}")
    targets = tuple(
        TargetData(
            name=entry["target"],
            kind=entry["kind"],
            note=entry["note"],
            strata=tuple(entry["strata"]),
            tables={
                name: table[table.target == entry["target"]].reset_index(drop=True)
                for name, table in tables.items()
                if "target" in table
            },
        )
        for entry in summary["targets"]
    )
    if not (path / SPEC_FILE).is_file():
        return OperationsData(path, targets, summary, None, Certificate(absent="missing"), (), force)
    store = RunStore.open(path)
    starts = store.read_json(STARTS_FILE) if (path / STARTS_FILE).is_file() else []
    return OperationsData(path, targets, summary, store.spec, read_certificate(store), tuple(starts), force)


def analysed_targets(path: Path | str) -> list[str]:
    """The labels of the analysis that a folder holds; none where it holds none yet."""
    file = Path(path) / SUMMARY
    return [entry["target"] for entry in read_json(file)["targets"]] if file.is_file() else []


ANNOTATED = 140


@dataclass(frozen=True)
class ProbeMap:
    """`score` and `gain` [layer, slot]; `mark` [layer, slot]: 0 none, 1 p_maxT below alpha, 2 the whole claim."""

    score: np.ndarray
    gain: np.ndarray
    mark: np.ndarray
    slots: tuple[str, ...]
    layers: tuple[int, ...]
    chance: float
    words: str
    caption: str
    name: str
    title: str
    panels: int = 2
    sharey: bool = True

    @property
    def size(self) -> tuple[float, float]:
        """Inches; rows of the map keep their height."""
        return (9.6, float(np.clip(1.9 + 0.30 * len(self.layers), 3.2, 10.0)))

    @classmethod
    def from_target(cls, target: TargetData, alpha: float) -> ProbeMap:
        """From the linear probe's rows of the map, on the main stratum."""
        cells = target.cells()
        slots = tuple(dict.fromkeys(map(str, cells.slot)))
        layers = tuple(sorted({int(layer) for layer in cells.layer}))
        column, words = target.score

        def grid(values: Any) -> np.ndarray:
            out = np.full((len(layers), len(slots)), np.nan)
            for slot, layer, value in zip(cells.slot, cells.layer, values, strict=True):
                out[layers.index(int(layer)), slots.index(str(slot))] = value
            return out

        significant = cells.p_maxT < alpha
        said = cells.get("verdict", pd.Series(index=cells.index, dtype=object))
        whole = said.isin([word for word in Verdict if word.tone == "found"])
        text = target.baseline("text")
        n, cv = int(cells.n.iloc[0]), str(cells.cv.iloc[0])
        beside = f"; the text baseline has {number(text[column], 2)}" if text else ""
        caption = (
            f"Closed-form linear probe, {cv}, n = {n} problems of the stratum {target.stratum}. Left: {words}; white "
            f"is what a probe that knows nothing has ({number(target.chance, 2)}){beside}. Right: gain over the "
            "question-only text baseline on the same folds (red: the words say more). A small ring: p_maxT below "
            f"{alpha:g} over the whole map; a filled dot: the simultaneous interval of the smaller of gain and "
            "selectivity lies above 0, which is what a claim needs, on test problems. Intervals of every cell are in "
            "the table."
        )
        return cls(
            score=grid(cells[column]),
            gain=grid(cells.delta_vs_text),
            mark=grid(np.where(whole, 2, significant.astype(int))),
            slots=slots,
            layers=layers,
            chance=target.chance,
            words=words,
            caption=caption,
            name=f"probe_map_{target.slug}",
            title=f"Reading {target.name!r}: {words} by position and layer",
        )

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one of the two maps with its colour bar."""
        from matplotlib import colormaps

        values = self.gain if panel else self.score
        seen = values[np.isfinite(values)]
        if panel:
            reach = max(0.05, float(np.abs(seen).max())) if len(seen) else 0.05
            limits, colours = (-reach, reach), colormaps["RdBu"]
        else:
            top = max(self.chance + 0.1, float(seen.max())) if len(seen) else 1.0
            limits, colours = (self.chance, top), colormaps["Blues"]
        colours = colours.with_extremes(bad="#C9C9C9")
        image = ax.imshow(
            np.ma.masked_invalid(values), aspect="auto", origin="lower", cmap=colours, vmin=limits[0], vmax=limits[1]
        )
        if values.size <= ANNOTATED:
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    shade = image.norm(value)
                    dark = abs(shade - 0.5) > 0.33 if panel else shade > 0.6
                    text = f"{value:+.2f}" if panel else f"{value:.2f}"
                    ax.text(
                        column, row, text.replace("-", "−"), ha="center", va="center", fontsize=6.5,
                        color="white" if dark else "#222222",
                    )  # fmt: skip
        for row, column in np.argwhere(self.mark >= 1):
            full = self.mark[row, column] == 2
            ax.plot(
                column + 0.37, row + 0.27, "o", markersize=4.2, color="#D55E00", markeredgewidth=1,
                markerfacecolor="#D55E00" if full else "none",
            )  # fmt: skip
        ax.set_xticks(range(len(self.slots)), self.slots)
        ax.set_yticks(range(len(self.layers)), [str(layer) for layer in self.layers])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("latent position")
        if not panel:
            ax.set_ylabel("residual stream after layer")
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
        ax.set_title("gain over the question's words" if panel else self.words)


TITLE = "Confusion: share of each true class by predicted class"
MOST_CLASSES = 12


@dataclass(frozen=True)
class Confusions:
    """One matrix of counts [true, predicted] per panel, with its heading."""

    matrices: tuple[tuple[str, np.ndarray], ...]
    classes: tuple[str, ...]
    caption: str
    name: str
    title: str = TITLE
    sharey: bool = True

    @property
    def panels(self) -> int:
        """One for each probe shown."""
        return len(self.matrices)

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return ({1: 4.4, 2: 7.4}.get(self.panels, 10.0), 4.2)

    @classmethod
    def from_target(cls, target: TargetData) -> Confusions | Skipped:
        """From the confusion table of the main stratum."""
        name = f"confusion_{target.slug}"
        if target.kind != "class":
            return Skipped(name, TITLE, f"{target.name!r} is a number: nothing to confuse.")
        classes = tuple(target.strata[0]["classes"])
        if len(classes) > MOST_CLASSES:
            return Skipped(name, TITLE, f"{len(classes)} classes are too many to draw; the counts are in the table.")
        table, best = target.table("confusion"), target.best
        table = table[table.stratum == target.stratum]
        linear = table[(table.features == "resid") & (table.probe == "linear") & (table.layer == best["layer"])]
        wanted = [(f"{best['slot']}, layer {best['layer']}", linear[linear.slot == best["slot"]])]
        if best["slot"] != "BOT":
            wanted.append((f"BOT, layer {best['layer']}", linear[linear.slot == "BOT"]))
        wanted.append(("question's words", table[table.features == "text"]))
        matrices = tuple((words, _matrix(rows, classes)) for words, rows in wanted if len(rows))
        caption = (
            f"Rows: the true class (each adds up to 1); columns: what the probe said, over all folds and repeats of "
            f"{best['cv']}, n = {best['n']} problems of the stratum {target.stratum}. Left: the cell of the map with "
            "the highest score, chosen on these same data; then its layer before any thought, and the text baseline."
        )
        return cls(matrices, classes, caption, name)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one matrix."""
        words, counts = self.matrices[panel]
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(share):
            ax.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8 if len(self.classes) < 7 else 6,
                color="white" if value > 0.6 else "#222222",
            )  # fmt: skip
        ax.set_xticks(range(len(self.classes)), self.classes, rotation=30, ha="right")
        ax.set_yticks(range(len(self.classes)), self.classes)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("predicted")
        if not panel:
            ax.set_ylabel("true")
        ax.set_title(words)


def _matrix(rows: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    counts = rows.pivot_table(index="true", columns="predicted", values="count", aggfunc="sum", fill_value=0)
    return counts.reindex(index=list(classes), columns=list(classes), fill_value=0).to_numpy(dtype=float)


LOOKS = {"linear": (BLUE, "o", "linear probe"), "text": (ORANGE, "s", "question's words")}
# Two points of one size stand side by side.
SHIFT = 0.008


@dataclass(frozen=True)
class LearningCurve:
    """Points of each series by number of training problems."""

    series: tuple[tuple[str, tuple[Point, ...]], ...]
    chance: float
    words: str
    caption: str
    name: str
    title: str
    panels: int = 1
    sharey: bool = False
    size: tuple[float, float] = (6.4, 4.2)

    @classmethod
    def from_target(cls, target: TargetData) -> LearningCurve | Skipped:
        """From the learning-curve table."""
        table, name = target.table("learning_curve"), f"learning_curve_{target.slug}"
        title = f"Learning curve of {target.name!r}"
        if not len(table):
            return Skipped(name, title, "There are too few problems to learn from fewer.")
        reach = SHIFT * float(table.n_train.max())
        shift = {"linear": -reach, "text": reach}
        series = tuple(
            (kind, tuple(_point(row, shift[kind]) for row in records_of(table[table.series == kind])))
            for kind in LOOKS
            if (table.series == kind).any()
        )
        row = records_of(table)[0]
        caption = (
            f"{target.score[1].capitalize()} on the same test rows by number of training problems, at {row['slot']}, "
            f"layer {row['layer']} (the cell of highest score, chosen on these data), with 95% corrected resampled t "
            "intervals; grey: a probe that knows nothing. A curve that still climbs at its end says that more problems "
            "would raise the score."
        )
        return cls(series, target.chance, target.score[1], caption, name, title)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw both series."""
        for kind, points in self.series:
            colour, marker, label = LOOKS[kind]
            ax.plot([p.x for p in points], [p.value for p in points], color=colour, linewidth=1, alpha=0.6)
            errorbars(ax, points, colour, marker, label)
        ax.axhline(self.chance, color="#7A7A7A", linewidth=1, linestyle="--")
        light_grid(ax)
        ax.set_xlabel("training problems")
        ax.set_ylabel(self.words)
        ax.legend(loc="best")
        ax.set_title(self.title)


def _point(row: dict[str, Any], shift: float) -> Point:
    return Point(row["n_train"] + shift, row["score"], row["ci_low"], row["ci_high"])
