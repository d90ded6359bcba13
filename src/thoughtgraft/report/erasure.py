"""The erasure study's table in words and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from thoughtgraft.analysis.erased import DEAD, LESS, MORE
from thoughtgraft.report.formats import UNDEFINED, estimate, number, p_value, percent, plural

_FULL = (
    "layer", "slot", "n", "accuracy", "erased", "impact, pp", "changed", "random: impact, pp", "random: changed",
    "erased − random, pp", "p (Holm)", "rank p", "MDE, pp", "read before → after (random)", "moved (random)", "verdict",
)  # fmt: skip
_SHORT = ("layer, slot", "erased", "random", "erased − random", "p (Holm)", "rank p", "read")


def short_rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Header and rows for a terminal."""
    rows: list[tuple[str, ...]] = [_SHORT]
    for row in _records(table):
        read = f"{percent(row['read_before'], 0)} → {percent(row['read_after'], 0)}"
        figures = (number(row["impact_pp"]), number(row["random_impact_pp"]), _gap(row))
        rows.append((f"L{row['layer']} {_slots(row)}", *figures, *_tests(row)[:2], read))
    return rows


def erasure_page(table: pd.DataFrame, lines: Sequence[str], target: str) -> str:
    """The page: what was done, the finding, the table, and what its columns mean."""
    out = [f"# Erasing {target} from the residual stream", "", *(f"- {line}" for line in lines), ""]
    out += [*sentences(table, target), "", "| " + " | ".join(_FULL) + " |", "|" + "---|" * len(_FULL)]
    for row in _records(table):
        cells = (
            f"L{row['layer']}",
            _slots(row),
            str(row["n"]),
            percent(row["base_acc"]),
            percent(row["acc"]),
            estimate(row["impact_pp"], row["impact_low"], row["impact_high"]),
            percent(row["changed"]),
            estimate(row["random_impact_pp"], row["random_low"], row["random_high"]),
            percent(row["random_changed"]),
            _gap(row),
            *_tests(row),
            f"{percent(row['read_before'], 0)} → {percent(row['read_after'], 0)} ({percent(row['read_random'], 0)})",
            f"{percent(row['change'], 0)} ({percent(row['random_change'], 0)})",
            row["verdict"],
        )
        out.append("| " + " | ".join(cells) + " |")
    chance = percent(table["chance"].iloc[0], 0)
    out += [
        "",
        "Impact: accuracy lost, pp, 95% intervals. Random: directions of the same rank, drawn to take as much variance "
        "out and to leave the class means where they are. Erased − random: two-way clustered over hosts and draws, "
        "Holm over the cells; rank p: where the erasure's impact stands among the draws'. MDE: the least difference "
        "found with 80% power. Read: cross-validated balanced accuracy of a linear probe of the label on the held-out "
        f"problems' own states, chance {chance}. Moved: mean of |x′ − x| / |x|. With several slots, read and moved are "
        "means over the slots' clean states.",
        "",
    ]
    return "\n".join(out)


def sentences(table: pd.DataFrame, target: str) -> list[str]:
    """What was found, in a sentence or two."""
    tested = table[table["verdict"] != DEAD]
    more, less = tested[tested["verdict"] == MORE], tested[tested["verdict"] == LESS]
    out = []
    if len(more):
        named = ", ".join(
            f"L{row['layer']} {_slots(row)} ({number(row['difference_pp'])} pp)" for row in _records(more)
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
        named = ", ".join(f"L{row['layer']} {_slots(row)}" for row in _records(less))
        out.append(f"It costs less than they do in {len(less)}: {named}.")
    before, after = (percent(tested[name].median(), 0) for name in ("read_before", "read_after"))
    out.append(
        f"A linear probe reads {target} on held-out problems at {before} before the erasure and {after} after it "
        f"(medians; chance {percent(table['chance'].iloc[0], 0)}): what it still reads then, the directions fitted on "
        "the other problems did not take out."
    )
    return out


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


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
