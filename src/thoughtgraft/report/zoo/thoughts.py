"""Sections of a zoo's page on the thoughts themselves: what editing and reading them shows, and their certificates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thoughtgraft.analysis.lens_hits import ANY
from thoughtgraft.analysis.zoo import ZooResult
from thoughtgraft.analysis.zoo.findings import WORDS
from thoughtgraft.report.document import Block, Bullets, Figures, Prose, Section, Table, records_of
from thoughtgraft.report.formats import (
    bounded,
    count,
    estimate,
    is_number,
    p_value,
    percent,
    size,
)
from thoughtgraft.report.zoo.figures import NO_SLOTS


def resampling(result: ZooResult, figures: Figures) -> Section:
    """Impact of each slot and all, and adoption."""
    header = (
        "row",
        "model",
        "edit",
        "thoughts",
        "hosts × donors (n)",
        "accuracy lost, pp",
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
            bounded(r["impact_pp"], r["ci_low"], r["ci_high"], r["zero_bound_pp"]),
            _adopted(r),
            p_value(r["p"]),
            p_value(r["p_holm"]),
        )
        for r in records_of(result.tables["positions"])
    )
    reading = (
        "Clean minus edited accuracy on the same hosts, later thoughts recomputed; 95% intervals clustered over "
        "hosts and donors; where every difference is 0, the exact 95% upper bound. Adoption needs a donor. Holm over "
        "the single slots of one model and edit. A model cannot lose more than it answers right."
    )
    said = [
        f"{m.name}: its vectors are the same for every problem, so swap and mean change nothing by construction; "
        "its slots carry nothing of the problem."
        for m in result.models
        if m.method == "pause"
    ]
    said += [f"{m.name}: {NO_SLOTS.split(':')[0]}, since {m.why_no_slots}." for m in result.models if not m.num_latents]
    blocks: list[Block] = [figures["impact"], *([Bullets(tuple(said))] if said else [])]
    return Section("resampling", "Resampling", (*blocks, Table(header, rows, reading)))


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
    header = ("row", "finding", "model", "own, pp", "in the control, pp", "difference, pp", "p", "p, Holm", "verdict")
    rows = tuple(
        (
            r["id"],
            r["finding"],
            r["model"],
            estimate(r["own"], r["own_low"], r["own_high"]),
            estimate(r["in_control"], r["control_low"], r["control_high"]),
            estimate(r["difference"], r["ci_low"], r["ci_high"]),
            p_value(r["p"]),
            p_value(r["p_holm"]),
            r["verdict"],
        )
        for r in records_of(result.tables["findings"])
    )
    table = Table(
        header,
        rows,
        "Own effect, the same in the pause control, and the difference paired by problem (by fold for probes); p of no "
        "difference, Holm over all rows. SURVIVES: the model's own interval lies above 0, and so does the difference "
        "after Holm. SHARED: the control's interval lies above 0 too, and the two cannot be told apart. NOT FOUND: the "
        "model's own interval reaches 0. Otherwise INCONCLUSIVE.",
        tones=8,
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
