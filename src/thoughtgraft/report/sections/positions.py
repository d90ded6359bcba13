"""Section: the position table: what each edit did to accuracy, answers and log-probabilities."""

from __future__ import annotations

from typing import Any

from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import (
    count,
    estimate,
    interval,
    is_number,
    judged,
    number,
    p_value,
    percent,
    size,
)
from thoughtgraft.report.tables import edited

ACCURACY = (
    "slot", "method", "n", "accuracy", "impact, pp [alone]", "simultaneous", "verdict", "p (Holm)", "MDE 80%, pp",
    "power within", "notes",
)  # fmt: skip
GIVEN = ("slot", "method", "n", "impact given correct, pp [alone]", "simultaneous", "verdict")
ANSWERS = (
    "slot", "method", "n", "answer changed", "donor's answer", "null", "excess, pp [alone]", "excess, simultaneous",
    "verdict", "Δ log p(gold), nats [alone]", "Δ, simultaneous", "KL, nats",
)  # fmt: skip
SECOND = (
    "slot", "method", "lost / gained", "impact, pp", "SE host / donor / both", "p", "p (max-T)", "interval alone",
    "its method", "pigeonhole",
)  # fmt: skip
ERRORS = ("se_host", "se_donor", "se_twoway")
N = "n: hosts × distinct donors (generations)."


def section(context: Context) -> Section:
    """Impact figure, then the tables."""
    rows = records_of(edited(context.analysis))
    if not rows:
        return Section("positions", "Positions", (Prose("The run has no edited arm to estimate."),))
    made = (accuracy(context), given_correct(context), answers(context), second(context))
    blocks: list[Block] = [*context.figure("impact"), *made]
    strata = sorted({key.stratum for key in context.analysis.frame.arms if key.stratum})
    if len(strata) > 1:
        shown = context.analysis.frame.primary_stratum()
        text = f"Swaps shown use the donor stratum '{shown}'; {', '.join(s for s in strata if s != shown)} are in"
        blocks.append(Prose(f"{text} analysis/positions.parquet.", "note"))
    return Section("positions", "Positions: what each thought is worth", tuple(blocks))


def accuracy(context: Context) -> Table:
    """Impact on accuracy."""
    notes, rows, rule = Notes(), [], context.analysis.decision.rule
    for row in records_of(edited(context.analysis)):
        rows.append(
            (
                *_place(row),
                f"{percent(row['base_acc'])} → {percent(row['acc'])}",
                estimate(row["impact_pp"], row["ci_low"], row["ci_high"]),
                judged(row["sim_low"], row["sim_high"], rule.margin_pp),
                _said(context, row["verdict"]),
                p_value(row["p_holm"]),
                number(row["mde80_pp"]),
                percent(row["power_within"], 0),
                notes.mark(row["note"]),
            )
        )
    reading = (
        "Impact = accuracy of the clean run − accuracy after the edit, paired by host, in percentage points (pp); "
        f"positive = the edit costs accuracy. Alone: the {rule.level} interval, clustered over hosts and donors "
        "(without donors over hosts): two-way t, or that of shares where few hosts differ, or exact where none does. "
        "Simultaneous: the intervals of one method's single slots hold all together; all slots stand by themselves. "
        f"Verdict: where the simultaneous interval lies beside 0 and {rule.margin_pp:g} pp. Holm: p of no impact over "
        "the same family. MDE: the impact that a run like this finds with 80% power, slot by slot. Power within: the "
        f"chance that it finds an impact of 0 NEGLIGIBLE. {N}"
    )
    numeric = frozenset({2, 3, 4, 5, 7, 8, 9})
    return Table(ACCURACY, tuple(rows), reading, numeric, 6, notes.pairs, "Accuracy")


