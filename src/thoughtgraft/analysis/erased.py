"""The table of the erasure study: does taking a label's directions out change the answers more than random ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thoughtgraft.analysis.clustered import clustered_mean
from thoughtgraft.analysis.multiplicity import holm
from thoughtgraft.analysis.power import detectable_pp
from thoughtgraft.errors import AnalysisError

ALPHA = 0.05
_ERASED = -1  # stands among the draws for the erasure itself
MORE = "erasing it matters more than random directions"
LESS = "erasing it matters less than random directions"
NONE = "no evidence"
DEAD = "structurally dead: nothing reads the stream after it"

COLUMNS = (
    "layer", "slots", "n", "draws", "n_failed", "base_acc", "acc", "impact_pp", "impact_low", "impact_high", "changed",
    "random_acc", "random_impact_pp", "random_low", "random_high", "random_changed", "difference_pp", "ci_low",
    "ci_high", "p", "p_holm", "p_draws", "mde80_pp", "read_before", "read_after", "read_random", "chance", "change",
    "random_change", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """What a recorded method did: erased the label (`draw` None) or took random directions out, after one layer."""

    layer: int
    draw: int | None = None


@dataclass(frozen=True)
class Reading:
    """What an edit does to held-out features of one cell; a mean over slots where several are edited.

    Attributes:
        before: Balanced accuracy of a linear probe.
        after: The same once the label is erased.
        random: The same once random directions are taken out (the first draw).
        chance: What a constant answer gets.
        change: Mean of |x' - x| / |x| of the erasure.
        random_change: The same, mean over the random draws.
    """

    before: float
    after: float
    random: float
    chance: float
    change: float
    random_change: float


def mean_reading(readings: Sequence[Reading]) -> Reading:
    """One for several slots."""
    names = Reading.__dataclass_fields__
    return Reading(**{name: float(np.mean([getattr(one, name) for one in readings])) for name in names})


def read_label(x: np.ndarray, labels: Sequence[str], seed: int, folds: int = 5) -> float:
    """Cross-validated balanced accuracy of a ridge classifier that is fitted to these very features [n, d].

    Raises:
        AnalysisError: A class has fewer rows than two folds need.
    """
    values = np.asarray(labels)
    fewest = int(np.unique(values, return_counts=True)[1].min())
    if fewest < 2:
        raise AnalysisError("a probe needs two held-out problems of each class", got=fewest)
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-1, 5, 7), class_weight="balanced"))
    splits = StratifiedKFold(min(folds, fewest), shuffle=True, random_state=seed)
    return float(balanced_accuracy_score(values, cross_val_predict(probe, x, values, cv=splits)))


def erasure_table(
    records: pd.DataFrame,
    conditions: Mapping[str, Condition],
    readings: Mapping[tuple[int, tuple[int, ...]], Reading],
    *,
    depth: int,
    num_latents: int,
) -> pd.DataFrame:
    """One row for each layer and set of slots, with the columns of `COLUMNS`.

    Shares and accuracies are fractions, impacts and differences percentage points of accuracy lost. Hosts vary, and
    so do the random directions: the interval and `p` of `difference_pp` (the erasure's impact less the random one's)
    are two-way clustered over hosts and draws. `p_holm` is over the cells that are not structurally dead. `p_draws`
    is the rank of the erasure's impact among the draws', (b + 1) / (draws + 1), each draw on its own hosts. A verdict
    needs both at 5%. Failed cells (`n_failed`) are left out: a host whose erasure failed, and single draws of others.

    Args:
        records: Records of the run, one for each host and arm.
        conditions: What each recorded method did.
        readings: By layer and slots.
        depth: Layers of the model.
        num_latents: Its slots, K.

    Raises:
        AnalysisError: A cell lacks hosts or arms.
    """
    edited = records[records["method"].isin(list(conditions))]
    cells = {cell: i for i, cell in enumerate(readings)}
    place = np.array(
        [
            cells[conditions[method].layer, tuple(int(k) for k in slots)]
            for method, slots in zip(edited["method"], edited["slots"], strict=True)
        ]
    )
    draws = [conditions[method].draw for method in edited["method"]]
    edited = edited.assign(draw=[_ERASED if draw is None else draw for draw in draws])
    rows = []
    for i, ((layer, slots), reading) in enumerate(readings.items()):
        wide = edited[place == i].pivot(
            index="problem_id", columns="draw", values=["base_correct", "correct", "changed"]
        )
        if wide.empty or wide["base_correct"].isna().any(axis=None) or _ERASED not in wide["correct"]:
            raise AnalysisError(f"layer {layer}, slots {list(slots)}: not every arm has every host")
        dead = layer == depth - 1 and slots == (num_latents - 1,)
        rows.append(_row(wide, dead) | {"layer": layer, "slots": list(slots)} | _read(reading))
    table = pd.DataFrame(rows)
    alive = table["verdict"] != DEAD
    table.loc[alive, "p_holm"] = holm(table.loc[alive, "p"].to_numpy(float))
    found = alive & (table["p_holm"] < ALPHA)
    table.loc[found & (table["difference_pp"] > 0) & (table["p_draws"] <= ALPHA), "verdict"] = MORE
    table.loc[found & (table["difference_pp"] < 0), "verdict"] = LESS
    return table[list(COLUMNS)]


def _row(wide: pd.DataFrame, dead: bool) -> dict[str, Any]:
    own = list(wide["correct"].columns).index(_ERASED)
    parts = [wide[name].astype(object).where(wide[name].notna(), np.nan) for name in ("correct", "changed")]
    correct, changed = (part.to_numpy(float) for part in parts)
    base = wide["base_correct"].to_numpy(float)[:, own]
    n_failed = int(np.isnan(correct).sum())
    drawn = np.delete(correct, own, 1)
    used = np.isfinite(correct[:, own]) & np.isfinite(drawn).any(1)
    correct, changed, base, drawn = (values[used] for values in (correct, changed, base, drawn))
    drawn_changed = np.delete(changed, own, 1)
    erased, random = base - correct[:, own], base[:, None] - drawn
    n, draws = drawn.shape
    host, draw = np.repeat(np.arange(n), draws), np.tile(np.arange(draws), n)
    # Every host counts alike, however many of its draws are there.
    known = np.isfinite(drawn)
    single, many = np.ones(n), np.where(known, 1 / np.maximum(known.sum(1), 1)[:, None], 0.0)
    impact = clustered_mean(erased, np.arange(n), None, single)
    control = clustered_mean(random.ravel(), host, draw, many.ravel())
    gap = clustered_mean((erased[:, None] - random).ravel(), host, draw, many.ravel())
    met = known.any(0)
    beyond = (np.where(known, random - erased[:, None], 0.0).sum(0) / np.maximum(known.sum(0), 1))[met]
    as_large = int((beyond >= -1e-12).sum())

    def over_hosts(values: np.ndarray, weight: np.ndarray) -> float:
        return float(np.nansum(values * weight) / weight.sum()) if n else np.nan

    return {
        "n": n,
        "draws": int(met.sum()),
        "n_failed": n_failed,
        "base_acc": over_hosts(base, single),
        "acc": over_hosts(correct[:, own], single),
        "impact_pp": 100 * impact.value,
        "impact_low": 100 * impact.low,
        "impact_high": 100 * impact.high,
        "changed": over_hosts(changed[:, own], single),
        "random_acc": over_hosts(drawn, many),
        "random_impact_pp": 100 * control.value,
        "random_low": 100 * control.low,
        "random_high": 100 * control.high,
        "random_changed": over_hosts(drawn_changed, many),
        "difference_pp": 100 * gap.value,
        "ci_low": 100 * gap.low,
        "ci_high": 100 * gap.high,
        "p": np.nan if dead else gap.p,
        "p_holm": np.nan,
        "p_draws": np.nan if dead or not n else (as_large + 1) / (int(met.sum()) + 1),
        "mde80_pp": np.nan if dead else detectable_pp(gap.se, gap.df),
        "verdict": DEAD if dead else NONE,
    }


def _read(reading: Reading) -> dict[str, float]:
    return {
        "read_before": reading.before,
        "read_after": reading.after,
        "read_random": reading.random,
        "chance": reading.chance,
        "change": reading.change,
        "random_change": reading.random_change,
    }
