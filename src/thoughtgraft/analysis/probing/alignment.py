"""Debiased CKA: how alike two cells arrange the same problems, freed of the bias of many features."""

from __future__ import annotations

import numpy as np

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
