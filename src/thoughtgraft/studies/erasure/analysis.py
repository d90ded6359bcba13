"""Erasure: LEACE and random erasers fitted, then what erasing did beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thoughtgraft.effects.gates import RULE, Rule
from thoughtgraft.errors import AnalysisError
from thoughtgraft.stats.intervals import MIN_DONORS, MIN_HOSTS, Bounds, Sample, family_bounds
from thoughtgraft.stats.power import detectable_pp
from thoughtgraft.stats.resampling import holm
from thoughtgraft.stats.verdicts import Verdict, verdict

_NOTHING = 1e-9  # a singular value below this share of the largest is rounding
_STEEPEST = 16.0


@dataclass(frozen=True)
class Eraser:
    """The affine map x -> x - U V^T (x - mean), a projection along U of rank r.

    Attributes:
        u: [d, r].
        v: [d, r], with V^T U = 1.
        mean: [d], which it leaves where it is.
        removed: The variance of the features that it takes out (summed over dimensions, shrunk as in the fit).
    """

    u: np.ndarray
    v: np.ndarray
    mean: np.ndarray
    removed: float

    @property
    def rank(self) -> int:
        """R."""
        return int(self.u.shape[1])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The features [n, d] without the subspace."""
        return np.asarray(x - (x - self.mean) @ self.v @ self.u.T)

    def change(self, x: np.ndarray) -> float:
        """How far it moves features [n, d]: the mean over rows of |x' - x| / |x|."""
        return float((np.linalg.norm(self(x) - x, axis=1) / np.linalg.norm(x, axis=1)).mean())


@dataclass(frozen=True)
class Fit:
    """The erasure of one label from features, and the geometry in which it changes them least.

    Attributes:
        eraser: The erasure; its rank is the number of classes less 1, or less where class means lie in a lower space.
        basis: Orthonormal directions in which the training rows vary [d, m].
        scale: Their standard deviations, shrunk [m]; dividing by them whitens.
        whitened: The erased directions in whitened coordinates, orthonormal [m, r].
    """

    eraser: Eraser
    basis: np.ndarray
    scale: np.ndarray
    whitened: np.ndarray

    def random(self, draws: int, seed: Sequence[int]) -> list[Eraser]:
        """Erasers of the same rank that take as much variance out, and nothing of the label.

        Directions are drawn in the whitened geometry and made orthogonal there to the erased ones. The class means of
        the training rows therefore stay exactly where they were.

        The draws must also move states as far as the erasure does: an edit that moves them further breaks more,
        whatever it means. A label tends to lie along directions of more than average variance. So the draws are tilted
        towards directions of large (or small) variance, by a weight sd^t with one t for all, until they take out on
        average as much as the erasure. Where no tilt reaches that, the nearest is taken, and `change` shows the gap.

        Args:
            draws: How many.
            seed: Seeds the draws.

        Raises:
            AnalysisError: Too few directions are left to draw from.
        """
        rank, free = self.eraser.rank, len(self.scale) - self.eraser.rank
        if free < rank:
            raise AnalysisError(
                "no random directions are left beside the erased ones",
                got=f"{len(self.scale)} directions in all, {rank} erased",
                fix="fit on more problems",
            )
        normal = np.random.default_rng(list(seed)).standard_normal((draws, len(self.scale), rank))
        log_scale = np.log(self.scale / self.scale.max())[:, None]

        def tilted(tilt: float) -> np.ndarray:
            # Columns are brought to one length first: a steep tilt makes them tiny.
            drawn = normal * np.exp(tilt * log_scale - max(0.0, float((tilt * log_scale).max())))
            drawn = drawn - self.whitened @ (self.whitened.T @ drawn)
            return np.asarray(np.linalg.qr(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))[0])

        def gap(tilt: float) -> float:
            return float(np.mean(np.sum((self.scale[:, None] * tilted(tilt)) ** 2, (1, 2)))) - self.eraser.removed

        low, high = gap(-_STEEPEST), gap(_STEEPEST)
        if low < 0 < high:
            tilt = float(brentq(gap, -_STEEPEST, _STEEPEST, xtol=1e-6))
        else:
            tilt = _STEEPEST if high <= 0 else -_STEEPEST
        return [self._eraser(q) for q in tilted(tilt)]

    def _eraser(self, whitened: np.ndarray) -> Eraser:
        return _unwhitened(whitened, self.basis, self.scale, self.eraser.mean)


