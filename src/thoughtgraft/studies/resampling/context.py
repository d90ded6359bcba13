"""What every section is written from: the run, its analysis, its figures, the chosen example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from thoughtgraft.effects.gates import NOT_RUN, UNRECORDED, Basis, failed_words
from thoughtgraft.records.schema import ArmKey
from thoughtgraft.records.spec import RunSpec
from thoughtgraft.report.document import (
    Banner,
    Picture,
    Prose,
    assumed,
    count,
    plural,
    records_of,
    sentence_list,
)
from thoughtgraft.studies.resampling.analysis import Analysis
from thoughtgraft.studies.resampling.figures import swaps
from thoughtgraft.studies.run import Run


def seen_before(spec: RunSpec) -> tuple[str, str]:
    """The fact under a page's title: how much of a run had been looked at before it began."""
    looks = spec.looks
    if looks is None:
        return "seen before", "not counted"
    donors = f", {count(looks.donors)} of {plural(looks.n_donors, 'donor')}" if looks.n_donors else ""
    return "seen before", f"{count(looks.hosts)} of {plural(looks.n_hosts, 'host')}{donors}"


def caveats(spec: RunSpec) -> tuple[str, ...]:
    """What to know of a run before its first verdict: a pilot that asked for more, earlier looks, what was assumed."""
    short = "" if spec.pilot is None else spec.pilot.shortfall(spec.n_hosts)
    looks = spec.looks.lines(spec.run_id) if spec.looks else []
    return tuple(text for text in (short, " ".join(looks), assumed(spec.provenance.get("assumed"))) if text)


def failed_caveat(failures: Mapping[str, int] | None, n_cells: int) -> tuple[str, ...]:
    """What a reader must know of cells without an outcome; nothing where there are none."""
    return (f"{failed_words(failures, n_cells)}. They are in no estimate.",) if failures else ()


@dataclass(frozen=True)
class Context:
    """One report in the making.

    Attributes:
        force: State effects although a gate or the certificate failed.
        basis: By which rule the run is judged.
        old: The stored verdicts of an older rule, as rows, where they stand in place of this version's; else None.
    """

    run: Run
    analysis: Analysis
    force: bool
    figures: Mapping[str, Picture | Prose]
    basis: Basis = UNRECORDED
    old: tuple[Mapping[str, Any], ...] | None = None

    @property
    def broken(self) -> list[str]:
        """Why no effect may be stated: failed gates, and the certificate's failed checks."""
        gates = [f"gate {gate.name} ({gate.detail})" for gate in self.analysis.decision.gates if gate.outcome == "fail"]
        if self.run.certificate.state == "missing":
            gates = ["the run has no certificate", *(gate for gate in gates if not gate.startswith("gate certificate"))]
        checks = [f"check {name}" for name in self.run.certificate.failed] if self.run.certificate.checks else []
        return gates + checks

    @property
    def refused(self) -> bool:
        """Whether effects are left out."""
        return bool(self.broken) and not self.force

    @property
    def unproven(self) -> list[str]:
        """Gates without evidence in this run."""
        return [gate.name for gate in self.analysis.decision.gates if gate.outcome == NOT_RUN]

    @property
    def flaw(self) -> str:
        """What is wrong with the run's protocol, as run.json says; empty where nothing is."""
        return str(self.run.spec.plan.get("protocol_flaw") or "")

    @property
    def banner(self) -> Banner | None:
        """The warning on every page, if one is due; a flawed protocol and an unfinished run are always part of it."""
        banner = self._warning
        also = []
        if self.flaw:
            also.append(("FLAWED PROTOCOL", f"Protocol {self.run.spec.protocol} replays a known mistake: {self.flaw}."))
        if self.run.missing:
            counts = f"{count(self.run.missing)} of {count(self.run.spec.n_cells)} generations are still missing"
            also.append(("UNFINISHED", f"The run is unfinished: {counts}, and every figure may change."))
        for word, text in also:
            banner = replace(banner, text=f"{banner.text} {text}") if banner else Banner("warn", word, text)
        return banner

    @property
    def _warning(self) -> Banner | None:
        if self.broken and self.force:
            text = f"INVALID, shown by force: {sentence_list(self.broken)}. No effect in this report may be quoted."
            return Banner("bad", "INVALID", text)
        if self.broken:
            return Banner("bad", "INVALID", f"INVALID: {sentence_list(self.broken)}. No effect is stated.")
        if self.run.certificate.state != "passed":
            _, words = self.run.certificate.badge
            but = "Effects are shown, but nothing proves that the edits did what they say."
            return Banner("warn", "NOT CERTIFIED", f"{words[0].upper()}{words[1:]}. {but}")
        return None

    @property
    def foot(self) -> str:
        """One line that every figure carries, so that it can travel alone."""
        spec, frame = self.run.spec, self.analysis.frame
        parts = [
            spec.study,
            spec.model,
            f"protocol {spec.protocol}",
            plural(len(frame.hosts), "host"),
            f"run {spec.run_id}",
        ]
        if self.banner is not None:
            parts.append(self.banner.word)
        return " · ".join(parts)

    def figure(self, name: str) -> tuple[Picture | Prose, ...]:
        """The figure, or the sentence that says why there is none."""
        return (self.figures[name],) if name in self.figures else ()


PROBLEMS = 4


@dataclass(frozen=True)
class Pair:
    """One swap to look at: why it was chosen, and its record."""

    why: str
    slot: int
    record: dict[str, Any]


def chosen_problems(analysis: Analysis) -> list[str]:
    """The three most sensitive problems and the least, in that order."""
    ids = [str(name) for name in analysis.per_problem.table.problem_id]
    return ids if len(ids) <= PROBLEMS else [*ids[: PROBLEMS - 1], ids[-1]]


def chosen_pairs(run: Run, analysis: Analysis) -> list[Pair]:
    """Up to three swaps at the single slot of largest impact: an adopted answer, a changed one, an unchanged one.

    Each is the first of its kind by host and donor id among hosts right at baseline.
    """
    table = swaps(analysis)
    table = table[table.slots.map(len) == 1]
    records = run.records()
    if not len(table) or not {"adopted", "changed", "donor_id"} <= set(records.columns):
        return []
    arm = ArmKey.of_table(table)[int(table.impact_pp.to_numpy(dtype=float).argmax())]
    chosen = records[
        (records.method == arm.method)
        & (records.downstream == arm.after)
        & (records.site_kind.fillna("fed") == "fed")
        & (records.slots.map(tuple) == arm.slots)
        & records.base_correct.fillna(False).astype(bool)
        & records.changed.notna()  # a failed cell shows nothing
        & (records.donor_stratum == arm.donors)
    ].sort_values(["problem_id", "donor_id"])
    adopted, changed = (chosen[name].fillna(False).astype(bool) for name in ("adopted", "changed"))
    kinds = {
        "the host gives the donor's answer": adopted & changed,
        "the host's answer changes, but not to the donor's": changed & ~adopted,
        "the host's answer stays": ~changed,
    }
    return [Pair(why, arm.slots[0], _first(chosen[which])) for why, which in kinds.items() if which.any()]


def _first(rows: pd.DataFrame) -> dict[str, Any]:
    return records_of(rows.head(1))[0]
