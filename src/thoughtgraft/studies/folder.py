"""What the pages of all studies share: the warning of an uncertified run, and the list of a run's files."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thoughtgraft.effects.frame import reasons
from thoughtgraft.effects.gates import FAIL, failed_gate
from thoughtgraft.files import write_atomic
from thoughtgraft.records.certificate import Certificate
from thoughtgraft.records.export import COLUMN_MEANINGS
from thoughtgraft.records.schema import RECORD_SCHEMA
from thoughtgraft.report.document import Banner, Block, Bullets, Prose, Report, Section, count, plural, sentence_list
from thoughtgraft.report.render import ReportPaths, to_html, to_markdown, to_text
from thoughtgraft.studies.resampling.checks import checks, provenance_blocks
from thoughtgraft.studies.resampling.context import caveats, failed_caveat, seen_before
from thoughtgraft.studies.run import Run


def certificate_banner(
    certificate: Certificate, force: bool, proves: str, words: str | None = None, also: str = ""
) -> Banner | None:
    """The warning on every page of a study without a decision; None where the certificate passed.

    Args:
        certificate: The run's.
        force: Whether results are shown although it failed.
        proves: What a certificate would prove.
        words: What is said of one that is missing; None takes the badge's.
        also: What else forbids a result; empty for nothing.
    """
    if certificate.failed or also:
        shown = "shown by force: " if force else ""
        end = "No result in this report may be quoted." if force else "No result is stated."
        failed = sentence_list([*(f"check {name}" for name in certificate.failed), *([also] if also else [])])
        return Banner("bad", "INVALID", f"INVALID, {shown}{failed}. {end}")
    if certificate.state != "passed":
        said = words or certificate.badge[1]
        return Banner("warn", "NOT CERTIFIED", f"{said[0].upper()}{said[1:]}. Nothing proves that {proves}.")
    return None


def write_page(
    run: Run,
    title: str,
    found: Sequence[Block],
    design: Sequence[str],
    *,
    force: bool = False,
    source: str = "the records of the run alone",
) -> ReportPaths:
    """Write report.md and report.html (opens offline) of a study that no rule of questions judges.

    What was found, how it was designed, the certificate, and where the numbers come from. A failed certificate, or too
    many failed cells, leave out what was found.

    Args:
        run: The run.
        title: The page's title.
        found: What was found.
        design: What was done, a sentence each.
        force: State results all the same; every page then says so.
        source: What the numbers come from.

    Raises:
        RunError: A file of the run is damaged, or the disk refuses.
    """
    spec, certificate, done = run.spec, run.certificate, len(run.records())
    failures = reasons(run.failed()["error"])
    gate = failed_gate(failures, max(done, 1))
    also = f"gate {gate.name} ({gate.detail})" if gate.outcome == FAIL else ""
    if (certificate.failed or also) and not force:
        found = (Prose("No result is stated in this report: the warning above says why.", "warn"),)
    report = Report(
        title=title,
        facts=(
            ("protocol", spec.protocol),
            ("problems", f"{plural(spec.n_hosts, 'problem')} of {spec.problems}"),
            ("generations", count(done)),
            ("failed", count(sum(failures.values()))),
            seen_before(spec),
            ("run", spec.run_id),
        ),
        badge=certificate.badge,
        banner=certificate_banner(certificate, force, "the edits did what they say", also=also),
        sections=(
            Section("finding", "What was found", tuple(found)),
            Section("design", "Design", (Bullets(tuple(design)),)),
            Section("certificate", "Certificate", checks(certificate)),
            Section("provenance", "Provenance", provenance_blocks(spec)),
        ),
        caveats=(*caveats(spec), *failed_caveat(failures, done)),
        source=source,
    )
    for name, text in (("report.md", to_markdown(report)), ("report.html", to_html(report))):
        write_atomic(run.path / name, text.encode())
    return ReportPaths(run.path / "report.md", run.path / "report.html", ())


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


def write_inventory(run: Run) -> str:
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
        files.append((label, _meaning("records/x.parquet"), _size(total), count(len(run.records()))))
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
