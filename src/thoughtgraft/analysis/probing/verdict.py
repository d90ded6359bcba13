"""What can be read from a thought beyond the question's words: one simultaneous interval for each cell and position.

A cell's effect is the smaller of two: the gain of the linear probe over the question's words, and its selectivity over
the control task. So it is above 0 only where both are. A position's effect is that of its best layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.probing.features import Place
from thoughtgraft.analysis.probing.intervals import Interval, corrected_t
from thoughtgraft.analysis.probing.learners import LINEAR
from thoughtgraft.analysis.probing.stratum import Settings, Stratum
from thoughtgraft.analysis.probing.table import delta_vs_text, selectivity
from thoughtgraft.analysis.verdicts import Verdict, verdict

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
