"""Sentences of the conclusion, each made from one row and citing it; every outcome has its own sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thoughtgraft.analysis.zoo import ZooResult
from thoughtgraft.analysis.zoo.findings import ABSENT, ALPHA, BY_CONSTRUCTION, LARGER, OPEN, SHARED, SURVIVES
from thoughtgraft.report.document import records_of
from thoughtgraft.report.formats import count, interval, is_number, number, p_value, sentence_list

MARGIN_PP = 5.0
"""Two models whose difference lies within this many points, interval included, do equally well."""
_ENDS = {
    SURVIVES: "It survives the control",
    SHARED: "The control, whose slots carry nothing of the problem, shows it too: it is no evidence of fed-back "
    "thoughts",
    LARGER: "The control, whose slots carry nothing of the problem, shows more of it",
    ABSENT: "Not found in this model, so there is nothing to explain",
    OPEN: "Inconclusive",
}


@dataclass(frozen=True)
class Conclusion:
    """A sentence, the id of the row that it states, its verdict in a word or two, and whether nothing else could be."""

    text: str
    row: str
    verdict: str
    by_construction: bool = False


def signed(value: Any, digits: int = 1) -> str:
    """A difference with its sign; undefined in a word."""
    shown = number(value, digits)
    return f"+{shown}" if is_number(value) and round(float(value), digits) > 0 else shown


def estimate(value: Any, low: Any, high: Any) -> str:
    """A difference in points with its interval."""
    return f"{signed(value)} pp {interval(low, high) if is_number(low) else '[interval undefined]'}"


def against_controls(result: ZooResult, problems: str) -> list[Conclusion]:
    """Each model that thinks against each that does not, and those that think against each other, on some problems."""
    thinks = {model.name: model.thinks for model in result.models}
    found = []
    for row in records_of(result.tables["pairs"]):
        if row["problems"] != problems or not (thinks[row["a"]] or thinks[row["b"]]):
            continue
        # The model that thinks comes first in the sentence.
        found.append(_compared(row if thinks[row["a"]] else _turned(row)))
    return found


def surviving(result: ZooResult) -> list[Conclusion]:
    """What each finding about thoughts comes to beside the pause control."""
    return [_finding(row) for row in records_of(result.tables["findings"])]


def hardest(result: ZooResult) -> str | None:
    """The group of problems with the most steps; None where all have as many."""
    groups = list(dict.fromkeys(result.tables["pairs"].problems))
    return str(groups[-1]) if len(groups) > 1 else None


def in_short(found: Sequence[Conclusion]) -> str:
    """The verdicts with the rows that came to them."""
    rows: dict[str, list[str]] = {}
    for conclusion in found:
        how = ", as by construction it must," if conclusion.by_construction else ""
        rows.setdefault(conclusion.verdict + how, []).append(conclusion.row)
    return "In short: " + "; ".join(f"{verdict} in {sentence_list(cited)}" for verdict, cited in rows.items()) + "."


def _turned(row: dict[str, Any]) -> dict[str, Any]:
    turned = row | {"a": row["b"], "b": row["a"], "difference_pp": -row["difference_pp"]}
    return turned | {"ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}


def _compared(row: dict[str, Any]) -> Conclusion:
    low, high = row["ci_low"], row["ci_high"]
    within = low > -MARGIN_PP and high < MARGIN_PP
    if row["p_holm"] < ALPHA:
        verdict = "MORE" if row["difference_pp"] > 0 else "FEWER"
        words = f"answers {verdict.lower()} problems right{f', by less than {MARGIN_PP:g} pp,' if within else ''} than"
    elif within:
        verdict, words = "AS WELL", f"does as well, within {MARGIN_PP:g} pp, as"
    else:
        verdict, words = OPEN, "cannot be told apart (inconclusive) from"
    where = "" if row["problems"] == "all" else f" of {row['problems']}"
    text = (
        f"{row['a']} {words} {row['b']}: {estimate(row['difference_pp'], low, high)} on {count(row['n'])} "
        f"problems{where}, exact McNemar p {p_value(row['p'])}, after Holm {p_value(row['p_holm'])} ({row['id']})."
    )
    return Conclusion(text, row["id"], verdict)


def _finding(row: dict[str, Any]) -> Conclusion:
    end = _ENDS[row["verdict"]]
    forced = row["note"].startswith(BY_CONSTRUCTION) and row["verdict"] == SURVIVES
    if forced:
        end += ", which by construction cannot show it"
    name = row["finding"][0].upper() + row["finding"][1:]
    theirs = estimate(row["in_control"], row["control_low"], row["control_high"])
    if row["in_control"] == 0 and not is_number(row["control_low"]):
        theirs = "0"
    text = (
        f"{name}: {estimate(row['own'], row['own_low'], row['own_high'])} in {row['model']}, {theirs} in "
        f"{row['control']}, difference {estimate(row['difference'], row['ci_low'], row['ci_high'])}, p "
        f"{p_value(row['p'])}, after Holm {p_value(row['p_holm'])} ({row['id']}). {end}."
    )
    return Conclusion(text, row["id"], row["verdict"], forced)
