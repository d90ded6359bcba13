"""States in pictures: principal components, alignment of means, curves over the number of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.probing.controls import Setup, probe_linear, text_model
from thoughtgraft.probing.probes import LOGISTIC, run_estimator
from thoughtgraft.probing.rows import FEWEST, Fold, Folds, Place, Rows
from thoughtgraft.probing.scores import corrected_t, label_orders
from thoughtgraft.probing.similarity import similarity_rows
from thoughtgraft.probing.stratum import Settings, Stratum, chosen_layers, each
from thoughtgraft.records.states import States
from thoughtgraft.stats.resampling import benjamini_hochberg, family_rng

# Matrices of problems by problems grow with the square; more than this says nothing more.
MOST_ROWS = 1000


@dataclass(frozen=True)
class Picture:
    """Tables that describe rather than judge; all exploratory.

    Attributes:
        confusion: stratum, slot, layer, features, probe, true, predicted, count (over all folds and repeats).
        similarity: slot, layer, then what `similarity_rows` gives, q (BH over the table's Mantel p), label_cka, n.
        cka: slot_a, layer_a, slot_b, layer_b, cka (debiased), n.
        components: id, slot, layer, label, pc1, pc2, pc3 of standardised features.
        explained: slot, layer, component (1-based), share of the variance.
        curve: slot, layer, then what `learning_curve` gives.
    """

    confusion: pd.DataFrame
    similarity: pd.DataFrame
    cka: pd.DataFrame
    components: pd.DataFrame
    explained: pd.DataFrame
    curve: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name."""
        named = {"confusion": self.confusion, "similarity": self.similarity, "cka": self.cka}
        named |= {"components": self.components, "explained": self.explained}
        return named | {"learning_curve": self.curve}


def describe(stratum: Stratum, source: States, settings: Settings) -> Picture:
    """Compute every table on one stratum."""
    rows, target = stratum.rows, stratum.rows.target
    best, cells = stratum.best, stratum.cells
    few = np.arange(len(rows))
    if len(rows) > MOST_ROWS:
        few = np.sort(family_rng(settings.seed, "similarity", target).permutation(len(rows))[:MOST_ROWS])
    similarity, grams = _similarity(stratum, source, settings, few)
    label = label_gram(rows.values[few], rows.kind)
    cka = debiased_cka([*grams, label])
    similarity["label_cka"] = np.repeat(cka[:-1, -1], len(similarity) // max(len(cells), 1))
    layers = chosen_layers(source.layers, settings.probe_layers)
    drawn = [c for c in cells if c.layer in layers or c.layer == best.layer]
    found = each(
        lambda place: components(place.load(source, rows.index)),
        drawn,
        n_jobs=settings.n_jobs,
        what=f"components ({target})",
        progress=settings.progress,
    )
    names = [rows.classes[v] for v in rows.values] if rows.kind == "class" else list(map(float, rows.values))
    points = [
        pd.DataFrame({**_where(target, place), "id": rows.ids, "label": list(map(str, names))}).assign(
            **{f"pc{k + 1}": c.coordinates[:, k] for k in range(3)}
        )
        for place, c in zip(drawn, found, strict=True)
    ]
    shares = [
        {**_where(target, place), "component": k + 1, "share": float(share)}
        for place, c in zip(drawn, found, strict=True)
        for k, share in enumerate(c.explained)
    ]
    rng = family_rng(settings.seed, "curve", target)
    curve = [_where(target, best) | row for row in learning_curve(best.load(source, rows.index), stratum.setup, rng)]
    return Picture(
        confusion=pd.DataFrame(_confusions(stratum)),
        similarity=similarity,
        cka=_pairs(cells, cka[:-1, :-1], target, len(few)),
        components=pd.concat(points, ignore_index=True),
        explained=pd.DataFrame(shares),
        curve=pd.DataFrame(curve),
    )


def _where(target: str, place: Place) -> dict[str, Any]:
    return {"target": target, "slot": place.slot, "layer": place.layer}


def _similarity(
    stratum: Stratum, source: States, settings: Settings, few: np.ndarray
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    rows = stratum.rows
    part = rows.take(few)
    keep = np.zeros(len(rows), dtype=bool)
    keep[few] = True
    folds = stratum.setup.folds.within(keep) or stratum.setup.folds
    orders = stratum.setup.orders
    if len(few) < len(rows):
        rng = family_rng(settings.seed, "permute", rows.target, "similarity")
        orders = label_orders(part.groups, part.split, settings.permutations, rng)

    def one(place: Place) -> tuple[list[dict[str, Any]], np.ndarray]:
        x = place.load(source, part.index)
        found = similarity_rows(x, part, folds, orders)
        return [_where(rows.target, place) | row for row in found], gram_of(x)

    found = each(
        one, stratum.cells, n_jobs=settings.n_jobs, what=f"similarity ({rows.target})", progress=settings.progress
    )
    table = pd.DataFrame([row for lines, _ in found for row in lines])
    table["q"] = benjamini_hochberg(table.p_mantel.to_numpy(dtype=float))
    return table.assign(n=len(few), stratum=stratum.name), [gram for _, gram in found]


def _pairs(cells: list[Place], cka: np.ndarray, target: str, n: int) -> pd.DataFrame:
    rows = [
        {"target": target, "slot_a": a.slot, "layer_a": a.layer, "slot_b": b.slot, "layer_b": b.layer, "cka": cka[i, j]}
        for i, a in enumerate(cells)
        for j, b in enumerate(cells)
    ]
    return pd.DataFrame(rows).assign(n=n)


def _confusions(stratum: Stratum) -> list[dict[str, Any]]:
    found = [(place, probe, o) for (place, probe), o in stratum.outcomes.items()]
    if stratum.text is not None:
        found.append((Place("", None, "text"), LOGISTIC, stratum.text))
    if stratum.numbers is not None:
        found.append((Place("", None, "numbers"), LOGISTIC, stratum.numbers))
    classes = stratum.rows.classes
    return [
        {
            **_where(stratum.rows.target, place),
            "features": place.features,
            "probe": probe,
            "stratum": stratum.name,
            "true": classes[i],
            "predicted": classes[j],
            "count": int(outcome.confusion[i, j]),
        }
        for place, probe, outcome in found
        if outcome.confusion is not None
        for i in range(len(classes))
        for j in range(len(classes))
    ]


FEWEST_ROWS = 4


def u_centred(gram: np.ndarray) -> np.ndarray:
    """A Gram matrix centred so that products of two such matrices estimate HSIC without bias, [row, row].

    Off the diagonal, row and column means over the n - 2 others are removed; the diagonal is 0 (Szekely, Rizzo 2014).

    Args:
        gram: Symmetric, n >= 4 rows.
    """
    n = len(gram)
    k = np.array(gram, dtype=np.float64)
    np.fill_diagonal(k, 0)
    sums = k.sum(0)
    k -= (sums[:, None] + sums[None]) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(k, 0)
    return k


def debiased_cka(grams: list[np.ndarray]) -> np.ndarray:
    """CKA of every pair by the unbiased HSIC (Song et al. 2012; Nguyen et al. 2021), shape [cell, cell].

    Independent features have CKA 0 on average, whatever their width; it can be negative. NaN where a cell's own HSIC
    is not positive, or with fewer than 4 rows.

    Args:
        grams: Gram matrices of the same rows.
    """
    if not grams or len(grams[0]) < FEWEST_ROWS:
        return np.full((len(grams), len(grams)), np.nan)
    flat = np.empty((len(grams), grams[0].size), dtype=np.float32)
    for place, gram in enumerate(grams):
        centred = u_centred(gram)
        # Unit length in double precision; what is left is a correlation, safe in single.
        length = float(np.linalg.norm(centred))
        flat[place] = (centred / length if length > 0 else centred).ravel()
    product = (flat @ flat.T).astype(float)
    own = np.diagonal(product)
    scale = np.sqrt(np.where(own > 0, own, np.nan))
    return np.asarray(product / (scale[:, None] * scale[None]))


def gram_of(x: np.ndarray) -> np.ndarray:
    """Linear Gram matrix of centred features, float32 [row, row]; centring leaves CKA as it is and keeps digits."""
    z = x - x.mean(0)
    return np.asarray(z @ z.T)


def label_gram(values: np.ndarray, kind: str) -> np.ndarray:
    """Gram matrix of the labels: equal class, or product of standardised numbers."""
    if kind == "class":
        return (values[:, None] == values[None]).astype(float)
    z = (values - values.mean()) / max(float(values.std()), 1e-12)
    return np.outer(z, z)


SHOWN = 3
LISTED = 10


@dataclass(frozen=True)
class Components:
    """Coordinates [row, 3] on the leading components of standardised features, and the variance shares of up to 10."""

    coordinates: np.ndarray
    explained: np.ndarray


def components(x: np.ndarray) -> Components:
    """PCA of standardised features [row, d] by their Gram matrix or covariance, whichever is smaller.

    Each component's sign is such that its largest coordinate is positive, so that figures do not flip.
    """
    scale = x.std(0)
    z = (x - x.mean(0)) / np.where(scale > 1e-6 * np.maximum(np.abs(x.mean(0)), 1e-6), scale, np.inf)
    left, values, _ = np.linalg.svd(z.astype(np.float64), full_matrices=False)
    size = min(SHOWN, len(values))
    points = np.zeros((len(x), SHOWN))
    points[:, :size] = left[:, :size] * values[:size]
    points *= np.sign(points[np.abs(points).argmax(0), np.arange(SHOWN)] + 1e-300)
    share = values**2 / max(float((values**2).sum()), 1e-300)
    return Components(points, share[:LISTED])


SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def learning_curve(x: np.ndarray, setup: Setup, rng: np.random.Generator, repeats: int = 2) -> list[dict[str, Any]]:
    """Scores by number of training problems, on the folds' own test rows.

    Args:
        x: Features at one cell, [row, d].
        setup: Labels and folds.
        rng: Order in which training rows are given; smaller sets are parts of larger ones.
        repeats: Repeats of the cross-validation that are used.

    Returns:
        Rows series ("linear" or "text"), n_train, score, ci_low, ci_high (corrected t), note. A size at which a class
        has fewer than 3 problems is left out.
    """
    rows, folds = setup.rows, setup.folds.first(repeats)
    idle = replace(setup.control, values=setup.control.values[:0])
    orders = [_stratified_order(rows, f, rng) for f in folds.folds]
    out: list[dict[str, Any]] = []
    for share in SHARES:
        cut = tuple(
            Fold(f.repeat, np.sort(order[: max(1, round(share * len(order)))]), f.test)
            for f, order in zip(folds.folds, orders, strict=True)
        )
        if rows.kind == "class" and _fewest(rows, cut) < FEWEST:
            continue
        part = Folds(cut, folds.k, folds.repeats)
        small = Setup(rows, part, setup.orders[:1], idle)
        scores = {"linear": probe_linear(x, small).score}
        if rows.questions is not None:
            texts = np.array(rows.questions, dtype=object)
            scores["text"] = run_estimator(lambda: text_model(rows.kind), texts, rows, part).score
        n_train = round(float(np.mean([len(f.train) for f in cut])))
        for series, score in scores.items():
            # The overlap that the correction allows for is that of the sizes used here.
            found = corrected_t(score, part)
            out.append(
                {
                    "series": series,
                    "n_train": n_train,
                    "score": found.value,
                    "ci_low": found.low,
                    "ci_high": found.high,
                    "note": found.note,
                }
            )
    return out


def words_still_climb(curve: Sequence[Mapping[Any, Any]], margin: float) -> str | None:
    """A sentence where the text baseline rose by more than `margin` over the last half of the problems.

    A gain over a baseline that has not learnt what it can is a gain of few problems, and may not last.

    Args:
        curve: Rows of `learning_curve`.
        margin: In the unit of the score.
    """
    points = sorted((row["n_train"], row["score"]) for row in curve if row["series"] == "text")
    earlier = [point for point in points if point[0] <= points[-1][0] / 2]
    if not earlier or not points[-1][1] - earlier[-1][1] > margin:
        return None
    (few, before), (many, now) = earlier[-1], points[-1]
    return (
        f"the question's words still gain with more problems ({before:.2f} from {few}, {now:.2f} from {many} training "
        "problems), so a gain over them may be one of few problems"
    )


def _fewest(rows: Rows, folds: tuple[Fold, ...]) -> int:
    """Training problems of the smallest class in any fold."""
    return min(int(np.bincount(rows.values[f.train], minlength=len(rows.classes)).min()) for f in folds)


def _stratified_order(rows: Rows, fold: Fold, rng: np.random.Generator) -> np.ndarray:
    """Training rows in an order whose every beginning has the classes in their shares."""
    order = rng.permutation(fold.train)
    if rows.kind == "number":
        return order
    codes = rows.values[order]
    rank = np.empty(len(order))
    for code in np.unique(codes):
        member = np.flatnonzero(codes == code)
        rank[member] = (np.arange(len(member)) + 0.5) / len(member)
    return order[np.argsort(rank, kind="stable")]
