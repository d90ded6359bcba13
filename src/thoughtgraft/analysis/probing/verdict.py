"""The claim that a label can be read from a thought: three conditions together, on the test stratum."""

from __future__ import annotations

import numpy as np
import pandas as pd

from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.probing.features import Place
from thoughtgraft.analysis.probing.intervals import Interval, corrected_t
from thoughtgraft.analysis.probing.stratum import Settings, Stratum
from thoughtgraft.analysis.probing.table import delta_vs_text, selectivity

PRIMARY = "test"
SUPPORTED, REFUTED, UNDERPOWERED, NOT_JUDGED = "SUPPORTED", "REFUTED", "UNDERPOWERED", "NOT JUDGED"
STATEMENT = "{target} can be read at {slot} beyond the question's words"
SUPPORTED_IF = (
    "at some layer, on test problems, the linear probe's p_maxT, the Holm p of its gain over text and the Holm p of "
    "its selectivity are all below alpha"
)
REFUTED_IF = "at every layer the upper bound of the gain over text (simultaneous over the map) is below the margin"
COLUMNS = (
    "target", "subject", "statement", "verdict", "layers", "layer", "score", "ci_low", "ci_high", "text",
    "delta_vs_text", "delta_ci_low", "delta_ci_high", "p_delta_holm", "selectivity", "selectivity_ci_low",
    "selectivity_ci_high", "p_selectivity_holm", "p_maxT", "n", "stratum", "supported_if", "refuted_if", "note",
)  # fmt: skip


def not_judged(target: str, reason: str) -> pd.DataFrame:
    """The claim table where nothing can be claimed, and why."""
    row = {"target": target, "subject": "every position", "verdict": NOT_JUDGED, "note": reason}
    row |= {"statement": STATEMENT.format(target=target, slot="any position"), "layers": ""}
    row |= {"supported_if": SUPPORTED_IF, "refuted_if": REFUTED_IF}
    return pd.DataFrame([row]).reindex(columns=list(COLUMNS))


def claim_table(stratum: Stratum, settings: Settings) -> pd.DataFrame:
    """One row per position: verdict, the layers that pass, and the figures at the layer with the largest gain.

    The intervals shown are unadjusted; the three p-values that decide are adjusted for all cells of the map, so that
    the chance of any false claim on it stays below alpha.
    """
    rows = stratum.rows
    if stratum.name != PRIMARY:
        return not_judged(
            rows.target, f"claims need problems of the split {PRIMARY!r}; the labels give none or too few"
        )
    cells = stratum.cells
    gains = [delta_vs_text(stratum, stratum.linear(c)) for c in cells]
    selects = [selectivity(stratum, stratum.linear(c)) for c in cells]
    missing = next((x.note for x in (*gains, *selects) if not np.isfinite(x.value)), None)
    if missing is not None:
        return not_judged(rows.target, missing or "a condition is undefined")
    p_gain, p_select = (holm(np.array([x.p for x in found], dtype=float)) for found in (gains, selects))
    p_map = np.array([stratum.p[c][1] for c in cells])
    passed = (p_gain < settings.alpha) & (p_select < settings.alpha) & (p_map < settings.alpha)
    # No gain can be above the margin: one-sided bounds, Bonferroni over the map.
    small = np.array([g.upper(settings.alpha / len(cells)) < settings.margin for g in gains])
    lines = []
    for slot in dict.fromkeys(c.slot for c in cells):
        mine = [i for i, c in enumerate(cells) if c.slot == slot]
        ok = [i for i in mine if passed[i]]
        best = max(ok or mine, key=lambda i: gains[i].value)
        verdict = SUPPORTED if ok else REFUTED if all(small[i] for i in mine) else UNDERPOWERED
        shown = {"p_delta_holm": p_gain[best], "p_selectivity_holm": p_select[best], "p_maxT": p_map[best]}
        failed = [
            words
            for words, p in (("p_maxT", p_map), ("gain over text", p_gain), ("selectivity", p_select))
            if not p[best] < settings.alpha
        ]
        notes = [] if ok else [f"not shown at layer {cells[best].layer}: {', '.join(failed)}"]
        notes += [x.note for x in (gains[best], selects[best]) if x.note]
        outcome = stratum.linear(cells[best])
        lines.append(
            {
                "target": rows.target,
                "subject": slot,
                "statement": STATEMENT.format(target=rows.target, slot=slot),
                "verdict": verdict,
                "layers": ", ".join(str(cells[i].layer) for i in ok),
                "layer": cells[best].layer,
                "score": outcome.mean,
                **_bounds("ci", _own(stratum, cells[best])),
                "text": stratum.text.mean if stratum.text else np.nan,
                "delta_vs_text": gains[best].value,
                **_bounds("delta_ci", gains[best]),
                "selectivity": selects[best].value,
                **_bounds("selectivity_ci", selects[best]),
                **shown,
                "n": len(rows),
                "stratum": stratum.name,
                "supported_if": SUPPORTED_IF,
                "refuted_if": REFUTED_IF,
                "note": "; ".join(dict.fromkeys(notes)),
            }
        )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _own(stratum: Stratum, place: Place) -> Interval:
    return corrected_t(stratum.linear(place).score, stratum.setup.folds)


def _bounds(name: str, found: Interval) -> dict[str, float]:
    return {f"{name}_low": found.low, f"{name}_high": found.high}
