"""The zoo analysed: accuracies and paired tests, and which findings the controls show too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from thoughtgraft.edits.edit import change_of
from thoughtgraft.edits.known import Mean, Swap, Zero
from thoughtgraft.effects.accuracy import PAIRS, pair_rows
from thoughtgraft.effects.compare import compare_records
from thoughtgraft.effects.frame import Frame, build_frame
from thoughtgraft.effects.gates import RULE, Known
from thoughtgraft.effects.positions import adoption, adoption_bounds, donor_answers, position_table
from thoughtgraft.errors import AnalysisError
from thoughtgraft.probing.scores import Interval, corrected_t
from thoughtgraft.probing.similarity import COLUMNS as STATES
from thoughtgraft.probing.similarity import StateReadings, read_states
from thoughtgraft.stats.clustered import Estimate, t_interval
from thoughtgraft.stats.intervals import MIN_HOSTS
from thoughtgraft.stats.resampling import holm
from thoughtgraft.stats.verdicts import verdict
from thoughtgraft.studies.zoo.evidence import PAUSE, Measured, check_zoo
from thoughtgraft.studies.zoo.lens_hits import COLUMNS as LENS
from thoughtgraft.studies.zoo.lens_hits import (
    FINAL,
    INTERMEDIATE,
    lens_difference,
    lens_excess,
    lens_hits,
    lens_scores,
)
from thoughtgraft.tasks.problem import Problem

COLUMNS = (
    "finding", "model", "control", "own", "own_low", "own_high", "own_sim_low", "own_sim_high", "own_verdict",
    "in_control", "control_low", "control_high", "control_sim_low", "control_sim_high", "control_verdict",
    "difference", "ci_low", "ci_high", "sim_low", "sim_high", "verdict", "p", "p_holm", "note",
)  # fmt: skip
BY_CONSTRUCTION = "a pause vector is the same for every problem, so this edit changes nothing in the control"
_Triple = tuple[float, float, float]
WORDS = {"operation": "the operation", "n_steps": "the number of steps"}
"""Labels in sentences."""


@dataclass(frozen=True)
class Evidence:
    """What findings rest on: frames of the resampling study and lens scores by model, readings by target."""

    frames: Mapping[str, Frame]
    lens: Mapping[str, pd.DataFrame]
    readings: Sequence[StateReadings]


@dataclass(frozen=True)
class _Row:
    """A finding: in the model, in the control, and the difference, each (value, low, high) at one level."""

    own: _Triple
    control: _Triple
    difference: _Triple
    p: float
    note: str = ""
    control_null: bool = False
    too_small: bool = False


_Measure = Callable[[str, str, float], _Row]
"""Of a model and its control, with intervals at the level 1 - alpha."""


def finding_table(zoo: Sequence[Measured], evidence: Evidence) -> pd.DataFrame:
    """Every finding of every model that thinks, beside the first pause model.

    Returns:
        Columns `COLUMNS`, in percentage points. `*_low`, `*_high` are 95% intervals alone; `*sim_low`, `*sim_high` hold
        together over all estimates of the table (Bonferroni, since they are of many kinds), and each verdict is where
        its own lies beside 0 and the margin. `p` (two-sided) is of the difference, `p_holm` over all rows.
        Empty where there is no pause model.
    """
    control = next((model for model in zoo if model.method == PAUSE and model.num_latents), None)
    thinkers = [model for model in zoo if model.thinks and model.num_latents]
    if control is None or not thinkers:
        return pd.DataFrame(columns=list(COLUMNS))
    measures = _findings(evidence)
    share = RULE.alpha / (3 * len(measures) * len(thinkers))
    rows = [
        {"finding": name, "model": model.name, "control": control.name}
        | _judged(*(measure(model.name, control.name, alpha) for alpha in (RULE.alpha, share)))
        for name, measure in measures.items()
        for model in thinkers
    ]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    return table.assign(p_holm=holm(table.p.to_numpy(float)))


def _judged(alone: _Row, together: _Row) -> dict[str, Any]:
    row: dict[str, Any] = {"p": alone.p, "note": alone.note}
    for name, sim, column in (("own", "own_", "own_"), ("control", "control_", "control_"), ("difference", "", "ci_")):
        value, low, high = getattr(alone, name)
        _, sim_low, sim_high = getattr(together, name)
        null = name == "control" and alone.control_null
        said = verdict(sim_low, sim_high, RULE.margin_pp, by_construction=null, too_small=alone.too_small)
        row |= {"in_control" if name == "control" else name: value, f"{column}low": low, f"{column}high": high}
        row |= {f"{sim}sim_low": sim_low, f"{sim}sim_high": sim_high, f"{sim}verdict": said}
    return row


def _findings(evidence: Evidence) -> dict[str, _Measure]:
    found: dict[str, _Measure] = {
        "accuracy lost when all thoughts are another problem's": partial(_impact, evidence.frames, Swap.name),
        "accuracy lost when all thoughts are the mean": partial(_impact, evidence.frames, Mean.name),
        "accuracy lost when all thoughts are zero": partial(_impact, evidence.frames, Zero.name),
        "donor's answer adopted beyond chance, all thoughts swapped": partial(_adopted, evidence.frames),
        "an intermediate value decoded beyond chance, at any slot": partial(_decoded, evidence.lens, INTERMEDIATE),
        "the final answer decoded beyond chance, at any slot": partial(_decoded, evidence.lens, FINAL),
    }
    for reading in evidence.readings:
        label = WORDS.get(reading.rows.target, reading.rows.target)
        name = f"{label} read from the states after begin-of-thought beyond the question's words"
        found[name] = partial(_read, reading)
    return found


def _impact(frames: Mapping[str, Frame], method: str, model: str, control: str, alpha: float) -> _Row:
    compared = compare_records(frames[control], frames[model], alpha=alpha)
    # All slots stand last among a method's arms, also where there is one slot only.
    row = compared[compared.method == method].iloc[-1]
    own = (row.b_pp, row.b_ci_low, row.b_ci_high)
    other = (row.a_pp, row.a_ci_low, row.a_ci_high)
    null = change_of(method).of_others
    notes = "; ".join(note for note in (BY_CONSTRUCTION if null else "", row.note) if note)
    # Beside a control that cannot lose anything, the difference is the model's own effect.
    gap = own if null and row.a_pp == 0 else (row.difference_pp, row.ci_low, row.ci_high)
    small = min(row.n_hosts_a, row.n_hosts_b) < MIN_HOSTS
    return _Row(own, other, gap, row.p, notes, null, small)


def _adopted(frames: Mapping[str, Frame], model: str, control: str, alpha: float) -> _Row:
    frame = frames[model]
    arm = frame.arms[frame.primary.at(frame.every)]
    found = adoption_bounds([adoption(arm, donor_answers(arm, len(frame.hosts), len(frame.donors)))], alpha)[0]
    own = (100 * found.estimate.value, 100 * found.low, 100 * found.high)
    # In the control the answer stays the host's, which never counts as adopted: 0 without error.
    notes = "; ".join(note for note in (BY_CONSTRUCTION, found.note) if note)
    return _Row(own, (0.0, np.nan, np.nan), own, found.estimate.p, notes, True, found.too_small)


def _decoded(scores: Mapping[str, pd.DataFrame], target: str, model: str, control: str, alpha: float) -> _Row:
    found = [lens_excess(scores[name], target) for name in (model, control)]
    gap = lens_difference(scores[model], scores[control], target)

    def points(est: Estimate) -> _Triple:
        low, high = t_interval(est.value, est.se, est.df, 1 - alpha)
        return 100 * est.value, 100 * low, 100 * high

    small = 0 < gap.n_hosts < MIN_HOSTS
    return _Row(points(found[0]), points(found[1]), points(gap), gap.p, gap.note, too_small=small)


def _read(reading: StateReadings, model: str, control: str, alpha: float) -> _Row:
    def points(found: Interval) -> _Triple:
        return 100 * found.value, 100 * found.lower(alpha / 2), 100 * found.upper(alpha / 2)

    mine, theirs = reading.thinking(model), reading.thinking(control)
    gap = corrected_t(mine - theirs, reading.folds)
    p = 2 * min(gap.p, 1 - gap.p) if np.isfinite(gap.p) else np.nan
    return _Row(points(reading.gain(mine)), points(reading.gain(theirs)), points(gap), p, gap.note)


IDS = {"accuracy": "A", "pairs": "P", "positions": "R", "lens": "L", "probes": "M", "findings": "F", "checks": "C"}
"""The letter of each table's row ids."""
TARGETS = ("operation", "n_steps")
SHOWN = (Swap.name, Mean.name, Zero.name)


