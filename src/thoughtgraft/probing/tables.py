"""The probe table, and the claims that it supports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.probing.controls import majority
from thoughtgraft.probing.probes import LINEAR, LOGISTIC
from thoughtgraft.probing.rows import BOT, MEAN, RESID, UNTRAINED, Folds, Place
from thoughtgraft.probing.scores import Interval, Outcome, corrected_t, unknown
from thoughtgraft.probing.stratum import Settings, Stratum
from thoughtgraft.stats.resampling import holm
from thoughtgraft.stats.verdicts import Verdict, verdict

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


PRIMARY = "test"
EVERY = "every position"
QUESTION = (
    "How much of {target} can be read at {slot} beyond the question's words and a control task: none, some, or more "
    "than {margin:g}?"
)
COLUMNS = (
    "target", "subject", "question", "verdict", "says", "excess", "sim_low", "sim_high", "margin", "layers", "layer",
    "score", "ci_low", "ci_high", "text", "delta_vs_text", "delta_ci_low", "delta_ci_high", "p_delta_holm",
    "selectivity", "selectivity_ci_low", "selectivity_ci_high", "p_selectivity_holm", "p_maxT", "n", "stratum", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One cell of the map: both effects, the smaller one with its interval for the whole map, and the map's p.

    Attributes:
        gain: Over the question's words, paired by fold.
        select: Over the control task, likewise.
        p_map: Of the score against permuted labels, adjusted for the map.
        low: Lower end of the simultaneous interval of the smaller effect, NaN where one of them has none.
        high: Its upper end.
    """

    gain: Interval
    select: Interval
    p_map: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The smaller effect."""
        return float(min(self.gain.value, self.select.value))

    @property
    def note(self) -> str:
        """Why something is undefined."""
        return "; ".join(dict.fromkeys(x.note for x in (self.gain, self.select) if x.note))


def map_cells(stratum: Stratum, settings: Settings) -> dict[Place, Cell]:
    """Every cell of the map, with intervals that hold together in 1 - alpha of data sets (Bonferroni over the cells).

    The smaller of two effects lies above the smaller of their lower ends, unless that of the smaller one fails; it
    lies below the smaller of their upper ends, unless either fails. So lower ends get half of a cell's error, upper
    ends a quarter each. Where the score itself could come of permuted labels (p of the map at alpha or above), the
    interval reaches down to 0.
    """
    share, found = settings.alpha / max(len(stratum.cells), 1), {}
    for place in stratum.cells:
        outcome = stratum.linear(place)
        both, p_map = (delta_vs_text(stratum, outcome), selectivity(stratum, outcome)), stratum.p[place][1]
        low, high = min(x.lower(share / 2) for x in both), min(x.upper(share / 4) for x in both)
        known = all(np.isfinite(x.error) for x in both)
        low = min(low, 0.0) if p_map >= settings.alpha else low
        found[place] = Cell(*both, p_map, low if known else np.nan, high if known else np.nan)
    return found


def not_judged(target: str, reason: str, margin: float) -> pd.DataFrame:
    """The claim table where nothing can be judged, and why."""
    row = {"target": target, "subject": EVERY, "verdict": Verdict.UNDEFINED, "note": reason, "margin": margin}
    row |= {"question": QUESTION.format(target=target, slot="any position", margin=margin), "layers": ""}
    return pd.DataFrame([row | {"says": Verdict.UNDEFINED.says("")}]).reindex(columns=list(COLUMNS))


def claim_table(stratum: Stratum, settings: Settings) -> pd.DataFrame:
    """One row per position: its verdict, the layers at which something is shown, and the figures at the best layer.

    The best layer is that whose interval begins highest. `sim_low` and `sim_high` are the largest lower and upper end
    over the layers: they hold the effect at the layer where it is largest, and `verdict` is where they lie beside 0
    and the margin, in the unit of the score. The other intervals and the Holm p-values stand beside and decide
    nothing.
    """
    target = stratum.rows.target
    if stratum.name != PRIMARY:
        why = f"claims need problems of the split {PRIMARY!r}; the labels give none or too few"
        return not_judged(target, why, settings.margin)
    cells = map_cells(stratum, settings)
    for cell in cells.values():
        if missing := next((x for x in (cell.gain, cell.select) if not np.isfinite(x.value)), None):
            return not_judged(target, missing.note or "a condition is undefined", settings.margin)
    p_gain, p_select = (
        dict(zip(cells, holm(np.array([getattr(c, name).p for c in cells.values()], dtype=float)), strict=True))
        for name in ("gain", "select")
    )
    lines = []
    for slot in dict.fromkeys(place.slot for place in cells):
        mine = {place: cell for place, cell in cells.items() if place.slot == slot}
        best = max(mine, key=lambda place: (np.nan_to_num(mine[place].low, nan=-np.inf), mine[place].value))
        # Undefined at one layer, the largest over layers is undefined.
        low, high = (float(np.max([getattr(cell, end) for cell in mine.values()])) for end in ("low", "high"))
        said, outcome, cell = verdict(low, high, settings.margin), stratum.linear(best), mine[best]
        shown = [str(place.layer) for place, one in mine.items() if _shown(one, settings)]
        notes = [cell.note] if cell.note else []
        if cell.p_map >= settings.alpha:
            notes.append(f"p_maxT at layer {best.layer} is not below {settings.alpha:g}: the interval reaches to 0")
        lines.append(
            {
                "target": target,
                "subject": slot,
                "question": QUESTION.format(target=target, slot=slot, margin=settings.margin),
                "verdict": said,
                "says": said.says(f"{settings.margin:g}"),
                "excess": cell.value,
                "sim_low": low,
                "sim_high": high,
                "margin": settings.margin,
                "layers": ", ".join(shown),
                "layer": best.layer,
                "score": outcome.mean,
                **_bounds("ci", corrected_t(outcome.score, stratum.setup.folds)),
                "text": stratum.text.mean if stratum.text else np.nan,
                "delta_vs_text": cell.gain.value,
                **_bounds("delta_ci", cell.gain),
                "p_delta_holm": p_gain[best],
                "selectivity": cell.select.value,
                **_bounds("selectivity_ci", cell.select),
                "p_selectivity_holm": p_select[best],
                "p_maxT": cell.p_map,
                "n": len(stratum.rows),
                "stratum": stratum.name,
                "note": "; ".join(notes),
            }
        )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def with_verdicts(probes: pd.DataFrame, stratum: Stratum, settings: Settings) -> pd.DataFrame:
    """The probe table with the interval and verdict of each cell of the map (`excess`, `sim_low`, `sim_high`).

    Verdicts are given on the stratum that claims are made on; elsewhere they are null.
    """
    cells = map_cells(stratum, settings)
    rows: list[tuple[float, float, float, str | None]] = []
    for row in probes.to_dict("records"):
        # Rows of the words and of the numbers have no layer.
        layer = None if pd.isna(row["layer"]) else int(row["layer"])
        found = cells.get(Place(row["slot"], layer, row["features"])) if row["probe"] == LINEAR else None
        if found is None:
            rows.append((np.nan, np.nan, np.nan, None))
            continue
        said = str(verdict(found.low, found.high, settings.margin)) if stratum.name == PRIMARY else None
        rows.append((found.value, found.low, found.high, said))
    columns = dict(zip(("excess", "sim_low", "sim_high", "verdict"), zip(*rows, strict=True), strict=True))
    return probes.assign(**{name: list(values) for name, values in columns.items()})


def _shown(cell: Cell, settings: Settings) -> bool:
    return verdict(cell.low, cell.high, settings.margin).tone == "found" and cell.low > 0


def _bounds(name: str, found: Interval) -> dict[str, float]:
    return {f"{name}_low": found.low, f"{name}_high": found.high}
