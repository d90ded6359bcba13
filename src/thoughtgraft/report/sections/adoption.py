"""Section: does the host take over what the donor's thought says: its answer, or the value of one of its steps?"""

from __future__ import annotations

from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import count, estimate, judged, p_value, percent, size


def section(context: Context) -> Section:
    """Figure of answers adopted, then the table of step values."""
    text = (
        "Adoption: the host, with a donor's thought grafted in, gives the donor's answer. Chance agreement is "
        "counted by exchanging donors between hosts. The rates are in the position section's second table."
    )
    blocks: list[Block] = [Prose(text), *context.figure("adoption")]
    blocks.append(_steps(context))
    return Section("adoption", "Adoption of the donor's content", tuple(blocks))


def _steps(context: Context) -> Block:
    table = context.analysis.counterfactual
    if not len(table):
        reason = (
            "the report was not given the problems with their steps, or the problems have none"
            if len(context.analysis.positions)
            else "the run has no swaps"
        )
        return Prose(f"Not shown: adoption of single step values (counterfactual answers); {reason}.", "note")
    notes, rows, margin = Notes(), [], context.analysis.decision.rule.margin_pp
    for row in records_of(table):
        *excess, sim_low, sim_high = (100 * row[n] for n in ("excess", "ci_low", "ci_high", "sim_low", "sim_high"))
        gone = " / ".join(count(row[f"n_{x}"]) for x in ("no_step", "undefined", "outside_vocabulary", "same_answer"))
        rows.append(
            (
                row["slots"],
                str(row["step"]),
                size(row["n_hosts"], row["n_donors"], row["n_gen"]),
                count(row["n_eligible"]),
                percent(row["rate"]),
                percent(row["null"]),
                estimate(*excess),
                judged(sim_low, sim_high, margin),
                str(row["verdict"]) if context.old is None else "–",
                p_value(row["p_holm"]),
                gone,
                notes.mark(row["note"]),
            )
        )
    reading = (
        "Which thought holds which step? Counterfactual answer: what the host would answer if its step had the value "
        "of the donor's step; steps are numbered from 0, as slots are. Rate: share of eligible swaps answered so; "
        "excess over donors exchanged between hosts, pp, with its interval alone. Simultaneous: over every single slot "
        "× every step (all slots: over the steps); the verdict is where it lies beside 0 and the margin. Not eligible, "
        "in order: no such step / not a whole positive number / outside the model's numbers / equal to the host's own "
        "answer. n: hosts × distinct donors (generations)."
    )
    header = (
        "slot", "step", "n", "eligible", "rate", "null", "excess, pp [alone]", "simultaneous", "verdict", "p (Holm)",
        "not eligible", "notes",
    )  # fmt: skip
    return Table(
        header, tuple(rows), reading, frozenset({2, 3, 4, 5, 6, 7, 9}), 8, notes.pairs, "Values of single steps"
    )
