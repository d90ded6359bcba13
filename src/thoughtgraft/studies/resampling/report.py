"""The resampling study's page: claims first, then every section, written out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from thoughtgraft.arguments import answers_for_calls, choice
from thoughtgraft.effects.comparisons import AT_LEAST_1
from thoughtgraft.effects.gates import VERSION, ClaimRule
from thoughtgraft.errors import AnalysisError, RunError
from thoughtgraft.files import write_atomic
from thoughtgraft.records.spec import PROBLEMS_FILE
from thoughtgraft.report.document import (
    UNDEFINED,
    Block,
    Notes,
    Picture,
    Prose,
    Report,
    Section,
    Table,
    count,
    interval,
    is_number,
    judged,
    markdown,
    number,
    p_value,
    percent,
    plural,
    records_of,
    sentence_list,
    size,
)
from thoughtgraft.report.figures.kit import Display, Skipped, draw, encode, save
from thoughtgraft.report.render import ReportPaths, to_html, to_markdown
from thoughtgraft.stats.power import too_small
from thoughtgraft.stats.verdicts import INVALID, Agreement, Verdict, unjudged
from thoughtgraft.studies.folder import write_inventory
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.resampling import checks, method
from thoughtgraft.studies.resampling.analysis import Analysis, analyse
from thoughtgraft.studies.resampling.context import Context, caveats, chosen_problems, failed_caveat, seen_before
from thoughtgraft.studies.resampling.figures import AdoptionPerSlot, DirectIndirect, DoseResponse, ImpactPerSlot
from thoughtgraft.studies.resampling.figures_problems import (
    DecodedThoughts,
    ProblemBySlot,
    SlotDistribution,
    SwapAgainstAblation,
)
from thoughtgraft.studies.resampling.sections import (
    agreement,
    contrasts,
    dose,
    mediation,
    positions_section,
    problems_section,
    section,
    thoughts_section,
)
from thoughtgraft.studies.run import ANALYSIS_FILE, OLD_DECISION_FILE, Run

ORDER = (*dict.fromkeys([*map(str, Verdict), *map(str, Agreement)]), INVALID)
SUMMARY = ("question", "asked", "verdict", "which says", "for")
HEADER = ("question", "about", "verdict", "estimate", "interval alone", "simultaneous", "n", "p (Holm)", "notes")
OLD = ("claim", "about", "verdict of rule 1", "estimate", "95% interval", "n", "p (Holm)", "notes")
_LISTED = 8
N = "n: hosts × distinct donors (generations)."
WRONG_WITH_RULE_1 = (
    "This run was begun under rule 1, and these are the words that it was given. They cannot be taken at face value. "
    "SUPPORTED and REFUTED could both follow from a small effect, depending on the number of hosts alone: in "
    "simulation, H4 came out REFUTED in 83% of runs of 50 hosts whose true adoption was 1.6 pp above chance, and "
    "SUPPORTED in 94% of runs of 100. REFUTED rested on intervals that were not adjusted for several slots: 18 to 36% "
    "of runs refuted an H1 that was just true. H1's words did not name its margin. An equivalence test that failed at "
    "80% power was taken for a difference: false in 21% of slots at a true 3 pp. CONVERGENT did not ask whether the "
    "sizes agree, and counted hosts but not donors. Estimates and intervals are right, and are shown below without "
    "those words."
)


def claims_section(context: Context) -> Section:
    """The verdicts, then every number that they rest on; the stored words of a run that an older rule judged."""
    blocks: list[Block] = []
    if context.broken:
        blocks.append(Prose(_refusal(context), "warn"))
    if context.old is not None:
        return Section("claims", "Claims and verdicts", (*blocks, *_old(context)))
    if context.run.spec.plan.get("preset") == "pilot":
        pilot = context.analysis.decision.pilot
        blocks.append(Prose(f"Verdict of this pilot: {pilot.verdict}. {pilot.reason}.", "lead"))
    if not context.basis.fixed_before:
        blocks.append(Prose(_afterwards(context), "warn"))
    blocks.append(summary(context))
    if context.unproven:
        names = sentence_list(context.unproven)
        blocks.append(Prose(f"Every verdict is conditional on the gates that this run has no evidence for: {names}."))
    return Section("claims", "Claims and verdicts", (*blocks, table(context)))


def verdicts(context: Context) -> list[tuple[ClaimRule, str, list[dict[str, Any]]]]:
    """Questions of the rule in order, each once per verdict given and what that says.

    "not asked", no rows where its arms were not run.
    """
    found = records_of(context.analysis.decision.claims)
    out: list[tuple[ClaimRule, str, list[dict[str, Any]]]] = []
    for claim in context.analysis.decision.rule.claims:
        rows = [row for row in found if row["claim"] == claim.name]
        said = dict.fromkeys((row["verdict"], row["says"]) for row in rows)
        for word, says in sorted(said, key=lambda pair: ORDER.index(pair[0])):
            out.append((claim, word, [row for row in rows if (row["verdict"], row["says"]) == (word, says)]))
        out += [] if rows else [(claim, "not asked", [])]
    return out


def headlines(context: Context) -> list[str]:
    """One sentence per question and verdict; where an older rule judged, that it did."""
    if context.old is not None:
        return [_anew(context)]
    rule = context.analysis.decision.rule
    return [
        f"{claim.name} ({rule.question(claim)}) {word}{' for' if rows else ':'} {_about(claim, rows)}."
        for claim, word, rows in verdicts(context)
    ]


def _about(claim: ClaimRule, rows: list[dict[str, Any]]) -> str:
    """The subjects of a verdict with their estimates; many as their number and the range of these."""
    values = [float(row["estimate"]) for row in rows if is_number(row["estimate"])]
    if len(rows) > _LISTED:
        ends = [_value(rows[0] | {"estimate": end}) for end in (min(values), max(values))] if values else []
        return f"{len(rows)} subjects" + (f" ({ends[0]} to {ends[1]})" if ends else "")
    return sentence_list([_subject(row) for row in rows]) if rows else f"it needs {claim.needs}"


def _subject(row: dict[str, Any]) -> str:
    subject = "all slots" if row["subject"] == "all" else str(row["subject"])
    return f"{subject} ({_value(row)})" if is_number(row["estimate"]) else subject


def _value(row: Mapping[str, Any]) -> str:
    if row["unit"] != "pp" and AT_LEAST_1 in str(row["note"]):
        return "at least 1"
    return f"{number(row['estimate'], 1)} pp" if row["unit"] == "pp" else number(row["estimate"], 2)


def summary(context: Context) -> Table:
    """One row per question and verdict given."""
    rule, rows, last = context.analysis.decision.rule, [], ""
    for claim, word, found in verdicts(context):
        texts = ("", "") if claim.name == last else (claim.name, rule.question(claim))
        says = found[0]["says"] if found else "–"
        rows.append((*texts, word, says, _about(claim, found)))
        last = claim.name
    reading = (
        f"The rule (version {rule.version}, hash {rule.hash}): margin {rule.margin_pp:g} pp, alpha {rule.alpha:g}, bar "
        f"for the correlation {rule.agreement_bar:g}. A verdict says where an effect's simultaneous interval lies "
        "beside 0 and the margin, and nothing else: the intervals are in the next table. In brackets the estimate, in "
        "percentage points (pp) or as a correlation (H3)."
    )
    return Table(SUMMARY, tuple(rows), reading, tones=2)


def table(context: Context) -> Table:
    """The claim table: one row per question and subject."""
    notes, rows, rule = Notes(), [], context.analysis.decision.rule
    for row in records_of(context.analysis.decision.claims):
        digits = 1 if row["unit"] == "pp" else 2
        rows.append(
            (
                row["claim"],
                f"{'all slots' if row['subject'] == 'all' else row['subject']}: {row['estimand']}",
                row["verdict"],
                _value(row) if is_number(row["estimate"]) else UNDEFINED,
                interval(row["ci_low"], row["ci_high"], digits),
                judged(row["sim_low"], row["sim_high"], row["margin"], digits),
                size(row["n_hosts"], row["n_donors"], row["n_gen"]),
                p_value(row["p_holm"]) if is_number(row["p_holm"]) else "–",
                notes.mark(row["note"]),
            )
        )
    families = "; ".join(f"{claim.name}: {claim.family}" for claim in rule.claims)
    reading = (
        f"Interval alone: {rule.level}, clustered over hosts and donors. Simultaneous: the intervals of a family hold "
        f"all together in {rule.level} of runs ({families}); a verdict is made from it, and enough digits are shown to "
        "see on which side of 0 and of the margin it ends. p (Holm): of no effect, adjusted over the same family (H1: "
        "of the impact on all hosts); it decides nothing. H3 has no p-value, since six points cannot carry one: its "
        f"interval resamples hosts and donors. {N}"
    )
    return Table(HEADER, tuple(rows), reading, frozenset({3, 4, 5, 6, 7}), 2, notes.pairs, "The claims in numbers")


def _refusal(context: Context) -> str:
    if context.force:
        return "A gate failed. Figures are shown because they were asked for by force; no claim is judged."
    return (
        "A gate failed, so no effect is stated in this report: no position table, no figure. Repair the cause and run "
        "again, or write the report by force to look at the numbers all the same."
    )


def _afterwards(context: Context) -> str:
    rule = context.analysis.decision.rule
    return (
        f"Rule {rule.version} was chosen after this run: that its margin and level were fixed before the records were "
        "seen is not on record."
    )


def _anew(context: Context) -> str:
    return (
        f"Judged by rule {context.basis.old_version}, whose words are on its page with what was wrong with them; "
        f"`thoughtgraft analyze --rule {VERSION} RUN` judges the records anew."
    )


def _old(context: Context) -> list[Block]:
    """What the folder holds of an older rule's verdicts, as data."""
    assert context.old is not None
    blocks: list[Block] = [Prose(WRONG_WITH_RULE_1, "warn"), Prose(_anew(context))]
    if not context.old:
        blocks.append(Prose("The run's folder holds no verdicts: it was never analysed under its rule.", "note"))
        return blocks
    notes, rows = Notes(), []
    for row in context.old:
        digits = 1 if row["unit"] == "pp" else 2
        rows.append(
            (
                str(row["claim"]),
                f"{'all slots' if row['subject'] == 'all' else row['subject']}: {row['statement']}",
                str(row["verdict"]),
                _value(row) if is_number(row["estimate"]) else UNDEFINED,
                interval(row["ci_low"], row["ci_high"], digits),
                size(row["n_hosts"], row["n_donors"], row["n_gen"]),
                p_value(row["p_holm"]) if is_number(row["p_holm"]) else "–",
                notes.mark(row["note"]),
            )
        )
    reading = f"As stored in the run's folder when it was analysed; nothing of it is computed anew. {N}"
    return [*blocks, Table(OLD, tuple(rows), reading, frozenset({3, 4, 5, 6}), -1, notes.pairs, "The stored words")]


