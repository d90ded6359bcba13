"""The erasure study's table onto pages, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from pathlib import Path
from typing import Any

import pandas as pd

from thoughtgraft.analysis.erased import DEAD, LESS, MORE
from thoughtgraft.analysis.frame import reasons
from thoughtgraft.analysis.gates import FAIL, failed_gate
from thoughtgraft.analysis.power import exact_upper_bound
from thoughtgraft.records import RunStore
from thoughtgraft.records.atomic import write_atomic
from thoughtgraft.records.frames import read_frame
from thoughtgraft.report.certificate import certificate_banner, read_certificate
from thoughtgraft.report.context import caveats, failed_caveat, seen_before
from thoughtgraft.report.document import Block, Bullets, Prose, Report, Section, Table, records_of
from thoughtgraft.report.formats import UNDEFINED, bounded, count, estimate, number, p_value, percent, plural
from thoughtgraft.report.paths import ReportPaths
from thoughtgraft.report.render import to_html, to_markdown
from thoughtgraft.report.sections.certificate import checks
from thoughtgraft.report.sections.provenance import provenance_blocks

TABLE_FILE = "analysis/erasure.parquet"

_EFFECTS = (
    "layer", "slot", "verdict", "n", "impact, pp", "random: impact, pp", "erased − random, pp", "p (Holm)", "rank p",
    "MDE, pp",
)  # fmt: skip
_DETAILS = (
    "layer", "slot", "n", "accuracy", "erased", "changed", "random: accuracy", "random: changed", "read", "moved",
)  # fmt: skip
_SHORT = ("layer, slot", "erased", "random", "erased − random", "p (Holm)", "rank p", "read")


def short_rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Header and rows for a terminal."""
    rows: list[tuple[str, ...]] = [_SHORT]
    for row in records_of(table):
        read = f"{percent(row['read_before'], 0)} → {percent(row['read_after'], 0)}"
        figures = (number(row["impact_pp"]), number(row["random_impact_pp"]), _gap(row))
        rows.append((f"L{row['layer']} {_slots(row)}", *figures, *_tests(row)[:2], read))
    return rows


def write_erasure_report(run: Path | str, *, force: bool = False) -> ReportPaths:
    """Write `report.md` and `report.html` (opens offline) from the table that the run computed.

    Args:
        run: The run's folder.
        force: State results although the certificate failed, or too many cells; every page then says so.

    Raises:
        RunError: It is not a run's, has no such table yet, a file of it is damaged, or the disk refuses.
    """
    store = RunStore.open(run)
    spec, certificate = store.spec, read_certificate(store)
    table = read_frame(store.path / TABLE_FILE)
    target = str(spec.plan.get("target", "the label"))
    done = store.table(["cell"]).num_rows
    failures = reasons(pd.Series([row["error"] for row in store.errors], dtype=object))
    gate = failed_gate(failures, max(done, 1))
    also = f"gate {gate.name} ({gate.detail})" if gate.outcome == FAIL else ""
    refused = bool(certificate.failed or also) and not force
    parts = [Section("finding", "What was found", _finding(table, target, refused))]
    parts += [
        Section("design", "Design", (Bullets(tuple(design_lines(spec.plan, spec.n_hosts))),)),
        Section("certificate", "Certificate", checks(certificate)),
        Section("provenance", "Provenance", provenance_blocks(spec)),
    ]
    report = Report(
        title=f"Erasing {target} from the residual stream of {spec.model}",
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
        sections=tuple(parts),
        caveats=(*caveats(spec), *failed_caveat(failures, done)),
        source=f"the records of the run and {TABLE_FILE}",
    )
    paths = ReportPaths(store.path / "report.md", store.path / "report.html", ())
    write_atomic(paths.md, to_markdown(report).encode())
    write_atomic(paths.html, to_html(report).encode())
    return paths


def design_lines(plan: Mapping[str, Any], n_problems: int) -> list[str]:
    """What an erasure study does, in words.

    Args:
        plan: The plan as run.json holds it, with the facts of the erasure.
        n_problems: Problems that are edited.
    """
    sets = {tuple(arm["slots"]) for arm in plan["arms"] if arm["slots"]}
    return [
        f"{plan['target']} erased from the stream (LEACE, rank {plan['rank']}): fitted on {plan['n_fit']} problems, "
        f"done on {n_problems} others",
        f"{plural(len(plan['layers']), 'layer')} x {plural(len(sets), 'set')} of slots = "
        f"{len(plan['layers']) * len(sets)} cells, each with {plan['draws']} random erasures: "
        f"{len(plan['arms']):,} arms, {len(plan['arms']) * n_problems:,} generations",
        f"features of {plan.get('source', plan.get('features'))}",
    ]


