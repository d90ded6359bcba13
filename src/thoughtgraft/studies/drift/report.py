"""The drift study's page and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from rich.table import Table as Terminal

from thoughtgraft.edits.known import Baseline, Self, Swap
from thoughtgraft.effects.gates import RULE
from thoughtgraft.effects.positions import OF_IMPACT
from thoughtgraft.errors import RunError
from thoughtgraft.files import to_json, write_atomic
from thoughtgraft.models.protocols import find_protocol
from thoughtgraft.records.certificate import Certificate
from thoughtgraft.records.shards import write_parquet
from thoughtgraft.records.spec import RunSpec
from thoughtgraft.report.document import (
    Block,
    Bullets,
    Prose,
    Report,
    Section,
    Table,
    assumed,
    estimate,
    is_number,
    judged,
    p_value,
    percent,
    plural,
    records_of,
    sample,
    sentence_list,
)
from thoughtgraft.report.figures.kit import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    Point,
    errorbars,
    interval_key,
    light_grid,
    shared_legend,
    slot_ticks,
    write_files,
    zero_line,
)
from thoughtgraft.report.render import ReportPaths, to_markdown
from thoughtgraft.report.terminal import narrow_table
from thoughtgraft.stats.intervals import TOO_SMALL
from thoughtgraft.stats.verdicts import Verdict
from thoughtgraft.studies.drift.analysis import drift_table
from thoughtgraft.studies.resampling.figures import labels_of
from thoughtgraft.studies.resampling.report import plain
from thoughtgraft.studies.run import Run, Runs

NOISE = 1e-6
TABLE_FILE, JSON_FILE, PAGE_FILE = "drift.parquet", "drift.json", "drift.md"
FROM_CERTIFICATE = ("certificate", "transplant")
"""Gates whose evidence is the certificate, which is shown itself."""


@dataclass(frozen=True)
class Shown:
    """How the rows of one edit are headed: their table, their panel of the figure, and its axis."""

    title: str
    panel: str
    axis: str


SHOWN = {
    Swap.name: Shown("A donor's thought put in", "a donor's thought put in", "accuracy lost (pp)"),
    Self.name: Shown(
        "The problem's own thought put back (truth: 0)",
        "the problem's own put back (truth: 0)",
        "change of the answer (KL, nats)",
    ),
}
"""The edits of the study in the order of the page."""


@dataclass(frozen=True)
class Side:
    """One protocol of the comparison.

    Attributes:
        name: The protocol.
        about: What it is, in a sentence.
        flaw: What is wrong with it; empty if nothing is.
        thoughts_fed: How many thoughts it feeds.
        folder: The run's folder, beside the table.
        certificate: Its certificate.
        failed_gates: Gates that its run fails.
    """

    name: str
    about: str
    flaw: str
    thoughts_fed: int
    folder: str
    certificate: Certificate
    failed_gates: tuple[str, ...]

    @property
    def broken(self) -> list[str]:
        """Failed checks of the certificate and failed gates; an effect may be stated only where there is none."""
        return [*self.certificate.failed, *(f"gate {name}" for name in self.failed_gates)]

    @classmethod
    def of(cls, run: Run) -> Side:
        """Of its run."""
        protocol, spec = find_protocol(run.spec.protocol), run.spec
        return cls(
            name=protocol.name,
            about=protocol.about,
            flaw=protocol.flaw,
            thoughts_fed=protocol.loop.thoughts_fed(spec.num_latents) if protocol.loop else spec.num_latents,
            folder=run.path.name,
            certificate=run.certificate,
            failed_gates=tuple(name for name in run.failed_gates() if name not in FROM_CERTIFICATE),
        )


@dataclass(frozen=True)
class Drifted:
    """What was found: the table of `drift_table`, and its protocols in its order; the first is the standard."""

    table: pd.DataFrame
    sides: tuple[Side, ...]


def compared(run: Run) -> Drifted:
    """The runs of a drift study, each protocol's, beside the standard's.

    Raises:
        RunError: It has no parts.
        AnalysisError: Their records are not of one plan.
    """
    parts = run.parts if isinstance(run, Runs) else {}
    if not parts:
        raise RunError(f"{run.path} holds no runs of several protocols", fix=f"thoughtgraft drift --out {run.path}")
    sides = tuple(Side.of(part) for part in parts.values())
    table = drift_table(
        {side.name: part.records() for side, part in zip(sides, parts.values(), strict=True)},
        seed=run.seed,
        dead_slots={side.name: side.certificate.dead_slots for side in sides},
        shared_slots={side.name: side.certificate.shared_slots for side in sides},
    )
    return Drifted(table, sides)


def write_drift(folder: Path, found: Drifted, spec: RunSpec) -> ReportPaths:
    """Write the table, the figure and the page into `folder`.

    Args:
        folder: An existing folder.
        found: What is reported.
        spec: The run of the standard.
    """
    table, sides = found.table, found.sides
    write_parquet(folder / TABLE_FILE, pa.Table.from_pandas(table))
    write_atomic(folder / JSON_FILE, to_json(drift_facts(table, sides, spec), JSON_FILE))
    display = DriftPerSlot.from_table(table, {side.name: side.broken for side in sides if side.broken})
    foot = f"drift · {spec.model} · {spec.problems} · {plural(spec.n_hosts, 'host')} · seed {spec.seed}"
    picture = write_files(display, folder, foot)
    sections = [Section("protocols", "The protocols", _protocols(table, sides))]
    effects = tuple(_effects(table, method, sides[0].name) for method in SHOWN)
    sections.append(Section("effects", "What each reports, thought by thought", (picture, *effects)))
    failed = [side.name for side in sides if side.broken]
    page = Report(
        title=f"Protocol drift on {spec.model}",
        facts=(
            ("protocols", sentence_list([side.name for side in sides])),
            ("problems", f"{plural(spec.n_hosts, 'host')} × {plural(spec.n_donors, 'donor')} of {spec.problems}"),
            ("seed, dtype", f"{spec.seed}, {spec.dtype}"),
            ("failed", plural(int(table["n_failed"].sum()), "generation")),
        ),
        badge=("bad" if failed else "good", f"not valid: {sentence_list(failed)}" if failed else "all valid"),
        banner=None,
        sections=tuple(sections),
        caveats=tuple(filter(None, [assumed(spec.provenance.get("assumed"))])),
        generator="thoughtgraft drift",
    )
    write_atomic(folder / PAGE_FILE, to_markdown(page).encode())
    return ReportPaths(folder / PAGE_FILE, None, (folder / picture.png,))


def drift_facts(table: pd.DataFrame, sides: Sequence[Side], spec: RunSpec) -> dict[str, Any]:
    """The table and what its protocols are, as JSON-able data with null for what is undefined."""
    protocols = [
        {
            "protocol": side.name,
            "about": side.about,
            "flaw": side.flaw or None,
            "thoughts_fed": side.thoughts_fed,
            "run": side.folder,
            "certificate": side.certificate.state,
            "failed_checks": side.certificate.failed,
            "failed_gates": list(side.failed_gates),
        }
        for side in sides
    ]
    facts = {name: getattr(spec, name) for name in ("model", "problems", "n_hosts", "n_donors", "seed", "dtype")}
    return facts | {"standard": sides[0].name, "protocols": protocols, "rows": [plain(r) for r in records_of(table)]}


def reported(row: dict[str, Any]) -> str:
    """An impact with its interval, or why there is none."""
    if row["verdict"] == Verdict.BY_CONSTRUCTION:
        return "0 (nothing reads it)"
    return estimate(row["impact_pp"], row["ci_low"], row["ci_high"])


def difference(row: dict[str, Any], standard: str) -> str:
    """The difference to the standard with its paired interval; a dash for the standard itself."""
    if row["protocol"] == standard:
        return "–"
    if row["difference_pp"] == 0 and not is_number(row["difference_ci_low"]):
        return "0 (no host differs)"
    return estimate(row["difference_pp"], row["difference_ci_low"], row["difference_ci_high"])


def divergence(row: dict[str, Any]) -> str:
    """KL in nats with its interval; what is below arithmetic noise is 0."""
    if is_number(row["kl"]) and abs(row["kl"]) < NOISE:
        return "0"
    return estimate(row["kl"], row["kl_ci_low"], row["kl_ci_high"], 3)


def _protocols(table: pd.DataFrame, sides: Sequence[Side]) -> tuple[Block, ...]:
    standard = sides[0].name
    base = {row["protocol"]: row for row in records_of(table[table.method == Baseline.name])}
    rows = tuple(
        (
            side.name,
            str(side.thoughts_fed),
            side.certificate.state,
            sentence_list(side.broken),
            estimate(100 * base[side.name]["acc"], base[side.name]["ci_low"], base[side.name]["ci_high"]),
            difference(base[side.name], standard),
            "–" if side.name == standard else percent(base[side.name]["differs_rate"]),
        )
        for side in sides
    )
    header = ("protocol", "thoughts fed", "certificate", "what failed", "accuracy unedited, %")
    reading = (
        "One plan, the same hosts and donors under each protocol. Accuracy with its 95% interval (Wilson); difference "
        f"to {standard} in percentage points, paired by host; other answers: unedited answers that are another number "
        f"than under {standard}. Where a check or gate failed, the figures below are what the procedure reports, not "
        "effects of the thoughts that it names."
    )
    found = Table((*header, f"minus {standard}, pp", "other answers"), rows, reading, frozenset({1, 4, 5, 6}), 2)
    flawed = tuple(f"{side.name}: {side.flaw}." for side in sides if side.flaw)
    plain_words = (Prose("What is wrong with them:"), Bullets(flawed)) if flawed else ()
    return (Bullets(tuple(f"{side.name}: {side.about}." for side in sides)), *plain_words, found)


def _effects(table: pd.DataFrame, method: str, standard: str) -> Table:
    swap, part = method == Swap.name, table[table.method == method]
    rows = []
    for label in dict.fromkeys(part.label):
        for row in records_of(part[part.label == label]):
            names = ("adoption_excess", "adoption_excess_ci_low", "adoption_excess_ci_high")
            adopted = (estimate(*(100 * row[name] for name in names)),) if swap else (divergence(row),)
            p = p_value(row["p_holm"]) if is_number(row["p_holm"]) else "–"
            other = "–" if row["protocol"] == standard else percent(row["differs_rate"])
            told = judged(row["sim_low"], row["sim_high"], RULE.margin_pp), str(row["verdict"])
            cells = (reported(row), *told, p, percent(row["changed_rate"]), *adopted, difference(row, standard), other)
            rows.append((row["label"], row["protocol"], *cells))
    last = "donor's answer over chance, pp" if swap else "KL, nats"
    header = (
        "thought", "protocol", "impact, pp [alone]", "simultaneous", "verdict", "p (Holm)", "answers changed", last,
        f"minus {standard}, pp",
    )  # fmt: skip
    reading = (
        "Impact: accuracy lost against the same protocol's unedited run, with a 95% interval clustered over hosts"
        f"{' and donors' if swap else ''}. Simultaneous: for the single thoughts of a protocol together; the verdict "
        f"is where it lies beside 0 and {RULE.margin_pp:g} pp. p over the same thoughts. Answers changed: against the "
        f"same protocol's unedited answer. Difference to {standard} on the same cells, paired. Other answers: cells "
        f"whose answer is another number than under {standard}."
    )
    reading += "" if swap else " KL: how far the first token of the answer's number moved from the unedited run's."
    numeric = frozenset(range(2, len(header) + 1)) - {4}
    return Table((*header, "other answers"), tuple(rows), reading, numeric, 4, title=SHOWN[method].title)


WIDTH = 0.5
LOOKS = ((BLUE, "o"), (ORANGE, "s"), (VERMILLION, "^"), (PURPLE, "D"), (GREEN, "v"))
INVALID_MARKER = "X"


@dataclass(frozen=True)
class DriftPerSlot:
    """Left: impacts of swaps; right: how far a self-swap moves the answer. One series per protocol.

    `whole` says whether the last place is all slots; `dead` are the points of slots that nothing reads, by panel.
    """

    labels: tuple[str, ...]
    whole: bool
    series: tuple[tuple[tuple[str, str, str, tuple[Point, ...]], ...], ...]
    dead: tuple[tuple[tuple[float, float], ...], ...]
    caption: str
    name: str = "drift"
    title: str = "What each protocol reports, thought by thought"
    sharey: bool = False
    panels: int = 2
    size: tuple[float, float] = (10.0, 4.4)

    @classmethod
    def from_table(cls, table: pd.DataFrame, invalid: Mapping[str, Sequence[str]]) -> DriftPerSlot:
        """From a drift table and, for each protocol whose certificate or gates failed, what failed."""
        names = list(dict.fromkeys(table.protocol))
        edited = table[table.method != Baseline.name]
        labels = labels_of(edited)
        series, dead = [], []
        for method in SHOWN:
            lines, still = [], []
            for i, name in enumerate(names):
                shift = 0.0 if len(names) == 1 else WIDTH * (i / (len(names) - 1) - 0.5)
                points = []
                for row in records_of(edited[(edited.protocol == name) & (edited.method == method)]):
                    x = labels.index(row["label"]) + shift
                    still += [(x, 0.0)] if row["verdict"] == Verdict.BY_CONSTRUCTION else []
                    swapped = method == Swap.name
                    points.append(Point.of(x, row, *(("impact_pp", "") if swapped else ("kl", "kl_"))))
                colour, marker = LOOKS[i % len(LOOKS)]
                label = f"{name} (INVALID)" if name in invalid else name
                lines.append((label, colour, INVALID_MARKER if name in invalid else marker, tuple(points)))
            series.append(tuple(lines))
            dead.append(tuple(still))
        sizes = {sample(r["n_hosts"], r["n_donors"], r["n_gen"]) for r in records_of(table[table.method == Swap.name])}
        caption = (
            "Left: baseline accuracy minus accuracy after the edit, each against its own protocol's baseline, paired "
            "by problem. Right: divergence of the first token of the answer's number from the unedited run. Thin: the "
            "95% interval of each alone, clustered over hosts and donors (left) or hosts (right); thick: those of a "
            "protocol's single slots hold all together in 95% of runs, that of all slots by itself. Fat crosses: the "
            "protocol's certificate or a gate failed, so its figures are not effects of the thoughts they are named "
            "after. Hollow: nothing varies, so there is no interval. Thin cross, 'dead': nothing reads the slot, so "
            f"that the effect is 0 by construction. n per slot, left: {' or '.join(sorted(sizes))}."
        )
        return cls(labels, max(map(len, edited.slots)) > 1, tuple(series), tuple(dead), caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one panel."""
        ax.margins(y=0.08)
        zero_line(ax)
        light_grid(ax)
        for label, colour, marker, points in self.series[panel]:
            errorbars(ax, points, colour, marker, label)
        for x, y in self.dead[panel]:
            ax.plot([x], [y], "x", color=GREY, markersize=5, zorder=4)
            ax.annotate("dead", (x, y), (0, -12), textcoords="offset points", ha="center", fontsize=7, color=GREY)
        slot_ticks(ax, self.labels, apart=self.whole)
        ax.set_xlabel("thought that the protocol says it replaces")
        shown = tuple(SHOWN.values())[panel]
        ax.set_title(shown.panel)
        ax.set_ylabel(shown.axis)
        if panel == 0:
            interval_key(ax, "95%", "a protocol's slots")
        else:
            shared_legend(ax)