def write_journal(context: Context, report: Report) -> str:
    """One paragraph: what was run, the verdicts, and what they are conditional on."""
    facts = "; ".join(f"{name} {value}" for name, value in report.facts)
    parts = [f"{report.title}: {facts}.", f"{report.badge[1][0].upper()}{report.badge[1][1:]}.", *headlines(context)]
    if context.unproven:
        parts.append(f"Gates without evidence: {', '.join(context.unproven)}.")
    if report.banner is not None:
        parts.append(report.banner.text)
    parts.append("Figures, intervals and n: report.html.")
    started = context.run.started
    text = markdown(" ".join(parts))
    return f"**{started}** {text}\n" if started else f"{text}\n"


FOLDER = "analysis"


def write_tables(context: Context) -> None:
    """Write `analysis/*.parquet` and `analysis/decision.json` into the run.

    Where the page shows the words of an older rule, so do these: tables have no verdicts, and decision.json is the
    stored one. Where its records are judged anew, the stored one is kept beside.
    """
    run, analysis = context.run, context.analysis
    old, decision = run.old_decision, analysis.decision
    tables = analysis.tables()
    if old is not None:
        run.store.write_json(OLD_DECISION_FILE, old)
    if context.old is not None:
        tables = {name: unjudged(table) for name, table in tables.items()}
        tables["claims"] = pd.DataFrame(list(context.old), columns=list(context.old[0]) if context.old else ["claim"])
    for name, table in tables.items():
        run.store.write_table(f"{FOLDER}/{name}.parquet", table)
    if context.old is not None and old is not None:
        run.store.write_json(ANALYSIS_FILE, old)
        return
    claims = decision.claims if context.old is None else decision.claims[:0]
    content: dict[str, Any] = {
        "rule": decision.rule if context.old is None else {"version": context.basis.old_version},
        "rule_hash": decision.rule_hash,
        "rule_fixed_before": context.basis.fixed_before,
        "valid": decision.valid,
        "missing": run.missing,
        "gates_not_run": list(decision.not_run),
        "gates": [plain(row) for row in records_of(decision.gate_table)],
        "pilot": decision.pilot,
        "claims": [plain(row) for row in records_of(claims)],
        "seed": analysis.seed,
    }
    run.store.write_json(ANALYSIS_FILE, content)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with null for what is undefined: JSON has no word for NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def displays(run: Run, analysis: Analysis) -> list[Display | Skipped]:
    """Every figure of the study, computed and not yet drawn."""
    return [
        ImpactPerSlot.from_analysis(analysis),
        SwapAgainstAblation.from_analysis(analysis),
        DirectIndirect.from_analysis(analysis),
        AdoptionPerSlot.from_analysis(analysis),
        DoseResponse.from_analysis(analysis),
        ProblemBySlot.from_analysis(analysis),
        SlotDistribution.from_analysis(analysis),
        DecodedThoughts.from_run(run, chosen_problems(analysis)),
    ]