def given_correct(context: Context) -> Table:
    """Impact among hosts that are right unedited."""
    rows, rule = [], context.analysis.decision.rule
    for row in records_of(edited(context.analysis)):
        value, low, high, sim_low, sim_high = (
            row[f"impact_given_correct_{x}"] for x in ("pp", "ci_low", "ci_high", "sim_low", "sim_high")
        )
        said = _said(context, row["impact_given_correct_verdict"])
        shown = (estimate(value, low, high), judged(sim_low, sim_high, rule.margin_pp), said)
        rows.append((row["slots"], row["method"], count(row["n_hosts_right"]), *shown))
    reading = (
        "The share of answers lost among hosts that are right unedited: it cannot be negative. Intervals and verdict "
        "as above. n: hosts that are right."
    )
    return Table(GIVEN, tuple(rows), reading, frozenset({2, 3, 4}), 5, title="Accuracy of hosts that are right")


def answers(context: Context) -> Table:
    """Changed answers, adoption and log-probabilities."""
    rows, rule = [], context.analysis.decision.rule
    for row in records_of(edited(context.analysis)):
        value, low, high, sim_low, sim_high = (
            100 * row[f"adoption_excess{x}"] for x in ("", "_ci_low", "_ci_high", "_sim_low", "_sim_high")
        )
        adopted = (
            (
                percent(row["adoption_rate"]),
                percent(row["adoption_null"]),
                estimate(value, low, high),
                judged(sim_low, sim_high, rule.margin_pp),
                _said(context, row["adoption_excess_verdict"]),
            )
            if row["donor_stratum"]
            else ("–",) * 5
        )
        rows.append(
            (
                *_place(row),
                percent(row["changed_rate"]),
                *adopted,
                estimate(row["dlogp"], row["dlogp_ci_low"], row["dlogp_ci_high"], 2),
                interval(row["dlogp_sim_low"], row["dlogp_sim_high"], 2),
                number(row["kl"], 3),
            )
        )
    reading = (
        "Changed: share of answers that differ from the clean one. Donor's answer: share of eligible swaps answered "
        "as the donor answers; null: the same when donors are exchanged between hosts; excess = rate − null. Δ log "
        "p(gold): change of the gold answer's log-probability. KL: divergence at the answer's first token. Intervals "
        f"and verdict as above. A dash: not defined for a method without donors. {N}"
    )
    numeric = frozenset({2, 3, 4, 5, 6, 7, 9, 10, 11})
    return Table(ANSWERS, tuple(rows), reading, numeric, 8, title="Answers and probabilities")


def second(context: Context) -> Table:
    """Second opinions on the interval alone."""
    boot = {
        (row["method"], row["slots"], row["downstream"], row["donor_stratum"]): row
        for row in records_of(context.analysis.bootstrap)
    }
    rows = []
    for row in records_of(edited(context.analysis)):
        other = boot.get((row["method"], row["slots"], row["downstream"], row["donor_stratum"]), {})
        rows.append(
            (
                row["slots"],
                row["method"],
                f"{count(row['lost'])} / {count(row['gained'])}",
                number(row["impact_pp"]),
                " / ".join(number(row[name]) if is_number(row[name]) else "–" for name in ERRORS),
                p_value(row["p"]),
                p_value(row["p_maxT"]) if is_number(row["p_maxT"]) else "–",
                interval(row["ci_low"], row["ci_high"]),
                row["interval"] or "–",
                interval(other.get("ci_low"), other.get("ci_high")),
            )
        )
    reading = (
        "Lost / gained: generations that turned wrong, and right. SE: standard errors (pp) from hosts alone, donors "
        "alone, and both. p: unadjusted. Max-T: sign flips over hosts, adjusted over the slots, conditional on the "
        "donors drawn. Pigeonhole: 95%, hosts and donors resampled independently (2,000 times), a conservative second "
        "opinion; undefined where nothing varies. None of these decides a verdict. n as in the table of accuracy."
    )
    return Table(SECOND, tuple(rows), reading, frozenset({2, 3, 4, 5, 6, 7, 9}), title="Second opinions", folded=True)


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["slots"], row["method"], size(row["n_hosts"], row["n_donors"], row["n_gen"])


def _said(context: Context, word: str) -> str:
    """A verdict; none beside the words of an older rule."""
    return str(word) if context.old is None else "–"
