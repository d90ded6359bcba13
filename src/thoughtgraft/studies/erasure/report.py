"""The erasure study's table onto pages, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table as Terminal

from thoughtgraft.edits.site import slots_label
from thoughtgraft.effects.gates import RULE
from thoughtgraft.report.document import (
    UNDEFINED,
    Block,
    Notes,
    Prose,
    Table,
    estimate,
    judged,
    number,
    p_value,
    percent,
    plural,
    records_of,
    sentence_list,
)
from thoughtgraft.report.render import ReportPaths
from thoughtgraft.report.terminal import narrow_table
from thoughtgraft.stats.verdicts import Verdict
from thoughtgraft.studies.folder import write_page
from thoughtgraft.studies.run import Run

TABLE_FILE = "analysis/erasure.parquet"

_EFFECTS = (
    "layer", "slot", "verdict", "n", "impact, pp", "random: impact, pp", "erased − random, pp [alone]", "simultaneous",
    "p (Holm)", "rank p", "MDE, pp", "notes",
)  # fmt: skip
_DETAILS = (
    "layer", "slot", "n", "accuracy", "erased", "changed", "random: accuracy", "random: changed", "read", "moved",
)  # fmt: skip
_SHORT = ("layer, slot", "erased", "random", "erased − random", "simultaneous", "verdict", "read")
_EARLIER = (
    "The verdicts of this table were made by an earlier version, from p-values and unadjusted intervals. Run the "
    "study's command again to have it judged by simultaneous intervals."
)


def short_rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Header and rows for a terminal."""
    rows: list[tuple[str, ...]] = [_SHORT]
    for row in records_of(table):
        read = f"{percent(row['read_before'], 0)} → {percent(row['read_after'], 0)}"
        figures = (number(row["impact_pp"]), number(row["random_impact_pp"]), _gap(row))
        rows.append((f"L{row['layer']} {slots_label(row['slots'])}", *figures, *_said(row), read))
    return rows


def summary(table: pd.DataFrame, target: str) -> Terminal:
    """The main columns for a terminal; the page has them all."""
    out = narrow_table(f"Accuracy lost when {target} is erased, pp; 95% intervals")
    header, *rows = short_rows(table)
    for i, name in enumerate(header):
        out.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        out.add_row(*row)
    return out


def write_erasure_report(run: Run, table: pd.DataFrame, *, force: bool = False) -> ReportPaths:
    """Write `report.md` and `report.html` (opens offline) from the table that the run computed.

    Args:
        run: The run.
        table: The study's one table.
        force: State results although the certificate failed, or too many cells; every page then says so.

    Raises:
        RunError: A file of the run is damaged, or the disk refuses.
    """
    spec = run.spec
    target = str(spec.plan.get("target", "the label"))
    found: tuple[Block, ...] = (*(Prose(line, "lead") for line in sentences(table, target)), *tables(table))
    title = f"Erasing {target} from the residual stream of {spec.model}"
    source = f"the records of the run and {TABLE_FILE}"
    return write_page(run, title, found, design_lines(spec.plan, spec.n_hosts), force=force, source=source)


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


def tables(table: pd.DataFrame) -> tuple[Table, Table]:
    """Every cell with its effect and verdict; and the figures behind them."""
    effects, details, notes = [], [], Notes()
    for row in records_of(table):
        cell, (together, said) = (f"L{row['layer']}", slots_label(row["slots"])), _said(row)
        own, drawn = (
            estimate(row[value], row[low], row[high])
            for value, low, high in (
                ("impact_pp", "impact_low", "impact_high"),
                ("random_impact_pp", "random_low", "random_high"),
            )
        )
        figures = ("–",) * 3 if said == Verdict.BY_CONSTRUCTION else (own, drawn, _gap(row))
        effects.append((*cell, said, str(row["n"]), *figures, together, *_tests(row), notes.mark(row.get("note"))))
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
        "Impact: accuracy lost, pp, with its 95% interval. Random: directions of the same rank, drawn to take as much "
        "variance out and to leave the class means where they are. Erased − random: two-way clustered over hosts and "
        "draws; simultaneous: 95% for all cells of the table together. Verdict: where the simultaneous interval lies "
        f"beside 0 and {RULE.margin_pp:g} pp. Holm: p of no difference over the same cells; rank p: where the "
        "erasure's impact stands among the draws'; neither decides. MDE: the least difference found with 80% power, "
        "cell by cell."
    )
    behind = (
        "Changed: share of answers that are not the unedited ones. Read: cross-validated balanced accuracy of a linear "
        "probe of the label on the held-out problems' own states, before and after the erasure (after a random one), "
        f"chance {percent(table['chance'].iloc[0], 0)}. Moved: mean of |x′ − x| / |x| (of a random one). With several "
        "slots, read and moved are means over the slots' clean states."
    )
    return (
        Table(_EFFECTS, tuple(effects), reading, frozenset(range(3, 11)), 2, notes.pairs, "The effects"),
        Table(_DETAILS, tuple(details), behind, frozenset(range(2, 10)), title="What is behind them"),
    )


def sentences(table: pd.DataFrame, target: str) -> list[str]:
    """What was found, in a sentence for each verdict."""
    tested = table[table["verdict"] != Verdict.BY_CONSTRUCTION]
    out = _by_verdict(tested, target) if "sim_low" in table else [_EARLIER]
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


def _by_verdict(tested: pd.DataFrame, target: str) -> list[str]:
    said = f"Erasing {target}, less random directions of the same rank: "
    if not len(tested):
        return [f"{said}no cell has an effect to estimate."]
    parts = []
    for word in Verdict:
        rows = records_of(tested[tested["verdict"] == word])
        # What is shown is named, cell by cell; what is not is counted.
        shown = [f"L{row['layer']} {slots_label(row['slots'])} ({number(row['difference_pp'])} pp)" for row in rows]
        where = sentence_list(shown) if word.tone == "found" else plural(len(rows), "cell")
        parts += [f"{word} ({word.says(f'{RULE.margin_pp:g} pp')}) in {where}"] if rows else []
    mde = number(tested["mde80_pp"].median())
    return [f"{said}{'; '.join(parts)}. Of {plural(len(tested), 'cell')}; MDE (median) {mde} pp."]


def _gap(row: dict[str, Any]) -> str:
    return estimate(row["difference_pp"], row["ci_low"], row["ci_high"])


def _said(row: dict[str, Any]) -> tuple[str, str]:
    """The simultaneous interval and its verdict; the word of an earlier version as it stands, without an interval."""
    return judged(row.get("sim_low"), row.get("sim_high"), RULE.margin_pp), str(row["verdict"])


def _tests(row: dict[str, Any]) -> tuple[str, str, str]:
    if row["verdict"] == Verdict.BY_CONSTRUCTION:
        return ("–", "–", "–")
    mde = number(row["mde80_pp"])
    return p_value(row["p_holm"]), p_value(row["p_draws"]), mde if mde != UNDEFINED else "no variation"