def draw_figure(context: Context, name: str) -> Any:
    """One figure of the run as a matplotlib Figure, with the foot line that says which run it shows.

    Raises:
        AnalysisError: There is no figure of this name, this run cannot have it, or it may not state effects.
    """
    if context.refused:
        raise AnalysisError(
            "a gate failed, so this run states no effect", got="; ".join(context.broken), fix="force=True shows it"
        )
    found = {display.name: display for display in displays(context.run, context.analysis)}
    display = found[choice(name, "figure", found, AnalysisError)]
    if isinstance(display, Skipped):
        raise AnalysisError(f"this run cannot have the figure {name!r}: {display.reason}")
    figure = draw(display, context.foot)
    figure._repr_png_ = partial(encode, figure, "png")  # so that a notebook shows it, whatever its backend
    return figure


def make_figures(run: Run, analysis: Analysis, foot: str) -> dict[str, Picture | Prose]:
    """Draw and write every figure of the run, by name."""
    return {display.name: save(display, run.path, foot) for display in displays(run, analysis)}


BEFORE = (claims_section, method.design_section, checks.certificate_section)
EFFECTS = (
    positions_section,
    contrasts,
    agreement,
    mediation,
    section,
    dose,
    problems_section,
    thoughts_section,
)
AFTER = (method.section, checks.provenance, checks.reproduce, method.definitions_section)


