"""The probe table: one row per target, place and probe, every score beside its controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.probing.controls import majority
from thoughtgraft.analysis.probing.features import BOT, MEAN, RESID, UNTRAINED, Place
from thoughtgraft.analysis.probing.folds import Folds
from thoughtgraft.analysis.probing.intervals import Interval, corrected_t, unknown
from thoughtgraft.analysis.probing.learners import LINEAR, LOGISTIC
from thoughtgraft.analysis.probing.scores import Outcome
from thoughtgraft.analysis.probing.stratum import Stratum

# acc is plain accuracy and majority the commonest class's share; every other *_acc, the intervals, the differences
# and the p-values are of balanced accuracy, in which chance is 1 / classes.
CLASS_COLUMNS = (
    "target", "slot", "layer", "features", "probe", "n", "d", "cv", "acc", "balanced_acc", "macro_f1", "logloss",
    "ci_low", "ci_high", "majority", "text_acc", "bot_acc", "delta_vs_text", "delta_ci_low", "delta_ci_high",
    "control_acc", "selectivity", "p_perm", "p_maxT", "stratum", "n_classes", "mcc", "selectivity_ci_low",
    "selectivity_ci_high", "p_delta_holm", "p_selectivity_holm", "note",
)  # fmt: skip
# The same for a number: the score is R2 against the training mean, out of sample.
NUMBER_COLUMNS = (
    "target", "slot", "layer", "features", "probe", "n", "d", "cv", "r2", "rank_correlation", "ci_low", "ci_high",
    "text_r2", "bot_r2", "delta_vs_text", "delta_ci_low", "delta_ci_high", "control_r2", "selectivity", "p_perm",
    "p_maxT", "stratum", "selectivity_ci_low", "selectivity_ci_high", "p_delta_holm", "p_selectivity_holm", "note",
)  # fmt: skip
NO_TEXT = "no text baseline: the labels have no questions"


def probe_table(stratum: Stratum) -> pd.DataFrame:
    """One row per place and probe, and one each for the text and numbers baselines.

    Returns:
        `CLASS_COLUMNS` or `NUMBER_COLUMNS`. Intervals are corrected resampled t, 95%, unadjusted; p_maxT and the Holm
        p-values are adjusted for the cells of the map and exist for its linear probe only. Undefined is NaN, with the
        reason in `note`.
    """
    rows = [_row(stratum, place, probe, outcome) for (place, probe), outcome in stratum.outcomes.items()]
    on_map = [i for i, (place, probe) in enumerate(stratum.outcomes) if place in stratum.p and probe == LINEAR]
    for name in ("p_delta", "p_selectivity"):
        adjusted = holm(np.array([rows[i].pop(name) for i in on_map], dtype=float))
        for i, p in zip(on_map, adjusted, strict=True):
            rows[i][f"{name}_holm"] = p
    for features, baseline in (("text", stratum.text), ("numbers", stratum.numbers)):
        if baseline is not None:
            rows.append(_row(stratum, Place("", None, features), LOGISTIC, baseline))
    kind = stratum.rows.kind
    table = pd.DataFrame(rows).reindex(columns=list(CLASS_COLUMNS if kind == "class" else NUMBER_COLUMNS))
    return table.assign(layer=table.layer.astype("Int64"))


def delta_vs_text(stratum: Stratum, outcome: Outcome) -> Interval:
    """Gain over the question-only baseline, paired by fold."""
    if stratum.text is None:
        return unknown(NO_TEXT)
    return corrected_t(outcome.score - stratum.text.score[: len(outcome.score)], stratum.folds_of(outcome))


def selectivity(stratum: Stratum, outcome: Outcome) -> Interval:
    """Score minus the control task's, paired by fold; undefined where the control task is, or a fold lacks its rows."""
    if outcome.control is None:
        control = stratum.setup.control
        return unknown("control task undefined in a fold" if control.defined else control.note)
    seen = np.isfinite(outcome.control)
    if not seen.all():
        return unknown("control task undefined in a fold: none of its problems has a repeated surface type")
    return corrected_t(outcome.score - outcome.control, stratum.folds_of(outcome))


def _row(stratum: Stratum, place: Place, probe: str, outcome: Outcome) -> dict[str, Any]:
    rows, folds = stratum.rows, stratum.folds_of(outcome)
    baseline = place.features in ("text", "numbers")
    own = corrected_t(outcome.score, folds)
    delta = unknown() if place.features == "text" else delta_vs_text(stratum, outcome)
    select = unknown() if baseline else selectivity(stratum, outcome)
    alone, whole = stratum.p.get(place, (np.nan, np.nan)) if probe == LINEAR else (np.nan, np.nan)
    if probe == LINEAR and place not in stratum.p and outcome.null is not None:
        # Beside the map: its own p, outside the map's family.
        exceed = (outcome.null >= outcome.mean - 1e-12).sum()
        alone = (float(exceed) + 1) / (len(outcome.null) + 1)
    row = {
        "target": rows.target,
        "slot": place.slot,
        "layer": place.layer,
        "features": place.features,
        "probe": probe if not baseline or rows.kind == "class" else "ridge",
        "n": len(rows),
        "d": outcome.d or np.nan,
        "cv": folds.label,
        "ci_low": own.low,
        "ci_high": own.high,
        "delta_vs_text": delta.value,
        "delta_ci_low": delta.low,
        "delta_ci_high": delta.high,
        "selectivity": select.value,
        "selectivity_ci_low": select.low,
        "selectivity_ci_high": select.high,
        "p_perm": alone,
        "p_maxT": whole,
        "stratum": stratum.name,
        "note": _note(stratum, place, probe, own, delta, select),
    }
    if place in stratum.p and probe == LINEAR:
        row |= {"p_delta": delta.p, "p_selectivity": select.p}
    score = own.value
    control = float(np.mean(outcome.control)) if outcome.control is not None else np.nan
    text = _same_folds(stratum.text, folds)
    bot = np.nan if baseline else _bot(stratum, place, probe)
    if rows.kind == "number":
        return row | outcome.details | {"r2": score, "text_r2": text, "bot_r2": bot, "control_r2": control}
    row |= {"balanced_acc": score, "majority": majority(rows), "text_acc": text, "bot_acc": bot}
    return row | outcome.details | {"control_acc": control, "n_classes": len(rows.classes)}


def _bot(stratum: Stratum, place: Place, probe: str) -> float:
    """The same probe's score at the begin-of-thought position of the same layer: what was there before any thought."""
    features = RESID if place.features == MEAN else place.features
    found = stratum.outcomes.get((Place(BOT, place.layer, features), probe))
    return np.nan if found is None else found.mean


def _same_folds(outcome: Outcome | None, folds: Folds) -> float:
    return np.nan if outcome is None else float(np.mean(outcome.score[: len(folds.folds)]))


def _note(stratum: Stratum, place: Place, probe: str, own: Interval, delta: Interval, select: Interval) -> str:
    notes = [own.note, delta.note and f"gain over text: {delta.note}", select.note]
    if probe == LINEAR and stratum.rows.kind == "class":
        notes.append("the linear probe gives no probabilities, so no log-loss")
    if probe == LINEAR and place not in stratum.p and place.features != UNTRAINED:
        notes.append("not a cell of the map: no max-T")
    if probe != LINEAR and place.features == RESID:
        notes.append("permuted for the linear probe only")
    return "; ".join(dict.fromkeys(n for n in notes if n))
