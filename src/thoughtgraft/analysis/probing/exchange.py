"""Label permutations that keep what is not exchangeable: equal questions move together, and stay in their split."""

from __future__ import annotations

import numpy as np


def label_orders(groups: np.ndarray, split: np.ndarray, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Orders of the rows under the null; `labels[orders]` are the permuted labels.

    The unit of exchange is a group (all rows of one question), against groups of the same size in the same split. A
    group that has no partner keeps its labels in every permutation, which makes the test conservative, never wrong.

    Args:
        groups: Group codes, shape [row].
        split: Split of each row, shape [row]; a group's is that of its first row.
        permutations: How many.
        rng: Source of the orders.

    Returns:
        Places, int [permutation + 1, row]; the first is the identity: the labels as they are.
    """
    orders = np.tile(np.arange(len(groups)), (permutations + 1, 1))
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(int(group), []).append(row)
    kinds: dict[tuple[str, int], list[list[int]]] = {}
    for rows in members.values():
        kinds.setdefault((str(split[rows[0]]), len(rows)), []).append(rows)
    for blocks in (np.array(kinds[kind]) for kind in sorted(kinds)):
        for order in orders[1:]:
            order[blocks] = blocks[rng.permutation(len(blocks))]
    return orders
