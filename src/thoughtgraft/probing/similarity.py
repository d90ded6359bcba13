"""Similarity within and between classes, tested on the whole matrix: cosines, PERMANOVA, Mantel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.probing.controls import Setup, control_task, map_p, probe_linear, text_outcome
from thoughtgraft.probing.rows import Folds, Rows, join, make_folds
from thoughtgraft.probing.scores import Interval, Outcome, corrected_t, label_orders
from thoughtgraft.stats.resampling import family_rng, resampling_p

VIEWS = ("raw", "centred", "whitened")
WHITE_COMPONENTS = 64
ROWS_PER_COMPONENT = 4


def similarity_rows(x: np.ndarray, rows: Rows, folds: Folds, orders: np.ndarray) -> list[dict[str, Any]]:
    """How alike problems of one class are at one cell, in three views.

    Args:
        x: Features [row, d].
        rows: The problems and their target.
        folds: Of their first repeat, training rows centre and whiten, and test rows are compared.
        orders: Permuted orders, the identity first, [permutation + 1, row].

    Returns:
        One row per view (raw; centred and whitened by training folds, pairs of one test fold only): mean cosine
        within and between classes, gap, mantel_r (of cosine with being of one class; for a number, with minus the
        distance of the values) and its permutation p; and on the raw view's row the PERMANOVA of Euclidean distances
        (Anderson 2001): pseudo-F, R2, p. NaN with a note where undefined.
    """
    first = folds.first(1).folds
    everything = ~np.eye(len(rows), dtype=bool)
    block = np.zeros_like(everything)
    for fold in first:
        block[np.ix_(fold.test, fold.test)] = True
    block &= everything
    views = {"raw": (x, everything), "centred": (_centred(x, first), block), "whitened": (_whitened(x, first), block)}
    out = []
    for view, (features, mask) in views.items():
        pairs = int(mask.sum() // 2)
        found: dict[str, Any] = mantel(cosines(features), mask, rows, orders) | {"view": view, "n_pairs": pairs}
        undefined = {"pseudo_f": np.nan, "r2": np.nan, "p_permanova": np.nan, "note": ""}
        if np.isnan(found["mantel_r"]):
            undefined["note"] = "Mantel undefined: too few pairs in the test folds"
        if view == "raw" and rows.kind == "class":
            undefined |= permanova(x, rows, orders)
        elif view == "raw":
            undefined["note"] = "PERMANOVA is for classes"
        out.append(found | undefined)
    return out


def cosines(x: np.ndarray) -> np.ndarray:
    """Cosine of every pair of rows, [row, row]; a row of zeros has cosine 0 with all."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(norms > 0, norms, 1)
    return np.asarray(unit @ unit.T)


def mantel(cosine: np.ndarray, mask: np.ndarray, rows: Rows, orders: np.ndarray) -> dict[str, float]:
    """Correlation of similarity with likeness of labels over the pairs in `mask`, and its p by permuting labels.

    Pairs share problems, so they are not independent: the labels of problems are permuted, never pairs (Mantel 1967).
    The p is one-sided: like labels, like features. NaN where no two pairs differ in likeness or in cosine.
    """
    inside = cosine[mask]
    kept = np.where(mask, cosine - inside.mean(), 0).astype(np.float32)
    spread = float(np.sqrt((kept**2).sum()))
    weight = mask.astype(np.float32)
    products, means, squares = _likeness(kept, weight, rows, orders)
    n = float(weight.sum())
    varied = squares - means**2 / n > 1e-9
    if not varied[0] or spread == 0:
        return dict.fromkeys(("mantel_r", "p_mantel", "within", "between", "gap"), np.nan)
    r = np.where(varied, products / (spread * np.sqrt(np.where(varied, squares - means**2 / n, 1))), 0)
    found = {"mantel_r": float(r[0]), "p_mantel": float(resampling_p((r[1:] >= r[0] - 1e-9).sum(), len(r) - 1))}
    if rows.kind == "number":
        return found | {"within": np.nan, "between": np.nan, "gap": np.nan}
    # Where likeness varies, both kinds of pairs exist.
    same = rows.values[:, None] == rows.values[None]
    within, between = (float(cosine[mask & part].mean()) for part in (same, ~same))
    return found | {"within": within, "between": between, "gap": within - between}