@dataclass(frozen=True)
class ZooResult:
    """Models and tables; every table has a column `id` (`A1`, `P1`, ...). The makers document the other columns.

    Attributes:
        models: What was measured.
        tables: By name, the names of `IDS`.
        notes: What could not be done, and why.
    """

    models: tuple[Measured, ...]
    tables: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...]


def analyse_zoo(models: Sequence[Measured], problems: Sequence[Problem], labels: pd.DataFrame, seed: int) -> ZooResult:
    """Compare models that answered the same problems.

    Args:
        models: The models.
        problems: The problems with their steps, for the lens.
        labels: Columns `id`, `question`, `operation`, `n_steps`, where known `split` and `template`, for the probes.
        seed: Of folds, permutations and sign flips.

    Raises:
        AnalysisError: The models were not asked the same problems, or records cannot be used.
    """
    zoo = tuple(models)
    check_zoo(zoo)
    slotted = [model for model in zoo if model.records is not None and model.decoded is not None]
    frames = {m.name: build_frame(m.records) for m in slotted if m.records is not None}
    effects = {m.name: _effects(m, frames[m.name], seed) for m in slotted}
    positions = [table.assign(model=name) for name, table in effects.items()]
    scores = {m.name: lens_scores(m.decoded, problems) for m in slotted if m.decoded is not None}
    hits = [lens_hits(m.decoded, problems).assign(model=m.name) for m in slotted if m.decoded is not None]
    readings, notes = _readings(zoo, labels, seed)
    rates = _stack(hits, ["model", *LENS])
    impacts = _stack(positions, ["model"])
    if len(impacts):
        impacts = impacts[impacts.method.isin(SHOWN)].reset_index(drop=True)
    evidence = Evidence(frames, scores, readings)
    tables = {
        "accuracy": accuracy_table(zoo),
        "pairs": pair_table(zoo),
        "positions": impacts,
        "lens": rates,
        "probes": _stack([r.table() for r in readings], list(STATES)),
        "findings": finding_table(zoo, evidence),
        "checks": _checks(zoo),
    }
    return ZooResult(zoo, {name: _with_ids(table, IDS[name]) for name, table in tables.items()}, tuple(notes))


