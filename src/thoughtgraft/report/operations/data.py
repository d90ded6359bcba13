"""What an operations report is written from: the tables of the analysis, the run's spec and its certificate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from thoughtgraft.errors import RunError
from thoughtgraft.records import RunSpec, RunStore
from thoughtgraft.records.frames import read_frame
from thoughtgraft.records.jsonfile import read_json
from thoughtgraft.records.layout import SPEC_FILE, STARTS_FILE
from thoughtgraft.report.certificate import Certificate, certificate_banner, read_certificate
from thoughtgraft.report.document import Banner, records_of

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

    @property
    def text_column(self) -> str:
        """Column of the text baseline's score; the others are named alike."""
        return "text_acc" if self.kind == "class" else "text_r2"

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
        return OperationsData(path, targets, summary, None, Certificate("missing", "", ()), (), force)
    store = RunStore.open(path)
    starts = store.read_json(STARTS_FILE) if (path / STARTS_FILE).is_file() else []
    return OperationsData(path, targets, summary, store.spec, read_certificate(store), tuple(starts), force)


def analysed_targets(path: Path | str) -> list[str]:
    """The labels of the analysis that a folder holds; `operation` where it holds none yet."""
    file = Path(path) / SUMMARY
    return [entry["target"] for entry in read_json(file)["targets"]] if file.is_file() else ["operation"]
