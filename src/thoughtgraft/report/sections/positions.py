"""Section: the position table: what each edit did to accuracy, answers and log-probabilities."""

from __future__ import annotations

from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import bounded, estimate, interval, is_number, number, p_value, percent, size
from thoughtgraft.report.tables import edited

ACCURACY = (
    "slot", "method", "n", "accuracy", "impact, pp [95%]", "p (Holm)", "within ±5 pp?",
    "impact given correct, pp [95%]", "MDE 80%, pp", "notes",
)  # fmt: skip
ANSWERS = (
    "slot", "method", "n", "answer changed", "donor's answer", "null", "excess, pp [95%]", "Δ log p(gold), nats [95%]",
    "KL, nats",
)  # fmt: skip
SECOND = (
    "slot", "method", "lost / gained", "impact, pp", "SE host / donor / both", "p", "p (max-T)", "primary 95%",
    "pigeonhole 95%", "equivalence p", "its power", "exact bound, pp",
)  # fmt: skip
ERRORS = ("se_host", "se_donor", "se_twoway")


def section(context: Context) -> Section:
    """Impact figure, then three tables."""
    rows = records_of(edited(context.analysis))
    if not rows:
        return Section("positions", "Positions", (Prose("The run has no edited arm to estimate."),))
    blocks: list[Block] = [*context.figure("impact"), accuracy(context), answers(context), second(context)]
    strata = sorted({key.stratum for key in context.analysis.frame.arms if key.stratum})
    if len(strata) > 1:
        shown = context.analysis.frame.primary_stratum()
        text = f"Swaps shown use the donor stratum '{shown}'; {', '.join(s for s in strata if s != shown)} are in"
        blocks.append(Prose(f"{text} analysis/positions.parquet.", "note"))
    return Section("positions", "Positions: what each thought is worth", tuple(blocks))


def accuracy(context: Context) -> Table:
    """Impact on accuracy."""
    notes, rows = Notes(), []
    for row in records_of(edited(context.analysis)):
        names = [f"impact_given_correct_{name}" for name in ("pp", "ci_low", "ci_high")]
        rows.append(
            (
                row["slots"],
                row["method"],
                size(row["n_hosts"], row["n_donors"], row["n_gen"]),
                f"{percent(row['base_acc'])} → {percent(row['acc'])}",
                bounded(row["impact_pp"], row["ci_low"], row["ci_high"], row["zero_bound_pp"]),
                p_value(row["p_holm"]) if row["slots"] != "all" else "–",
                row["verdict"],
                estimate(*(row[name] for name in names)),
                number(row["mde80_pp"]),
                notes.mark(row["note"]),
            )
        )
    reading = (
        "Impact = accuracy of the clean run − accuracy after the edit, paired by host, in percentage points (pp); "
        "positive = the edit costs accuracy. Intervals and p: two-way clustered over hosts and donors, t with the "
        "smaller number − 1 degrees of freedom; without donors clustered over hosts. Holm: over the single slots of "
        "one method. Within ±5 pp?: the verdict of the equivalence test; underpowered: this run cannot tell. Impact "
        "given correct: the same among hosts right unedited. MDE: the effect that a run like this finds with 80% "
        "power. n: hosts × distinct donors (generations)."
    )
    return Table(ACCURACY, tuple(rows), reading, frozenset({2, 3, 4, 5, 7, 8}), -1, notes.pairs, "Accuracy")


def answers(context: Context) -> Table:
    """Changed answers, adoption and log-probabilities."""
    rows = []
    for row in records_of(edited(context.analysis)):
        excess = [100 * row[n] for n in ("adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high")]
        donors = bool(row["donor_stratum"])
        rows.append(
            (
                row["slots"],
                row["method"],
                size(row["n_hosts"], row["n_donors"], row["n_gen"]),
                percent(row["changed_rate"]),
                *(
                    (percent(row["adoption_rate"]), percent(row["adoption_null"]), estimate(*excess))
                    if donors
                    else ("–",) * 3
                ),
                estimate(row["dlogp"], row["dlogp_ci_low"], row["dlogp_ci_high"], 2),
                number(row["kl"], 3),
            )
        )
    reading = (
        "Changed: share of answers that differ from the clean one. Donor's answer: share of eligible swaps answered "
        "as the donor answers; null: the same when donors are exchanged between hosts; excess = rate − null. Δ log "
        "p(gold): change of the gold answer's log-probability. KL: divergence at the answer's first token. "
        "Intervals: 95% t, clustered over hosts and donors. A dash: not defined for a method without donors. n: "
        "hosts × distinct donors (generations)."
    )
    return Table(ANSWERS, tuple(rows), reading, frozenset(range(2, 9)), title="Answers and probabilities")


def second(context: Context) -> Table:
    """Second opinions on the interval, and the test of no effect."""
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
                f"{row['lost']} / {row['gained']}",
                number(row["impact_pp"]),
                " / ".join(number(row[name]) if is_number(row[name]) else "–" for name in ERRORS),
                p_value(row["p"]),
                p_value(row["p_maxT"]),
                interval(row["ci_low"], row["ci_high"]),
                interval(other.get("ci_low"), other.get("ci_high")),
                p_value(row["tost_p"]),
                percent(row["tost_power"], 0),
                number(row["zero_bound_pp"]) if is_number(row["zero_bound_pp"]) else "–",
            )
        )
    reading = (
        "Lost / gained: generations that turned wrong, and right. SE: standard errors (pp) from hosts alone, donors "
        "alone, and both. p: unadjusted. Max-T: sign flips over hosts, adjusted over the slots, conditional on the "
        "donors drawn. Pigeonhole: hosts and donors resampled independently (2,000 times), a conservative second "
        "opinion; undefined where nothing varies. Equivalence: two one-sided t tests at ±5 pp; a small p means that "
        "the impact is smaller than that. Exact bound: where every difference is 0, the 95% upper bound of the "
        "impact. n as in the table of accuracy."
    )
    return Table(
        SECOND, tuple(rows), reading, frozenset(range(2, 12)), title="Second opinions and equivalence", folded=True
    )