def _effects(model: Measured, frame: Frame, seed: int) -> pd.DataFrame:
    """A model's position table; which slots are dead, or fed alike to all problems, its certificate says."""
    said = model.certificate or {}
    dead, alike = (said.get(name) or () for name in ("dead_slots", "shared_slots"))
    return position_table(frame, seed=seed, known=Known(dead_slots=dead, shared_slots=alike))


def _readings(zoo: tuple[Measured, ...], labels: pd.DataFrame, seed: int) -> tuple[list[StateReadings], list[str]]:
    """The probes of every target that can be probed, and why others cannot."""
    found, notes = [], []
    ids = list(zoo[0].correct.problem_id)
    for target in TARGETS:
        try:
            found.append(read_states({m.name: m.states for m in zoo}, ids, labels, target, seed))
        except AnalysisError as error:
            notes.append(f"{target} was not probed: {error}")
    return found, notes


def _checks(zoo: tuple[Measured, ...]) -> pd.DataFrame:
    columns = ["model", "outcome", "passed", "checks", "failed", "notes"]
    rows = []
    for model in zoo:
        if model.certificate is None:
            why = f"nothing is fed: {model.why_no_slots}" if model.why_no_slots else ""
            rows.append((model.name, "not certified", 0, 0, "", why))
            continue
        checks = model.certificate["checks"]
        failed = [str(check["name"]) for check in checks if not check["passed"]]
        outcome = "passed" if model.certificate["passed"] else "FAILED"
        notes = "; ".join(map(str, model.certificate.get("notes", ())))
        rows.append((model.name, outcome, len(checks) - len(failed), len(checks), ", ".join(failed), notes))
    return pd.DataFrame(rows, columns=columns)


def _stack(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _with_ids(table: pd.DataFrame, letter: str) -> pd.DataFrame:
    out = table.copy()
    out.insert(0, "id", [f"{letter}{i + 1}" for i in range(len(table))])
    return out


ALL = "all"
EXPLICIT = "explicit reasoning"
ACCURACY = ("model", "condition", "problems", "n", "correct", "accuracy", "ci_low", "ci_high")


def step_groups(model: Measured) -> dict[str, np.ndarray]:
    """Masks [problem] by what they take: all problems, then those of each number of steps that is known."""
    steps = model.correct.n_steps.to_numpy()
    found = {ALL: np.ones(len(steps), dtype=bool)}
    counts = sorted({int(n) for n in steps if n > 0})
    return found | {f"{n} step{'s' * (n != 1)}": steps == n for n in counts if len(counts) > 1}


def accuracy_table(zoo: tuple[Measured, ...]) -> pd.DataFrame:
    """Every condition on all problems; the plain answer and explicit reasoning by number of steps too.

    Answers that failed are not among the `n`; a condition without any other has no row.

    Returns:
        Columns `ACCURACY`: accuracy and its 95% Wilson interval as fractions.
    """
    rows = []
    for model in zoo:
        for group, mask in step_groups(model).items():
            chosen = model.conditions if group == ALL else [model.main, EXPLICIT]
            for condition in (name for name in chosen if name in model.correct):
                known = model.correct.loc[mask, condition].dropna()
                right, n = int(known.sum()), len(known)
                if n:
                    ends = binomtest(right, n).proportion_ci(0.95, "wilson")
                    rows.append((model.name, condition, group, n, right, right / n, ends.low, ends.high))
    return pd.DataFrame(rows, columns=list(ACCURACY))


def pair_table(zoo: tuple[Measured, ...]) -> pd.DataFrame:
    """Plain answers of every pair of models, on all problems and by number of steps.

    Returns:
        Columns `PAIRS`: a - b in percentage points, over the problems that both answered. `ci_*` is its 95% interval
        alone, `sim_*` the one that holds for all pairs of one group of problems together, and `verdict` is where that
        lies beside 0 and the margin. The exact McNemar p, and Holm's over the same pairs, stand beside.
    """
    found: list[dict[str, Any]] = []
    for group, mask in step_groups(zoo[0]).items():
        answers = [m.correct.loc[mask, m.main].astype("boolean").to_numpy(float, na_value=np.nan) for m in zoo]
        named = zip([m.name for m in zoo], answers, strict=True)
        pairs = [(a, b, left, right) for (a, left), (b, right) in combinations(named, 2)]
        found += pair_rows(pairs, group, RULE.margin)
    return pd.DataFrame(found, columns=list(PAIRS))