def build(context: Context) -> Report:
    """Write every section; effects only where they may be stated."""
    makers = (*BEFORE, *(() if context.refused else EFFECTS), *AFTER)
    sections: list[Section] = [make(context) for make in makers]
    spec, frame = context.run.spec, context.analysis.frame
    small = too_small(len(frame.hosts), len(frame.donors))
    return Report(
        title=f"{spec.study.capitalize()} study of {spec.model}",
        facts=tuple(facts(context)),
        badge=context.run.certificate.badge,
        banner=context.banner,
        sections=tuple(sections),
        caveats=(*caveats(spec), *([small] if small else []), *failed_caveat(frame.failures, frame.n_cells)),
    )


def facts(context: Context) -> list[tuple[str, str]]:
    """The few facts under the title."""
    spec, frame = context.run.spec, context.analysis.frame
    right = context.run.records().drop_duplicates("problem_id").base_correct
    started = context.run.started
    return [
        ("protocol", spec.protocol),
        ("problems", f"{plural(len(frame.hosts), 'host')} × {plural(spec.n_donors, 'donor')} of {spec.problems}"),
        ("generations", count(frame.n_rows)),
        ("failed", "not recorded" if frame.failures is None else count(frame.n_failed)),
        ("accuracy unedited", percent(right.mean())),
        seen_before(spec),
        ("run", f"{spec.run_id}{', ' + started if started else ''}"),
    ]


