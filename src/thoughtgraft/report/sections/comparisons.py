"""Sections that compare arms: slots with each other, swap with ablation, total with direct effect, and dose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thoughtgraft.analysis.agreement import AT_LEAST_1
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Notes, Prose, Section, Table, records_of
from thoughtgraft.report.formats import count, estimate, interval, number, p_value, percent, size
from thoughtgraft.report.tables import doses, mediated


def contrasts(context: Context) -> Section:
    """Pairs of slots, for the primary swaps."""
    stratum, notes, rows = context.analysis.frame.primary_stratum(), Notes(), []
    for row in records_of(context.analysis.contrasts):
        if (row["method"], row["downstream"], row["donor_stratum"]) != ("swap", "recompute", stratum):
            continue
        shown = estimate(row["difference_pp"], row["ci_low"], row["ci_high"])
        n = size(row["n_hosts"], row["n_donors"], row["n_pairs"])
        ps = p_value(row["p"]), p_value(row["p_holm"])
        rows.append((f"{row['slot_a']} − {row['slot_b']}", shown, n, *ps, notes.mark(row["note"])))
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
        rows.append((row["slots"], row["method"], row["freeze"], n, *effects, *ps, notes.mark(row["note"])))
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
                row["slots"],
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
