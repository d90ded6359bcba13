"""Invented runs whose truth is known: records as the engine writes them, answers drawn without a model."""

from __future__ import annotations

import numpy as np
import pandas as pd

NUMBERS = 40
_NAMES = np.array([str(i) for i in range(1_000)], dtype=object)


def noise_records(
    n: int,
    d: int,
    n_slots: int,
    seed: int,
    *,
    chance: float = 0.6,
    spread: float = 0.15,
    loss: float = 0.0,
    methods: tuple[str, ...] = ("swap", "mean"),
    together: bool = True,
    answers: int = 0,
) -> pd.DataFrame:
    """A run of noise: every answer is right with the host's own chance, else any other number, whatever was edited.

    Args:
        n: Hosts, each also a donor.
        d: Donors per host.
        n_slots: Slots, each edited alone.
        seed: Seed of everything.
        chance: Mean chance of a right answer.
        spread: Standard deviation of hosts' chances, and three times that of donors' effects (of mean 0).
        loss: What every edit takes off the chance: 0 for the null.
        methods: swap (with donors), mean (without).
        together: Whether all slots are swapped at once, too.
        answers: Seed of the answers alone: hosts, golds, donors and their effects stay.
    """
    rng = np.random.default_rng(seed)
    own = np.clip(rng.normal(chance, spread, n), 0.0, 1.0) if spread else np.full(n, chance)
    effect = rng.normal(0, spread / 3, n) if spread else np.zeros(n)
    gold = rng.integers(0, NUMBERS, n)
    order = rng.random((n, n))
    rng = np.random.default_rng([seed, answers])

    def drawn(p: np.ndarray, host: np.ndarray) -> np.ndarray:
        wrong = (gold[host] + rng.integers(1, NUMBERS, len(host))) % NUMBERS
        return np.where(rng.random(len(host)) < p, gold[host], wrong)

    hosts = np.arange(n)
    base = drawn(own, hosts)
    np.fill_diagonal(order, 2.0)
    pairs, donors = np.repeat(hosts, d), np.argsort(order, axis=1)[:, :d].ravel()
    singles = [[k] for k in range(n_slots)]
    arms: list[tuple[str, list[int]]] = [("baseline", [])]
    arms += [(method, slots) for method in methods for slots in singles]
    arms += [("swap", list(range(n_slots)))] if together else []
    columns: dict[str, list[np.ndarray]] = {}
    for method, slots in arms:
        host = pairs if method == "swap" else hosts
        tilt = effect[donors] if method == "swap" else 0.0
        pred = drawn(own[host] + tilt - loss, host) if slots else base
        none = np.full(len(host), None, dtype=object)
        lists = none.copy()
        lists[:] = [slots] * len(host)
        row = {
            "method": np.full(len(host), method, dtype=object),
            "slots": lists,
            "downstream": np.full(len(host), "recompute", dtype=object),
            "problem_id": _NAMES[host],
            "gold": _NAMES[gold[host]],
            "pred": _NAMES[pred],
            "base_pred": _NAMES[base[host]],
            "correct": pred == gold[host],
            "base_correct": base[host] == gold[host],
            "donor_id": _NAMES[donors] if method == "swap" else none,
            "donor_pred": _NAMES[base[donors]] if method == "swap" else none,
            "donor_stratum": np.full(len(host), "random", dtype=object) if method == "swap" else none,
        }
        for name, values in row.items():
            columns.setdefault(name, []).append(values)
    return pd.DataFrame({name: np.concatenate(parts) for name, parts in columns.items()})
