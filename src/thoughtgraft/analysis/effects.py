"""Comparisons between arms on the same pairs: slots against each other, total against direct effect, and dose."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from thoughtgraft.analysis.cells import ArmKey, Cells, paired
from thoughtgraft.analysis.clustered import Estimate
from thoughtgraft.analysis.estimate import impact
from thoughtgraft.analysis.frame import Frame, as_frame
from thoughtgraft.analysis.intervals import Sample, family_bounds
from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.slots import reaches_end

FREEZES = ("freeze_input", "freeze_kv")


def paired_differences(pairs: Sequence[tuple[Cells, Cells]]) -> list[Estimate]:
    """Means of (first's accuracy loss - second's) over the cells both have, as fractions, each with its 95% interval.

    Args:
        pairs: Two arms each.
    """
    samples = []
    for first, second in pairs:
        left, right = paired(first, second)
        # The baseline is the same, so that the difference of two losses is that of two grades.
        values = second.correct[right] - first.correct[left]
        donor = first.donor[left] if first.has_donors else None
        samples.append(Sample(values, first.host[left], donor, first.weight[left], "difference"))
    return [bounds.estimate for bounds in family_bounds(samples)]


def paired_difference(first: Cells, second: Cells) -> Estimate:
    """That of two arms."""
    return paired_differences([(first, second)])[0]


def contrast_table(records: pd.DataFrame | Frame) -> pd.DataFrame:
    """Every pair of single slots within one method, downstream and stratum: impact of slot_a - impact of slot_b.

    Returns:
        Columns method, downstream, donor_stratum, slot_a, slot_b, difference_pp, ci_low, ci_high, se, n_hosts,
        n_donors, n_pairs, p, p_holm (over the family's pairs, 15 for six slots), note.
    """
    frame = as_frame(records)
    rows = []
    for family in frame.families():
        pairs = list(combinations(frame.singles(*family).items(), 2))
        found = paired_differences([(first, second) for (_, first), (_, second) in pairs])
        for ((a, _), (b, _)), est in zip(pairs, found, strict=True):
            figures = (100 * est.value, 100 * est.low, 100 * est.high, 100 * est.se)
            counts = (est.n_hosts, est.n_donors, est.n)
            rows.append((*family, frame.label((a,)), frame.label((b,)), *figures, *counts, est.p, np.nan, est.note))
    names = "method downstream donor_stratum slot_a slot_b difference_pp ci_low ci_high se n_hosts n_donors n_pairs"
    table = pd.DataFrame(rows, columns=[*names.split(), "p", "p_holm", "note"])
    for _, part in table.groupby(["method", "downstream", "donor_stratum"]):
        table.loc[part.index, "p_holm"] = holm(part.p.to_numpy(dtype=float))
    return table


def mediation_table(records: pd.DataFrame | Frame) -> pd.DataFrame:
    """Total, direct and indirect effect of each edit (pp), from the arms that freeze what follows it.

    Total = recompute; direct = the same edit with the later slots held at the host's clean values; indirect = total
    - direct on the same pairs (Pearl 2001; Vig et al. 2020 for language models). Where no unedited slot follows the
    edit, freezing changes nothing and the indirect effect is 0 by construction, and marked so.

    Returns:
        One row per method, stratum, slot set and freeze, with total_pp, direct_pp, indirect_pp, each with _low and
        _high, indirect_p and indirect_p_holm (over the single slots), counts, by_construction and note.
    """
    frame = as_frame(records)
    frozen = sorted({(k.method, k.stratum, k.downstream) for k in frame.arms if k.downstream in FREEZES})
    rows: list[dict[str, object]] = []
    for method, stratum, freeze in frozen:
        for key, total in frame.arms.items():
            if key.family != (method, "recompute", stratum) or not key.slots or not len(total):
                continue
            last = reaches_end(key.slots, frame.n_slots)
            held = frame.arms.get(ArmKey(method, key.slots, freeze, stratum))
            if (held is None or not len(held)) and not last:
                continue
            direct = total if last or held is None else held
            effects = {"total": impact(total), "direct": impact(direct)}
            row: dict[str, object] = {"slots": frame.label(key.slots), "method": method, "donor_stratum": stratum}
            row |= {"freeze": freeze, "n_hosts": total.n_hosts, "n_donors": total.n_donors, "n_pairs": len(total)}
            notes = []
            for name, est in effects.items():
                row |= {f"{name}_pp": 100 * est.value, f"{name}_low": 100 * est.low, f"{name}_high": 100 * est.high}
                notes += [f"{name}: {est.note}"] if est.note else []
            if last:
                row |= {"indirect_pp": 0.0, "indirect_low": np.nan, "indirect_high": np.nan, "indirect_p": np.nan}
                notes.append("no slot follows: indirect is 0 by construction")
            else:
                est = paired_difference(total, direct)
                row |= {"indirect_pp": 100 * est.value, "indirect_low": 100 * est.low}
                row |= {"indirect_high": 100 * est.high, "indirect_p": est.p, "n_pairs": est.n}
                notes += [f"indirect: {est.note}"] if est.note else []
            rows.append(row | {"indirect_p_holm": np.nan, "by_construction": last, "note": "; ".join(notes)})
    names = "slots method donor_stratum freeze n_hosts n_donors n_pairs total_pp total_low total_high direct_pp"
    names += " direct_low direct_high indirect_pp indirect_low indirect_high indirect_p indirect_p_holm"
    table = pd.DataFrame(rows, columns=[*names.split(), "by_construction", "note"])
    single = table.slots.astype(str).str.fullmatch(r"CT\d+") & (table.by_construction != True)  # noqa: E712
    for _, part in table[single].groupby(["method", "donor_stratum", "freeze"]):
        table.loc[part.index, "indirect_p_holm"] = holm(part.indirect_p.to_numpy(dtype=float))
    return table


def dose_table(records: pd.DataFrame | Frame) -> pd.DataFrame:
    """Accuracy against the number of slots edited, from the first slot on and back from the last.

    Returns:
        Columns method, downstream, donor_stratum, series ("from first": CT0..k; "to last": k..last), n_slots, slots,
        acc (fraction), impact_pp, ci_low, ci_high, step_pp (this dose - the one before, on the same pairs; the dose
        before the first is no edit), step_low, step_high, step_p, n_hosts, n_gen, note.
    """
    frame = as_frame(records)
    last, rows = frame.n_slots, []
    for method, downstream, stratum in frame.families():
        for series in ("from first", "to last"):
            before: Cells | None = None
            starts = [0] * last if series == "from first" else list(range(last - 1, -1, -1))
            sets = [tuple(range(start, start + n)) for n, start in enumerate(starts, start=1)]
            arms = [frame.arms.get(ArmKey(method, slots, downstream, stratum)) for slots in sets]
            # A single slot alone is no dose-response.
            if sum(arm is not None and len(arm) > 0 for arm in arms) < 2:
                continue
            for slots, arm in zip(sets, arms, strict=True):
                if arm is None or not len(arm):
                    before = None
                    continue
                est = impact(arm)
                step = est if len(slots) == 1 else paired_difference(arm, before) if before is not None else None
                steps = (100 * step.value, 100 * step.low, 100 * step.high, step.p) if step else (np.nan,) * 4
                figures = (float(arm.weight @ arm.correct), 100 * est.value, 100 * est.low, 100 * est.high)
                note = est.note if step else "the dose before it was not run"
                where = (method, downstream, stratum, series, len(slots), frame.label(slots))
                rows.append((*where, *figures, *steps, arm.n_hosts, len(arm), note))
                before = arm
    names = "method downstream donor_stratum series n_slots slots acc impact_pp ci_low ci_high"
    return pd.DataFrame(rows, columns=f"{names} step_pp step_low step_high step_p n_hosts n_gen note".split())
