"""Invented runs in which nothing is true: records as the engine writes them, answers drawn without regard to edits."""

from __future__ import annotations

import numpy as np
import pandas as pd

NUMBERS = 40


def null_records(n: int, d: int, n_slots: int, seed: int, *, spread: float = 0.15, loss: float = 0.0) -> pd.DataFrame:
    """A run of pure noise: every answer, edited or not, is right with the host's own chance, else any other number.

    Edits have donor effects of mean 0, so that hosts and donors both vary, but no slot matters on average.

    Args:
        n: Hosts, each also a donor.
        d: Donors per host.
        n_slots: Slots; each is swapped and mean-ablated alone, all are swapped together.
        seed: Seed of everything.
        spread: Standard deviation of hosts' chances, and three times that of donors' effects.
        loss: Chance of a right answer that every edit takes away: a planted effect, 0 for the null.
    """
    rng = np.random.default_rng(seed)
    chance = np.clip(rng.normal(0.6, spread, n), 0.05, 0.95)
    effect = rng.normal(0, spread / 3, n)
    gold = rng.integers(0, NUMBERS, n)

    def answers(p: np.ndarray, host: np.ndarray) -> np.ndarray:
        wrong = (gold[host] + rng.integers(1, NUMBERS, len(host))) % NUMBERS
        return np.where(rng.random(len(host)) < np.clip(p, 0, 1), gold[host], wrong)

    everyone = np.arange(n)
    base = answers(chance, everyone)
    order = rng.random((n, n))
    np.fill_diagonal(order, 2.0)
    donors = np.argsort(order, axis=1)[:, :d].ravel()
    pairs = np.repeat(everyone, d)
    parts = [("baseline", (), everyone, None, base), ("noop", (), everyone, None, base)]
    every = tuple(range(n_slots))
    for slots in [(k,) for k in every]:
        parts.append(("self", slots, everyone, None, base))
        parts.append(("mean", slots, everyone, None, answers(chance - loss, everyone)))
    for slots in [*((k,) for k in every), every]:
        parts.append(("swap", slots, pairs, donors, answers(chance[pairs] + effect[donors] - loss, pairs)))
    frames = []
    for method, slots, host, donor, pred in parts:
        frame = pd.DataFrame({"problem_id": host, "pred": pred, "gold": gold[host], "base_pred": base[host]})
        frame["method"], frame["downstream"], frame["slots"] = method, "recompute", [list(slots)] * len(host)
        frame["donor_id"] = None if donor is None else donor
        frame["donor_pred"] = None if donor is None else base[donor]
        frame["donor_stratum"] = None if donor is None else "random"
        frame["dlogp_gold"] = 0.0 if method in ("baseline", "noop", "self") else rng.normal(0, 0.1, len(host))
        frames.append(frame)
    table = pd.concat([frame.astype(object) for frame in frames], ignore_index=True)
    for name in ("problem_id", "donor_id", "pred", "gold", "base_pred", "donor_pred"):
        table[name] = [None if x is None or x != x else str(int(x)) for x in table[name]]
    table["correct"], table["base_correct"] = table.pred == table.gold, table.base_pred == table.gold
    table["dlogp_gold"] = table["dlogp_gold"].astype(float)
    return table
