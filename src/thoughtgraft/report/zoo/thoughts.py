"""Sections of a zoo's page on the thoughts themselves: what editing and reading them shows, and their certificates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thoughtgraft.analysis.lens_hits import ANY
from thoughtgraft.analysis.zoo import ZooResult
from thoughtgraft.analysis.zoo.findings import WORDS
from thoughtgraft.report.document import Block, Bullets, Figures, Prose, Section, Table, records_of
from thoughtgraft.report.formats import (
    count,
    estimate,
    is_number,
    judged,
    p_value,
    percent,
    size,
)
from thoughtgraft.report.zoo.conclusions import MARGIN_PP
from thoughtgraft.report.zoo.figures import NO_SLOTS


def resampling(result: ZooResult, figures: Figures) -> Section:
    """Impact of each slot and all, and adoption."""
    header = (
        "row",
        "model",
        "edit",
        "thoughts",
        "hosts × donors (n)",
        "accuracy lost, pp [alone]",
        "simultaneous",
        "verdict",
        "adopted beyond chance, pp",
        "p",
        "p, Holm",
    )
    rows = tuple(
        (
            r["id"],
            r["model"],
            r["method"],
            r["slots"],
            size(r["n_hosts"], r["n_donors"], r["n_gen"]),
            estimate(r["impact_pp"], r["ci_low"], r["ci_high"]),
            judged(r["sim_low"], r["sim_high"], MARGIN_PP),
            str(r["verdict"]),
            _adopted(r),
            p_value(r["p"]),
            p_value(r["p_holm"]),
        )
        for r in records_of(result.tables["positions"])
    )
    reading = (
        "Clean minus edited accuracy on the same hosts, later thoughts recomputed; 95% intervals clustered over hosts "
        "and donors, alone and for the single slots of one model and edit together; the verdict is where the latter "
        f"lies beside 0 and {MARGIN_PP:g} pp. Adoption needs a donor. Holm over the same slots. A model cannot lose "
        "more than it answers right."
    )
    said = [
        f"{m.name}: its vectors are the same for every problem, so swap and mean change nothing by construction; "
        "its slots carry nothing of the problem."
        for m in result.models
        if m.method == "pause"
    ]
    said += [f"{m.name}: {NO_SLOTS.split(':')[0]}, since {m.why_no_slots}." for m in result.models if not m.num_latents]
    blocks: list[Block] = [figures["impact"], *([Bullets(tuple(said))] if said else [])]
    return Section("resampling", "Resampling", (*blocks, Table(header, rows, reading, tones=7)))


def reading(result: ZooResult, figures: Figures) -> Section:
    """Lens and probes."""
    lens_rows = tuple(
        (
            r["id"],
            r["model"],
            r["target"],
            "any slot" if r["slots"] == ANY else r["slots"],
            count(r["n"]),
            percent(r["rate"]),
            percent(r["null_rate"]),
            estimate(100 * r["excess"], 100 * r["ci_low"], 100 * r["ci_high"]),
            p_value(r["p"]),
        )
        for r in records_of(result.tables["lens"])
    )
    probe_rows = tuple(
        (
            r["id"],
            r["model"],
            WORDS.get(r["target"], r["target"]),
            f"hidden[{r['state']}]",
            count(r["n"]),
            estimate(100 * r["score"], 100 * r["ci_low"], 100 * r["ci_high"]),
            percent(r["text"]),
            estimate(100 * r["gain"], 100 * r["gain_low"], 100 * r["gain_high"]),
            p_value(r["p_maxT"]),
        )
        for r in records_of(result.tables["probes"])
    )
    lens_header = ("row", "model", "value", "slot", "n", "decoded", "of others", "excess, pp", "p")
    probe_header = (
        "row",
        "model",
        "label",
        "state",
        "n",
        "balanced accuracy, %",
        "from the words",
        "gain, pp",
        "p, max-T",
    )
    blocks: list[Block] = [
        Prose(
            "In a pause model these states saw the problem through attention, although nothing is fed back: what can "
            "be read there needs no thought."
        ),
        figures["lens"],
        Table(
            lens_header,
            lens_rows,
            "The most probable token through the unembedding, against the values of other problems with as many steps; "
            "95% t intervals over problems; p of no excess, unadjusted.",
            frozenset({4, 5, 6}),
            title="Lens",
        ),
        figures["probes"],
        Table(
            probe_header,
            probe_rows,
            "Linear probe, 95% corrected resampled t intervals; gain over a text classifier on the same folds; p of "
            "labels that cannot be read, by permutation, adjusted over the model's states.",
            frozenset({4, 6}),
            title="Probes",
        ),
    ]
    return Section("reading", "Lens and probes", (*blocks, *(Prose(note, "note") for note in result.notes)))


def findings(result: ZooResult) -> Section:
    """What the conclusion's second part rests on."""
    header = (
        "row", "finding", "model", "own, pp [alone]", "own verdict", "in the control, pp [alone]", "control's verdict",
        "difference, pp [alone]", "simultaneous", "verdict", "p", "p, Holm",
    )  # fmt: skip
    rows = tuple(
        (
            r["id"],
            r["finding"],
            r["model"],
            estimate(r["own"], r["own_low"], r["own_high"]),
            str(r["own_verdict"]),
            estimate(r["in_control"], r["control_low"], r["control_high"]),
            str(r["control_verdict"]),
            estimate(r["difference"], r["ci_low"], r["ci_high"]),
            judged(r["sim_low"], r["sim_high"], MARGIN_PP),
            str(r["verdict"]),
            p_value(r["p"]),
            p_value(r["p_holm"]),
        )
        for r in records_of(result.tables["findings"])
    )
    table = Table(
        header,
        rows,
        "Own effect, the same in the pause control, and the difference paired by problem (by fold for probes), each "
        "with its 95% interval alone. Verdicts are of simultaneous intervals, which hold together over all estimates "
        f"of this table (Bonferroni), beside 0 and {MARGIN_PP:g} pp; that of the difference is shown, the others are "
        "in tables/findings.csv. p of no difference, Holm over all rows; it decides nothing.",
        tones=9,
    )
    return Section("findings", "Findings beside the control", (table,))


def certificates(result: ZooResult) -> Section:
    """What was checked of each model."""
    rows = tuple(
        (
            r["id"],
            r["model"],
            r["outcome"],
            f"{r['passed']} of {r['checks']}",
            r["failed"] or "none",
            r["notes"] or "none",
        )
        for r in records_of(result.tables["checks"])
    )
    header = ("row", "model", "outcome", "checks passed", "failed", "notes")
    reading = "Checks of model, protocol and engine; a model that is fed nothing has no slot that could be checked."
    return Section("certificates", "Certificates", (Table(header, rows, reading, tones=2),))


def _adopted(row: Mapping[str, Any]) -> str:
    if not is_number(row["adoption_excess"]):
        return "-"
    ends = (row["adoption_excess_ci_low"], row["adoption_excess_ci_high"])
    return estimate(100 * row["adoption_excess"], *(100 * end for end in ends))