def letters_of(found: Drifted) -> dict[str, str]:
    """A letter for each protocol, the standard's first."""
    return {side.name: chr(ord("A") + i) for i, side in enumerate(found.sides)}


def sides_in_words(found: Drifted) -> list[tuple[str, bool]]:
    """A line for each protocol, and whether it is valid."""
    lines, table = [], found.table
    for side in found.sides:
        base = table[(table.protocol == side.name) & (table.method == Baseline.name)].iloc[0]
        fed = f"{side.thoughts_fed} thoughts fed, {100 * base.acc:.1f}% right unedited"
        outcome = f"INVALID: {', '.join(side.broken)}" if side.broken else "valid"
        lines.append((f"{letters_of(found)[side.name]} {side.name}: {fed}; {outcome}", not side.broken))
    return lines


def effects_summaries(found: Drifted) -> list[Terminal]:
    """What each protocol reports slot by slot, a table for each method."""
    table = found.table
    return [effects_summary(table[table.method == method], method, letters_of(found)) for method in SHOWN]


def effects_summary(part: pd.DataFrame, method: str, letters: dict[str, str]) -> Terminal:
    """One method's rows for a terminal; protocols by their letters, the first the standard."""
    standard, first = next(iter(letters.items()))
    level = RULE.level
    out = narrow_table(
        f"{SHOWN[method].title}: accuracy lost, pp\n{level} together: for all thoughts of a protocol at once"
    )
    out.padding = (0, 0)
    last = f"minus {first}" if method == Swap.name else "KL, nats"
    for name in ("thought", "", f"impact [{level} alone]", f"{level} together", "verdict", last):
        out.add_column(name, justify="left" if name in ("thought", "", "verdict") else "right", no_wrap=True)
    for label in dict.fromkeys(part.label):
        for i, row in enumerate(records_of(part[part.label == label])):
            more = difference(row, standard) if method == Swap.name else divergence(row)
            together = judged(row["sim_low"], row["sim_high"], RULE.margin_pp) if is_number(row["sim_low"]) else ""
            verdict = f"{row['verdict']}{' *' if OF_IMPACT + TOO_SMALL in row['note'] else ''}"
            out.add_row("" if i else label, letters[row["protocol"]], reported(row), together, verdict, more)
        out.add_section()
    if part.note.str.contains(OF_IMPACT + TOO_SMALL, regex=False).any():
        out.caption = f"* {TOO_SMALL}"
    return out