def fit_erasure(x: np.ndarray, labels: Sequence[object], shrinkage: float | None = None) -> Fit:
    """The least change of features after which no linear classifier of the label beats a constant one on these rows.

    With W = S^(-1/2), S the covariance of the features, the erased directions span W C, C being their covariance with
    the classes: x' = x - W^-1 Q Q^T W (x - mean). Whatever S is, the classes then have equal means; with the true
    covariance the mean squared change is the least possible. With fewer rows than dimensions S is singular: it is
    taken within the span of the rows, and its eigenvalues are shrunk towards their mean (Ledoit-Wolf), so that
    directions which hardly vary by chance do not count as free of cost.

    Args:
        x: Features [n, d].
        labels: The class of each row.
        shrinkage: How far eigenvalues go towards their mean, 0 to 1; None is Ledoit-Wolf's choice.

    Raises:
        AnalysisError: Fewer than two classes, too few rows, or class means that do not differ.
    """
    x = np.asarray(x, dtype=np.float64)
    classes, codes = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    if len(classes) < 2 or len(x) <= len(classes):
        raise AnalysisError(
            "a label needs two classes or more, and more rows than classes, to be erased",
            got=f"{len(classes)} classes, {len(x)} rows",
        )
    mean = x.mean(0)
    centred = x - mean
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    kept = singular > _NOTHING * max(singular[0], np.finfo(float).tiny)
    basis = directions[kept].T
    if shrinkage is None:
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True)) if kept.any() else 0.0
    variance = singular[kept] ** 2 / len(x)
    scale = np.sqrt((1 - shrinkage) * variance + shrinkage * variance.sum() / x.shape[1])
    indicator = np.eye(len(classes))[codes]
    shared = (basis.T @ (centred.T @ (indicator - indicator.mean(0)))) / len(x) / scale[:, None]
    left, strength, _ = np.linalg.svd(shared, full_matrices=False)
    # An absolute bound: in whitened coordinates a label of equal means has only rounding left.
    rank = int((strength > 1e-7).sum())
    if rank == 0:
        raise AnalysisError("the classes have the same mean, so there is nothing to erase", got=", ".join(classes))
    whitened = left[:, :rank]
    return Fit(_unwhitened(whitened, basis, scale, mean), basis, scale, whitened)


def _unwhitened(whitened: np.ndarray, basis: np.ndarray, scale: np.ndarray, mean: np.ndarray) -> Eraser:
    along = scale[:, None] * whitened
    return Eraser(basis @ along, basis @ (whitened / scale[:, None]), mean, float((along**2).sum()))


NOT_READ = "nothing reads the stream after it: the effect is 0 by construction"
TOO_SMALL = f"too small for any interval that is known to hold: fewer than {MIN_HOSTS} hosts or {MIN_DONORS} draws"
_ERASED = -1  # stands among the draws for the erasure itself

