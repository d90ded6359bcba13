"""DATA.md: every file of a run folder, with what it holds and how large it is."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thoughtgraft.folder import RunData
from thoughtgraft.records.export import COLUMN_MEANINGS
from thoughtgraft.records.schema import RECORD_SCHEMA
from thoughtgraft.report.document import count, plural
from thoughtgraft.report.render import to_text

# The first pattern that fits names the file.
MEANINGS = (
    ("run.json", "what was run: model, protocol, problems, plan, seed, all with hashes"),
    ("starts.json", "each start of the run: when, where, with which packages, how long"),
    ("heartbeat.json", "the run's last sign of life"),
    ("certificate.json", "the checks that model, protocol and engine passed or failed"),
    ("decision.json", "the decision rule, fixed before the run"),
    ("records/*.parquet", "one row per generation (columns below)"),
    ("problems.parquet", "the problems: id, split, question, gold answer, steps, operation"),
    ("decoded.parquet", "what each clean thought decodes to: problem, slot, rank, token, probability (0..1)"),
    ("thoughts.safetensors", "the clean thoughts themselves: fed and hidden vectors of every problem"),
    ("analysis/decision.json", "rule, gates, claims and verdicts"),
    ("analysis/decision-before.json", "the same by an older rule, kept where the records were judged anew"),
    ("analysis/positions.parquet", "one row per arm: impact, intervals, tests, adoption, n"),
    ("analysis/bootstrap.parquet", "pigeonhole intervals of every arm, a second opinion"),
    ("analysis/contrasts.parquet", "differences between slots on the same pairs"),
    ("analysis/mediation.parquet", "total, direct and indirect effects"),
    ("analysis/agreement.parquet", "swap against each ablation: r, rho, ceiling, verdict"),
    ("analysis/dose.parquet", "accuracy against the number of edited slots"),
    ("analysis/counterfactual.parquet", "adoption of single step values, slot by step"),
    ("analysis/per_problem.parquet", "sensitivity of every problem, shrunken, with interval"),
    ("analysis/claims.parquet", "the claim table"),
    ("analysis/gates.parquet", "the gates with their figures"),
    ("analysis/*", "a table of the analysis"),
    ("figures/*.png", "a figure, 200 dpi"),
    ("figures/*.svg", "the same figure as vectors"),
    ("report.md", "the report as text beside its figures"),
    ("report.html", "the report as one page that needs no other file"),
    ("journal.md", "a paragraph for a lab notebook"),
    ("DATA.md", "this list"),
    ("quarantine/*", "damaged shards, set aside; their cells were run again"),
)
HIDDEN = (".tmp-*", "*.lock", "wandb/*")


def write_inventory(run: RunData) -> str:
    """The text of DATA.md."""
    files, shards = [], []
    for file in sorted(path for path in run.path.rglob("*") if path.is_file()):
        name = file.relative_to(run.path).as_posix()
        if any(fnmatch(file.name, p) or fnmatch(name, p) for p in HIDDEN) or name == "DATA.md":
            continue
        if fnmatch(name, "records/*.parquet"):
            shards.append(file)
            continue
        files.append((name, _meaning(name), _size(file.stat().st_size), _rows(file)))
    if shards:
        total = sum(file.stat().st_size for file in shards)
        label = f"records/*.parquet ({plural(len(shards), 'file')})"
        files.append((label, _meaning("records/x.parquet"), _size(total), count(len(run.records))))
    files.append(("DATA.md", _meaning("DATA.md"), "", ""))
    columns = [(field.name, str(field.type), COLUMN_MEANINGS.get(field.name, "")) for field in RECORD_SCHEMA]
    return to_text("data.md.j2", spec=run.spec, files=sorted(files), columns=columns)


def _meaning(name: str) -> str:
    return next((text for pattern, text in MEANINGS if fnmatch(name, pattern)), "not a file of this program")


def _size(size: int) -> str:
    return f"{size:,} B" if size < 10_000 else f"{size / 1e3:,.0f} kB" if size < 1e7 else f"{size / 1e6:,.0f} MB"


def _rows(file: Path) -> str:
    if file.suffix != ".parquet":
        return ""
    try:
        return count(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException):
        return "damaged"