def _likeness(
    kept: np.ndarray, weight: np.ndarray, rows: Rows, orders: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By permutation: sum over pairs of similarity x likeness, of likeness, and of its square, each [permutation]."""
    labels = rows.values[orders]
    if rows.kind == "class":
        # Likeness is 1 for equal classes: sums over pairs are quadratic forms of the indicators.
        products, counts = np.zeros(len(orders)), np.zeros(len(orders))
        for code in range(len(rows.classes)):
            member = (labels == code).astype(np.float32)
            products += np.einsum("mn,mn->m", member @ kept, member)
            counts += np.einsum("mn,mn->m", member @ weight, member)
        return products, counts, counts
    far = -np.abs(rows.values[:, None] - rows.values[None]).astype(np.float32)
    sums = []
    for order in orders:
        permuted = far[np.ix_(order, order)]
        sums.append(((kept * permuted).sum(), (weight * permuted).sum(), (weight * permuted**2).sum()))
    products, means, squares = np.array(sums).T
    return products, means, squares


def permanova(x: np.ndarray, rows: Rows, orders: np.ndarray) -> dict[str, float]:
    """Pseudo-F of Euclidean distances between classes, its share of the sum of squares, and the permutation p."""
    z = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    gram = z @ z.T
    total, n, k = float(np.trace(gram)), len(rows), len(rows.classes)
    labels, between = rows.values[orders], np.zeros(len(orders))
    for code in range(k):
        member = (labels == code).astype(np.float64)
        between += np.einsum("mn,mn->m", member @ gram, member) / np.maximum(member.sum(1), 1)
    if total <= 0 or n <= k:
        return {}
    f = (between / (k - 1)) / np.maximum((total - between) / (n - k), 1e-12 * total)
    p = resampling_p((f[1:] >= f[0] * (1 - 1e-9)).sum(), len(f) - 1)
    return {"pseudo_f": float(f[0]), "r2": float(between[0] / total), "p_permanova": float(p)}


def _centred(x: np.ndarray, folds: Any) -> np.ndarray:
    out = np.zeros_like(x)
    for fold in folds:
        out[fold.test] = x[fold.test] - x[fold.train].mean(0)
    return out


def _whitened(x: np.ndarray, folds: Any) -> np.ndarray:
    """Rows in units of the training rows' leading components: few enough that each is well estimated."""
    n = min(len(f.train) for f in folds)
    keep = max(1, min(WHITE_COMPONENTS, n // ROWS_PER_COMPONENT, x.shape[1]))
    out = np.zeros((len(x), keep), dtype=np.float32)
    for fold in folds:
        centre = x[fold.train].mean(0)
        z = x[fold.train] - centre
        if z.shape[1] > z.shape[0]:
            values, vectors = np.linalg.eigh(z @ z.T)
            values, vectors = values[::-1][:keep], vectors[:, ::-1][:, :keep]
            directions = z.T @ (vectors / np.maximum(values, 1e-6 * values[0]))
        else:
            values, vectors = np.linalg.eigh(z.T @ z)
            values, vectors = values[::-1][:keep], vectors[:, ::-1][:, :keep]
            directions = vectors / np.sqrt(np.maximum(values, 1e-6 * values[0]))
        out[fold.test] = (x[fold.test] - centre) @ directions
    return out


FOLDS, REPEATS, PERMUTATIONS = 5, 2, 200
COLUMNS = (
    "model", "target", "state", "n", "cv", "score", "ci_low", "ci_high", "text", "gain", "gain_low", "gain_high",
    "p_perm", "p_maxT", "note",
)  # fmt: skip


@dataclass(frozen=True)
class StateReadings:
    """What the linear probe reads of one label in `hidden[k]` of each model, beside the question's words.

    Attributes:
        rows: The problems, with the label.
        folds: Shared by all models, states and the text baseline.
        outcomes: By model: one for each state, k = 0 first.
        text: The question-only baseline.
    """

    rows: Rows
    folds: Folds
    outcomes: Mapping[str, tuple[Outcome, ...]]
    text: Outcome

    def table(self) -> pd.DataFrame:
        """One row per model and state.

        Returns:
            Balanced accuracy `score`, the baseline's `text` and `gain` = score - text, as fractions, with corrected
            resampled t intervals (95%); `p_perm` of the state alone and `p_maxT` adjusted over the model's states.
        """
        found = []
        for model, outcomes in self.outcomes.items():
            alone, whole = map_p(list(outcomes))
            for k, outcome in enumerate(outcomes):
                own, gain = corrected_t(outcome.score, self.folds), self.gain(outcome.score)
                where = (model, self.rows.target, k, len(self.rows), self.folds.label)
                figures = (own.value, own.low, own.high, self.text.mean, gain.value, gain.low, gain.high)
                note = "; ".join(dict.fromkeys(x for x in (own.note, gain.note) if x))
                found.append((*where, *figures, float(alone[k]), float(whole[k]), note))
        return pd.DataFrame(found, columns=list(COLUMNS))

    def gain(self, score: np.ndarray) -> Interval:
        """Score [fold] minus the text baseline's, paired by fold."""
        return corrected_t(score - self.text.score, self.folds)

    def thinking(self, model: str) -> np.ndarray:
        """Mean score over the states after begin-of-thought, `hidden[1..K]`, by fold [fold]."""
        return np.asarray(np.mean([outcome.score for outcome in self.outcomes[model][1:]], axis=0))


def read_states(
    states: Mapping[str, np.ndarray], ids: Sequence[str], labels: pd.DataFrame, target: str, seed: int = 0
) -> StateReadings:
    """Cross-validate the closed-form linear probe at every state of every model.

    Args:
        states: By model, float32 [problem, K + 1, d].
        ids: The problems, in the order of the states' rows.
        labels: Columns `id`, `question` and `target`; `split` and `template` where known.
        target: The label, taken as a class.
        seed: Seeds folds and permutations.

    Raises:
        AnalysisError: Too few problems, or the label has one value only.
    """
    rows = join(ids, labels, target, "class").without_rare(FOLDS)
    setup = Setup(
        rows,
        make_folds(rows, FOLDS, REPEATS, seed),
        label_orders(rows.groups, rows.split, PERMUTATIONS, family_rng(seed, "permute", target, "states")),
        control_task(rows, 1, family_rng(seed, "control", target)),
    )
    outcomes = {
        model: tuple(
            probe_linear(np.ascontiguousarray(x[rows.index, k], dtype=np.float32), setup) for k in range(x.shape[1])
        )
        for model, x in states.items()
    }
    text = text_outcome(rows, setup.folds)
    assert text is not None, "the labels have questions"
    return StateReadings(rows, setup.folds, outcomes, text)
