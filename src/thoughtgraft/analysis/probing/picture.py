"""Beside the probes, on one stratum: confusions, similarity, CKA, principal components and the learning curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.analysis.multiplicity import benjamini_hochberg
from thoughtgraft.analysis.probing.alignment import debiased_cka, gram_of, label_gram
from thoughtgraft.analysis.probing.components import components
from thoughtgraft.analysis.probing.curve import learning_curve
from thoughtgraft.analysis.probing.exchange import label_orders
from thoughtgraft.analysis.probing.features import FeatureSource, Place
from thoughtgraft.analysis.probing.learners import LOGISTIC
from thoughtgraft.analysis.probing.similarity import similarity_rows
from thoughtgraft.analysis.probing.stratum import Settings, Stratum, chosen_layers
from thoughtgraft.analysis.probing.workers import each
from thoughtgraft.analysis.resampling import family_rng

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


def describe(stratum: Stratum, source: FeatureSource, settings: Settings) -> Picture:
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
    stratum: Stratum, source: FeatureSource, settings: Settings, few: np.ndarray
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
