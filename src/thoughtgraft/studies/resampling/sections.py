"""Sections of effects: positions, comparisons, adoption, problems, thoughts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thoughtgraft.edits.site import slots_label
from thoughtgraft.effects.comparisons import AT_LEAST_1
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.records.spec import DECODED_FILE
from thoughtgraft.report.document import (
    Block,
    Notes,
    Prose,
    Section,
    Table,
    count,
    estimate,
    interval,
    is_number,
    judged,
    number,
    p_value,
    percent,
    plural,
    records_of,
    size,
    visible,
)
from thoughtgraft.studies.resampling.context import Context, Pair, chosen_pairs
from thoughtgraft.studies.resampling.figures import doses, edited, mediated

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


def positions_section(context: Context) -> Section:
    """Impact figure, then the tables."""
    rows = records_of(edited(context.analysis))
    if not rows:
        return Section("positions", "Positions", (Prose("The run has no edited arm to estimate."),))
    made = (accuracy(context), given_correct(context), answers(context), second(context))
    blocks: list[Block] = [*context.figure("impact"), *made]
    strata = sorted({key.donors for key in context.analysis.frame.arms if key.donors})
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
        rows.append((row["label"], row["method"], count(row["n_hosts_right"]), *shown))
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
    boot = {ArmKey.of_row(row): row for row in records_of(context.analysis.bootstrap)}
    rows = []
    for row in records_of(edited(context.analysis)):
        other = boot.get(ArmKey.of_row(row), {})
        rows.append(
            (
                row["label"],
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
    return row["label"], row["method"], size(row["n_hosts"], row["n_donors"], row["n_gen"])


def _said(context: Context, word: str) -> str:
    """A verdict; none beside the words of an older rule."""
    return str(word) if context.old is None else "–"


def contrasts(context: Context) -> Section:
    """Pairs of slots, for the primary swaps."""
    primary, notes, rows = context.analysis.frame.primary, Notes(), []
    for row in records_of(context.analysis.contrasts):
        if ArmKey.of_row(row | {"slots": (row["slot_a"],)}).family != primary:
            continue
        shown = estimate(row["difference_pp"], row["ci_low"], row["ci_high"])
        n = size(row["n_hosts"], row["n_donors"], row["n_pairs"])
        ps = p_value(row["p"]), p_value(row["p_holm"])
        rows.append((row["label"], shown, n, *ps, notes.mark(row["note"])))
    if not rows:
        text = "Not shown: it needs swaps at two single slots or more, which this run does not have."
        return Section("contrasts", "Contrasts between slots", (Prose(text, "note"),))
    reading = (
        "Impact of the first slot − impact of the second, on the same host-donor pairs; positive = the first matters "
        f"more. 95% interval, clustered over hosts and donors; Holm over the {len(rows)} pairs of slots. n: hosts × "
        "distinct donors (host-donor pairs)."
    )
    header = ("slots", "difference, pp [95%]", "n", "p", "p (Holm)", "notes")
    table = Table(header, tuple(rows), reading, frozenset({1, 2, 3, 4}), footnotes=notes.pairs)
    return Section("contrasts", "Contrasts between slots", (table,))


def agreement(context: Context) -> Section:
    """Swap against the ablations."""
    notes, rows = Notes(), []
    for row in records_of(context.analysis.agreement):
        rows.append(
            (
                f"{row['method_a']} and {row['method_b']}",
                f"{count(row['n_slots'])} slots, {count(row['n_hosts'])} × {count(row['n_donors'])}",
                estimate(row["r"], row["r_low"], row["r_high"], 2),
                estimate(row["rho"], row["rho_low"], row["rho_high"], 2),
                f"{number(row['reliability_a'], 2)} / {number(row['reliability_b'], 2)}",
                number(row["ceiling"], 2),
                _disattenuated(row),
                p_value(row["interaction_p"]),
                p_value(row["p_exact_exploratory"]),
                str(row["verdict"]) if context.old is None else "–",
                notes.mark(row["note"]),
            )
        )
    blocks: list[Block] = [*context.figure("agreement")]
    if not rows:
        return Section("agreement", "Agreement of swap and ablation", tuple(blocks))
    first, rule = records_of(context.analysis.agreement)[0], context.analysis.decision.rule
    reading = (
        f"Do two methods tell one story of the slots? r, rho: over slots, {rule.level} intervals from resampling hosts "
        "jointly for both methods and, independently, donors. Reliability: the share of a mean profile's spread over "
        "slots that is not the sampling of hosts and donors; ceiling: the largest r that profiles so reliable can "
        "show. Disattenuated r: freed of sampling noise, and cut at 1; its interval gives the verdict, with the test "
        f"of the position × method interaction: above {rule.agreement_bar:g} the order is shared, and an interaction p "
        f"below {rule.alpha:g} says that the sizes differ. Slots whose effect is 0 by construction are left out. n: "
        f"slots, hosts × donors. With {count(first['n_slots'])} slots, |r| must exceed "
        f"{number(first['critical_r'], 3)} to be significant and a true r of .5 is found with power "
        f"{percent(first['power_at_half'], 0)}: so no p-value is reported for r; the exact one over all orders is "
        "exploratory."
    )
    header = (
        "methods", "n", "r [interval]", "rho [interval]", "reliabilities", "ceiling", "disattenuated r [interval]",
        "interaction p",
        "exact p (exploratory)", "verdict", "notes",
    )  # fmt: skip
    blocks.append(Table(header, tuple(rows), reading, frozenset(range(1, 9)), 9, notes.pairs))
    return Section("agreement", "Agreement of swap and ablation", tuple(blocks))


def _disattenuated(row: Mapping[str, Any]) -> str:
    ends = row["r_dis_low"], row["r_dis_high"]
    if AT_LEAST_1 in row["note"]:
        return f"at least 1 {interval(*ends, 2)}"
    return estimate(row["r_disattenuated"], *ends, 2)


def mediation(context: Context) -> Section:
    """Direct and indirect effects."""
    notes, rows = Notes(), []
    for row in mediated(context.analysis):
        effects = [
            estimate(*(row[f"{name}_{x}"] for x in ("pp", "low", "high"))) for name in ("total", "direct", "indirect")
        ]
        if row["by_construction"]:
            effects[2] = "0 by construction"
        n = size(row["n_hosts"], row["n_donors"], row["n_pairs"])
        ps = p_value(row["indirect_p"]), p_value(row["indirect_p_holm"])
        rows.append((row["label"], row["method"], row["freeze"], n, *effects, *ps, notes.mark(row["note"])))
    blocks: list[Block] = [*context.figure("mediation")]
    if rows:
        reading = (
            "Total: later thoughts recomputed. Direct: the same edit with later thoughts held at the host's clean "
            "ones. Indirect = total − direct, on the same pairs: what the edit does through later thoughts. All in "
            "pp with 95% intervals, clustered over hosts and donors; p: indirect effect, Holm over the single "
            "slots. n: hosts × distinct donors (pairs)."
        )
        header = ("slots", "method", "freeze", "n", "total", "direct", "indirect", "p", "p (Holm)", "notes")
        blocks.append(Table(header, tuple(rows), reading, frozenset(range(3, 9)), footnotes=notes.pairs))
    return Section("mediation", "Direct and indirect effects", tuple(blocks))


def dose(context: Context) -> Section:
    """Accuracy against the number of edited slots."""
    notes, rows = Notes(), []
    for row in doses(context.analysis):
        rows.append(
            (
                row["label"],
                row["method"],
                row["series"],
                size(row["n_hosts"], None, row["n_gen"]),
                percent(row["acc"]),
                estimate(row["impact_pp"], row["ci_low"], row["ci_high"]),
                estimate(row["step_pp"], row["step_low"], row["step_high"]),
                notes.mark(row["note"]),
            )
        )
    blocks: list[Block] = [*context.figure("dose")]
    if rows:
        reading = (
            "Accuracy when several thoughts in a row are edited. Step: what the last added slot costs beyond the "
            "others, on the same pairs. 95% intervals, clustered over hosts and donors; exploratory. n: hosts "
            "(generations)."
        )
        header = (
            "slots",
            "method",
            "series",
            "n",
            "accuracy",
            "impact, pp [95%]",
            "step, pp [95%]",
            "notes",
        )
        blocks.append(Table(header, tuple(rows), reading, frozenset({3, 4, 5, 6}), footnotes=notes.pairs))
    return Section("dose", "Dose: how many thoughts are edited", tuple(blocks))


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
                row["label"],
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


SHOWN = 5
HEADER = (
    "problem",
    "question",
    "gold",
    "clean answer",
    "answer changed",
    "sensitivity, % [95%]",
    "impact, pp",
    "most sensitive to",
)


def problems_section(context: Context) -> Section:
    """Heat map, distribution, and the two ends of the ranking."""
    found = context.analysis.per_problem
    if not len(found.table):
        return Section("problems", "Problem by problem", (Prose(f"Not shown: {found.note}.", "note"),))
    rows = records_of(found.table)
    shown = min(SHOWN, (len(rows) + 1) // 2)
    reliability = (
        f"The ranking's reliability (split-half over donors, stepped up) is {number(found.reliability, 2)}: "
        "1 = another draw of donors would rank the problems alike, 0 = the ranking is noise."
        if found.reliability == found.reliability
        else f"The ranking's reliability is undefined: {found.note}."
    )
    blocks: list[Block] = [*context.figure("problems_by_slot"), *context.figure("distribution"), Prose(reliability)]
    if rows[0]["note"]:
        blocks.append(Prose(f"Note: {rows[0]['note']}.", "note"))
    blocks.append(_table(context, rows[:shown], f"The {plural(shown, 'problem')} most sensitive to their thoughts"))
    rest = rows[::-1][: min(shown, len(rows) - shown)]
    if rest:
        blocks.append(_table(context, rest, f"The {plural(len(rest), 'problem')} least sensitive"))
    return Section("problems", "Problem by problem", tuple(blocks))


def _table(context: Context, rows: list[dict[str, Any]], title: str) -> Table:
    base = context.run.records().drop_duplicates("problem_id").set_index("problem_id")
    cells = []
    for row in rows:
        known = base.loc[row["problem_id"]]
        clean = "none parsed" if known.get("base_pred") is None else str(known.get("base_pred"))
        mark = "" if row["base_correct"] else " (wrong)"
        cells.append(
            (
                str(row["problem_id"]),
                context.run.question(str(row["problem_id"])),
                str(known.get("gold")),
                clean + mark,
                f"{row['changed']} of {row['n_gen']} ({percent(row['rate'], 0)})",
                estimate(100 * row["sensitivity"], 100 * row["ci_low"], 100 * row["ci_high"], 0),
                number(row["impact_pp"]),
                "none" if row["most_sensitive_slot"] is None else slots_label((row["most_sensitive_slot"],)),
            )
        )
    reading = (
        "Share of single-slot swaps that changed the answer, and the sensitivity: that share shrunken towards the "
        "other problems' (beta-binomial), with its 95% credible interval. Extremes of a ranking are partly luck; the "
        "interval and the reliability say how much. n in the table."
    )
    return Table(HEADER, tuple(cells), reading, frozenset({2, 3, 4, 5, 6}), title=title)


TOP = 3


def thoughts_section(context: Context) -> Section:
    """Figure of a few problems, then pairs of host and donor slot by slot."""
    blocks: list[Block] = [*context.figure("decoded_thoughts")]
    pairs = chosen_pairs(context.run, context.analysis)
    if context.run.holds(DECODED_FILE) and pairs:
        text = (
            f"Pairs below are swaps at {slots_label((pairs[0].slot,))}, the single slot of largest impact; each is the "
            "first of its kind by id, among hosts that are right unedited. They illustrate; they are not evidence."
        )
        blocks.append(Prose(text))
        blocks += [_pair(context, pair) for pair in pairs]
    elif not pairs:
        blocks.append(
            Prose("No pairs to show: the run has no single-slot swaps on hosts that are right unedited.", "note")
        )
    return Section("thoughts", "What the thoughts decode to", tuple(blocks))


def _pair(context: Context, pair: Pair) -> Table:
    record, place = pair.record, slots_label((pair.slot,))
    host, donor = str(record["problem_id"]), str(record["donor_id"])
    rows = []
    for slot in range(context.run.spec.num_latents):
        mark = "  ← swapped" if slot == pair.slot else ""
        rows.append((f"{slots_label((slot,))}{mark}", _top(context, host, slot), _top(context, donor, slot)))
    reading = (
        f"Host {host}: {context.run.question(host, 260)} Gold {record['gold']}, clean answer {record['base_pred']}. "
        f"Donor {donor}: {context.run.question(donor, 260)} Its clean answer {record['donor_pred']}. With the donor's "
        f"{place} the host answers {record['pred'] or 'nothing that parses'}. Cells: the {TOP} most probable "
        "tokens of each clean thought."
    )
    title = f"{pair.why[0].upper()}{pair.why[1:]}: {record['base_pred']} → {record['pred'] or 'nothing'}"
    return Table(("slot", "host's thought", "donor's thought"), tuple(rows), reading, title=title)


def _top(context: Context, problem_id: str, slot: int) -> str:
    if not context.run.holds(DECODED_FILE):
        return "not recorded"
    decoded = context.run.decoded()
    part = (
        decoded[(decoded.problem_id.astype(str) == problem_id) & (decoded.slot == slot)].sort_values("rank").head(TOP)
    )
    shown = [f"{visible(str(token))} ({percent(prob, 0)})" for token, prob in zip(part.token, part.prob, strict=True)]
    return ", ".join(shown) or "not recorded"