COLUMNS = (
    "layer", "slots", "n", "draws", "n_failed", "base_acc", "acc", "impact_pp", "impact_low", "impact_high", "changed",
    "random_acc", "random_impact_pp", "random_low", "random_high", "random_changed", "difference_pp", "ci_low",
    "ci_high", "sim_low", "sim_high", "p", "p_holm", "p_draws", "mde80_pp", "read_before", "read_after", "read_random",
    "chance", "change", "random_change", "verdict", "note",
)  # fmt: skip


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
    draws: Mapping[str, int | None],
    readings: Mapping[tuple[int, tuple[int, ...]], Reading],
    *,
    depth: int,
    num_latents: int,
    rule: Rule = RULE,
) -> pd.DataFrame:
    """One row for each layer and set of slots, with the columns of `COLUMNS`.

    Shares and accuracies are fractions; impacts and differences are percentage points of accuracy lost.

    `difference_pp` is the erasure's impact less that of the random directions. Hosts vary and so do the directions, so
    its interval (`ci_*`) and `p` are two-way clustered over hosts and draws. `sim_*` are intervals that hold for all
    cells of the table together, and `verdict` is where they lie beside 0 and the rule's margin.

    `p_holm` is over the same cells. `p_draws` is the rank of the erasure's impact among the draws',
    (b + 1) / (draws + 1), each draw on its own hosts. Neither decides a verdict.

    Nothing reads the stream of the last slot after the last layer: its effect is 0 by construction, and it is in no
    family. Failed cells (`n_failed`) are left out: a host whose erasure failed, and single draws of others.

    Args:
        records: Records of the run, one for each host and arm.
        draws: Which draw of random directions each recorded method took out; None of the one that erased the label.
        readings: By layer and slots.
        depth: Layers of the model.
        num_latents: Its slots, K.
        rule: Gives the intervals their level and the verdicts their margin.

    Raises:
        AnalysisError: A cell lacks hosts or arms.
    """
    grids, n_cells = _grids(records, draws, list(readings))
    live = [i for i, (layer, slots) in enumerate(readings) if not (layer == depth - 1 and slots == (num_latents - 1,))]
    # Another cell's directions are others: each cell has draws of its own.
    gaps = family_bounds([grids[i].gap(first_draw=i * n_cells) for i in live], alpha=rule.alpha)
    found = dict(zip(live, gaps, strict=True))
    adjusted = dict(zip(live, holm(np.array([bounds.estimate.p for bounds in gaps], dtype=float)), strict=True))
    rows = [
        {"layer": layer, "slots": list(slots)}
        | grids[i].row(rule.alpha)
        | _judged(found.get(i), rule)
        | {"p_holm": adjusted.get(i, np.nan), "p_draws": grids[i].rank() if i in found else np.nan}
        | _read(reading)
        for i, ((layer, slots), reading) in enumerate(readings.items())
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _grids(
    records: pd.DataFrame, draws: Mapping[str, int | None], readings: Sequence[tuple[int, tuple[int, ...]]]
) -> tuple[list[_Grid], int]:
    """The grid of each layer and set of slots, and how many edited cells there are in all."""
    edited = records[records["method"].isin(list(draws))]
    cells = {cell: i for i, cell in enumerate(readings)}
    place = np.array(
        [
            cells[int(layer), tuple(int(k) for k in slots)]
            for layer, slots in zip(edited["site_layer"], edited["slots"], strict=True)
        ]
    )
    number = {method: _ERASED if draw is None else draw for method, draw in draws.items()}
    edited = edited.assign(draw=edited["method"].map(number))
    grids = []
    for i, (layer, slots) in enumerate(readings):
        wide = edited[place == i].pivot(
            index="problem_id", columns="draw", values=["base_correct", "correct", "changed"]
        )
        if wide.empty or wide["base_correct"].isna().any(axis=None) or _ERASED not in wide["correct"]:
            raise AnalysisError(f"layer {layer}, slots {list(slots)}: not every arm has every host")
        grids.append(_Grid.of(wide))
    return grids, len(edited)


@dataclass(frozen=True)
class _Grid:
    """One cell's grades and changed answers: unedited, with the erasure, and with each draw of random directions.

    `base`, `erased` and `changed` are of shape [host], `drawn` and `drawn_changed` [host, draw] with NaN where a draw
    failed. `weight` [host, draw] counts every host alike, however many of its draws are there.
    """

    base: np.ndarray
    erased: np.ndarray
    changed: np.ndarray
    drawn: np.ndarray
    drawn_changed: np.ndarray
    weight: np.ndarray
    n_failed: int

    @classmethod
    def of(cls, wide: pd.DataFrame) -> _Grid:
        own = list(wide["correct"].columns).index(_ERASED)
        parts = [wide[name].astype(object).where(wide[name].notna(), np.nan) for name in ("correct", "changed")]
        correct, changed = (part.to_numpy(float) for part in parts)
        base = wide["base_correct"].to_numpy(float)[:, own]
        n_failed, drawn = int(np.isnan(correct).sum()), np.delete(correct, own, 1)
        used = np.isfinite(correct[:, own]) & np.isfinite(drawn).any(1)
        correct, changed, base, drawn = (values[used] for values in (correct, changed, base, drawn))
        known = np.isfinite(drawn)
        weight = np.where(known, 1 / np.maximum(known.sum(1), 1)[:, None], 0.0)
        return cls(base, correct[:, own], changed[:, own], drawn, np.delete(changed, own, 1), weight, n_failed)

    def _crossed(self, values: np.ndarray, first_draw: int = 0) -> Sample:
        n, draws = self.drawn.shape
        host, draw = np.repeat(np.arange(n), draws), first_draw + np.tile(np.arange(draws), n)
        return Sample(values.ravel(), host, draw, self.weight.ravel(), "difference")

    def gap(self, first_draw: int) -> Sample:
        """The erasure's loss less the draws'. The baseline is the same, so it is the difference of two grades."""
        return self._crossed(self.drawn - self.erased[:, None], first_draw)

    def rank(self) -> float:
        """(b + 1) / (draws + 1), b the draws that cost as much as the erasure; NaN where no host is left."""
        known = np.isfinite(self.drawn)
        met = known.any(0)
        more = np.where(known, self.erased[:, None] - self.drawn, 0.0).sum(0) / np.maximum(known.sum(0), 1)
        return (int((more[met] >= -1e-12).sum()) + 1) / (int(met.sum()) + 1) if len(self.base) else np.nan

    def row(self, alpha: float) -> dict[str, Any]:
        """Figures of the erasure and of the draws, each by itself."""
        n, single = len(self.base), np.ones(len(self.base))
        own = Sample(self.base - self.erased, np.arange(n), None, single, "difference")
        impact, control = (
            family_bounds([sample], alpha=alpha)[0] for sample in (own, self._crossed(self.base[:, None] - self.drawn))
        )

        def over_hosts(values: np.ndarray, weight: np.ndarray) -> float:
            return float(np.nansum(values * weight) / weight.sum()) if n else np.nan

        return {
            "n": n,
            "draws": int(np.isfinite(self.drawn).any(0).sum()),
            "n_failed": self.n_failed,
            "base_acc": over_hosts(self.base, single),
            "acc": over_hosts(self.erased, single),
            "impact_pp": 100 * impact.estimate.value,
            "impact_low": 100 * impact.low,
            "impact_high": 100 * impact.high,
            "changed": over_hosts(self.changed, single),
            "random_acc": over_hosts(self.drawn, self.weight),
            "random_impact_pp": 100 * control.estimate.value,
            "random_low": 100 * control.low,
            "random_high": 100 * control.high,
            "random_changed": over_hosts(self.drawn_changed, self.weight),
        }


def _judged(gap: Bounds | None, rule: Rule) -> dict[str, Any]:
    """The difference with its intervals and verdict; None: it is 0 by construction."""
    if gap is None:
        return {"verdict": Verdict.BY_CONSTRUCTION, "note": NOT_READ}
    est, notes = gap.estimate, [gap.note] if gap.note else []
    notes += [TOO_SMALL] if gap.too_small and np.isfinite(gap.sim_low) else []
    return {
        "difference_pp": 100 * est.value,
        "ci_low": 100 * gap.low,
        "ci_high": 100 * gap.high,
        "sim_low": 100 * gap.sim_low,
        "sim_high": 100 * gap.sim_high,
        "p": est.p,
        "mde80_pp": detectable_pp(est.se, est.df),
        "verdict": verdict(gap.sim_low, gap.sim_high, rule.margin, too_small=gap.too_small),
        "note": "; ".join(notes),
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