def analysed(
    run: Run, *, problems: Iterable[Any] | None = None, largest: int | None = None, force: bool = False
) -> Context:
    """A run with its analysis, and whether its effects may be stated; nothing is written. Arguments: `write_report`'s.

    Raises:
        RunError: A file in the run's folder is damaged.
        AnalysisError: The records cannot be analysed.
    """
    analysis = analyse(
        run.records(),
        problems,
        run.seed,
        known=run.known,
        largest=largest,
    )
    old = None
    if run.basis.old_version is not None:
        old = tuple((run.old_decision or {"claims": ()})["claims"])
    return Context(run, analysis, force, {}, run.basis, old)


@answers_for_calls(RunError)
def write_report(
    run: Path | str,
    *,
    seed: int = 0,
    force: bool = False,
    problems: Iterable[Any] | None = None,
    largest: int | None = None,
    rule: int | None = None,
) -> ReportPaths:
    """Analyse a run and write everything that is said about it into its folder.

    Writes `analysis/*.parquet|json`, `figures/*.png|svg`, `report.md`, `report.html` (opens offline), `DATA.md` and
    `journal.md`. The same records, seed and versions give the same files. What the run's arms do not allow is left out,
    and the report says what and why.

    Args:
        run: The run's folder.
        seed: Seed of every resampling in the analysis.
        force: State effects although the certificate or a gate failed; every page then says so.
        problems: The run's problems with their steps, for the adoption of step values; None takes the folder's.
        largest: Largest number that the model can say; None takes what the run knows of it.
        rule: The version of the rule to judge by; None takes the run's own. A run of rule 1 keeps its stored words,
            unless this is 2: then its records are judged anew, and every page says that the rule was chosen after it.

    Returns:
        The paths of the report.

    Raises:
        RunError: The folder is not a run's, a file in it is damaged, or the disk refuses.
        AnalysisError: The records cannot be analysed (none yet, or they contradict one another), or there is no such
            rule.
    """
    opened = load_run(run, seed=seed, rule=rule)
    if problems is None and opened.holds(PROBLEMS_FILE) and "graph" in opened.problems():  # which holds the steps
        problems = opened.problem_set()
    largest = opened.largest_number if largest is None else largest
    return write_pages(analysed(opened, problems=problems, largest=largest, force=force))


def write_pages(context: Context) -> ReportPaths:
    """Write the tables, figures and texts of an analysed run into its folder."""
    data, analysis = context.run, context.analysis
    write_tables(context)
    if not context.refused:
        context = replace(context, figures=make_figures(data, analysis, context.foot))
    report = build(context)
    texts = {
        "report.md": to_markdown(report),
        "report.html": to_html(report),
        "journal.md": write_journal(context, report),
    }
    for name, text in texts.items():
        write_atomic(data.path / name, text.encode())
    write_atomic(data.path / "DATA.md", write_inventory(data).encode())
    pictures = tuple(data.path / p.png for p in context.figures.values() if isinstance(p, Picture))
    return ReportPaths(data.path / "report.md", data.path / "report.html", pictures)