def _finding(table: pd.DataFrame, target: str, refused: bool) -> tuple[Block, ...]:
    if refused:
        return (Prose("No result is stated in this report: the warning above says why.", "warn"),)
    return (*(Prose(line, "lead") for line in sentences(table, target)), *tables(table))


def tables(table: pd.DataFrame) -> tuple[Table, Table]:
    """Every cell with its effect and verdict; and the figures behind them."""
    effects, details = [], []
    for row in records_of(table):
        cell, verdict = (f"L{row['layer']}", _slots(row)), str(row["verdict"])
        unseen = 100 * exact_upper_bound(int(row["n"])) if row["n"] else nan
        own, drawn = (
            bounded(row[value], row[low], row[high], unseen if row[value] == 0 and isnan(row[low]) else nan)
            for value, low, high in (
                ("impact_pp", "impact_low", "impact_high"),
                ("random_impact_pp", "random_low", "random_high"),
            )
        )
        figures = ("–",) * 3 if verdict == DEAD else (own, drawn, _gap(row))
        effects.append((*cell, verdict, str(row["n"]), *figures, *_tests(row)))
        before, after, random = (percent(row[f"read_{when}"], 0) for when in ("before", "after", "random"))
        details.append(
            (
                *cell,
                str(row["n"]),
                *(percent(row[name]) for name in ("base_acc", "acc", "changed", "random_acc", "random_changed")),
                f"{before} → {after} ({random})",
                f"{percent(row['change'], 0)} ({percent(row['random_change'], 0)})",
            )
        )
    reading = (
        "Impact: accuracy lost, pp, 95% intervals (where no grade changed, the exact upper bound). Random: directions "
        "of the same rank, drawn to take as much variance out and to leave the class means where they are. Erased − "
        "random: two-way clustered over hosts and draws, Holm over the cells; rank p: where the erasure's impact "
        "stands among the draws'. MDE: the least difference found with 80% power."
    )
    behind = (
        "Changed: share of answers that are not the unedited ones. Read: cross-validated balanced accuracy of a linear "
        "probe of the label on the held-out problems' own states, before and after the erasure (after a random one), "
        f"chance {percent(table['chance'].iloc[0], 0)}. Moved: mean of |x′ − x| / |x| (of a random one). With several "
        "slots, read and moved are means over the slots' clean states."
    )
    return (
        Table(_EFFECTS, tuple(effects), reading, frozenset(range(3, 10)), title="The effects"),
        Table(_DETAILS, tuple(details), behind, frozenset(range(2, 10)), title="What is behind them"),
    )


def sentences(table: pd.DataFrame, target: str) -> list[str]:
    """What was found, in a sentence or two."""
    tested = table[table["verdict"] != DEAD]
    more, less = tested[tested["verdict"] == MORE], tested[tested["verdict"] == LESS]
    out = []
    if len(more):
        named = ", ".join(
            f"L{row['layer']} {_slots(row)} ({number(row['difference_pp'])} pp)" for row in records_of(more)
        )
        out.append(
            f"Erasing {target} costs more than random directions do in {len(more)} of {len(tested)} cells: {named}."
        )
    else:
        out.append(
            f"No evidence that erasing {target} matters more than random directions in any of "
            f"{plural(len(tested), 'cell')}; MDE (median) {number(tested['mde80_pp'].median())} pp."
        )
    if len(less):
        named = ", ".join(f"L{row['layer']} {_slots(row)}" for row in records_of(less))
        out.append(f"It costs less than they do in {len(less)}: {named}.")
    # Tables made by earlier versions could hold no failed cell.
    if failed := int(table["n_failed"].sum()) if "n_failed" in table else 0:
        out.append(f"{plural(failed, 'edited cell')} failed and are in no figure.")
    before, after = (percent(tested[name].median(), 0) for name in ("read_before", "read_after"))
    out.append(
        f"A linear probe reads {target} on held-out problems at {before} before the erasure and {after} after it "
        f"(medians; chance {percent(table['chance'].iloc[0], 0)}): what it still reads then, the directions fitted on "
        "the other problems did not take out."
    )
    return out


def _slots(row: dict[str, Any]) -> str:
    slots = [int(k) for k in row["slots"]]
    if len(slots) > 2 and slots == list(range(slots[0], slots[-1] + 1)):
        return f"CT{slots[0]}-CT{slots[-1]}"
    return ",".join(f"CT{k}" for k in slots)


def _gap(row: dict[str, Any]) -> str:
    return estimate(row["difference_pp"], row["ci_low"], row["ci_high"])


def _tests(row: dict[str, Any]) -> tuple[str, str, str]:
    if row["verdict"] == DEAD:
        return ("", "", "")
    mde = number(row["mde80_pp"])
    return p_value(row["p_holm"]), p_value(row["p_draws"]), mde if mde != UNDEFINED else "no variation"
