"""Sentences of the conclusion, each made from one row and citing it; every outcome has its own sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thoughtgraft.effects.gates import RULE
from thoughtgraft.report.document import count, interval, is_number, judged, number, p_value, records_of, sentence_list
from thoughtgraft.stats.verdicts import Verdict, verdict
from thoughtgraft.studies.zoo.analysis import ZooResult

MARGIN_PP = RULE.margin_pp
"""What differences are held against beside 0, in points."""
_ORDER = {
    Verdict.ABOVE: "answers more problems right, by more than {margin}, than",
    Verdict.PRESENT: "answers more problems right than",
    Verdict.SMALL: "answers more problems right, by less than {margin}, than",
    Verdict.NEGLIGIBLE: "does as well, within {margin}, as",
    Verdict.OPPOSITE: "answers fewer problems right than",
    Verdict.UNRESOLVED: "cannot be told apart from",
    Verdict.UNDEFINED: "has no interval beside",
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


def with_interval(value: Any, low: Any, high: Any) -> str:
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
    ends = {f"{kind}_{end}": -row[f"{kind}_{other}"] for kind in ("ci", "sim") for end, other in _SIDES}
    # The word of an interval that is turned round; one that is undefined, or of too few problems, stays.
    said = verdict(ends["sim_low"], ends["sim_high"], MARGIN_PP)
    kept = row["verdict"] == Verdict.UNRESOLVED or said is Verdict.UNDEFINED
    return turned | ends | {"verdict": row["verdict"] if kept else said}


_SIDES = (("low", "high"), ("high", "low"))


def _compared(row: dict[str, Any]) -> Conclusion:
    said = Verdict(row["verdict"])
    words = _ORDER[said].format(margin=f"{MARGIN_PP:g} pp")
    where = "" if row["problems"] == "all" else f" of {row['problems']}"
    text = (
        f"{row['a']} {words} {row['b']}: {with_interval(row['difference_pp'], row['ci_low'], row['ci_high'])}, "
        f"simultaneous {judged(row['sim_low'], row['sim_high'], MARGIN_PP)}, {said}, on {count(row['n'])} "
        f"problems{where}; exact McNemar p {p_value(row['p'])}, after Holm {p_value(row['p_holm'])} ({row['id']})."
    )
    return Conclusion(text, row["id"], str(said))


def _finding(row: dict[str, Any]) -> Conclusion:
    own, control, gap = (Verdict(row[name]) for name in ("own_verdict", "control_verdict", "verdict"))
    short, end = _beside(own, control, gap)
    by_construction = control is Verdict.BY_CONSTRUCTION
    forced = short == SURVIVES and by_construction
    if forced:
        end += ", which by construction cannot show it"
    name = row["finding"][0].upper() + row["finding"][1:]
    theirs = "0" if by_construction else with_interval(row["in_control"], row["control_low"], row["control_high"])
    text = (
        f"{name}: {with_interval(row['own'], row['own_low'], row['own_high'])} in {row['model']}, {own}; {theirs} in "
        f"{row['control']}, {control}; difference {with_interval(row['difference'], row['ci_low'], row['ci_high'])}, "
        f"{gap} ({row['id']}). {end}."
    )
    return Conclusion(text, row["id"], short, forced)


SURVIVES = "it survives the control"


def _beside(own: Verdict, control: Verdict, gap: Verdict) -> tuple[str, str]:
    """What a finding comes to beside the control, shortly and in full, from the three verdicts and nothing else."""
    if not _shown(own):
        return "it is not shown in the model", "Not shown in this model, so there is nothing to explain"
    if _shown(gap):
        return SURVIVES, "It survives the control"
    if gap is Verdict.OPPOSITE:
        return "the control shows more of it", "The control, whose slots carry nothing of the problem, shows more of it"
    if gap is Verdict.NEGLIGIBLE:
        much = f"The control, whose slots carry nothing of the problem, shows as much of it, within {MARGIN_PP:g} pp"
        return "the control shows as much of it", f"{much}: it is no evidence of fed-back thoughts"
    if _shown(control):
        too = "The control, whose slots carry nothing of the problem, shows it too; whether less of it is open"
        return "the control shows it too", too
    return "it is open whether the control shows as much", "Whether the control shows as much is open"


def _shown(word: Verdict) -> bool:
    return word in (Verdict.ABOVE, Verdict.PRESENT, Verdict.SMALL)
