"""Invented records with a known truth: crossed host x donor designs in the record schema."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd


def donor_lists(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Per host, d distinct donors of the same n problems, never itself; shape [host, draw]."""
    order = rng.random((n, n))
    np.fill_diagonal(order, 2.0)
    return np.argsort(order, axis=1)[:, :d]


def make_records(
    n: int = 100,
    d: int = 10,
    *,
    loss: dict[tuple[int, ...], float] | None = None,
    adopt: float = 0.0,
    base_acc: float = 0.9,
    methods: tuple[str, ...] = ("swap",),
    downstreams: tuple[str, ...] = ("recompute",),
    host_sd: float = 0.0,
    direct: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Records of a run whose true effects are known.

    Args:
        n: Hosts, and the donors' pool.
        d: Donors per host.
        loss: Per slot set, the probability that a host right at baseline turns wrong (on average over hosts).
        adopt: Probability that an answer lost in a swap becomes the donor's.
        base_acc: Probability that a host is right at baseline.
        methods: Edited methods; swap, shuffle have donors, noise has d draws, the others one cell per host.
        downstreams: Rules to run; under the freezes a loss happens with probability `direct` times the total one.
        host_sd: Spread of the loss probability between hosts.
        direct: Share of each loss that is direct.
        seed: Seed of everything.
    """
    rng = np.random.default_rng(seed)
    loss = loss if loss is not None else {(k,): 0.0 for k in range(6)}
    gold = rng.integers(1, 60, n)
    right = rng.random(n) < base_acc
    base = np.where(right, gold, gold + 60)
    donors = donor_lists(n, d, rng)
    tilt = rng.normal(0, host_sd, n)
    rows = []

    def add(method: str, slots: tuple[int, ...], down: str, h: int, draw: int, donor: int | None, pred: int) -> None:
        cell = hashlib.sha256(repr((method, slots, down, h, draw, donor)).encode()).hexdigest()[:16]
        rows.append(
            {
                "run_id": "r", "cell": cell, "arm": method, "method": method, "slots": list(slots),
                "downstream": down, "protocol": "official", "problem_id": f"p{h:03d}", "gold": str(gold[h]),
                "base_pred": str(base[h]), "base_correct": bool(right[h]),
                "donor_id": None if donor is None else f"p{donor:03d}",
                "donor_stratum": None if donor is None else "random",
                "donor_pred": None if donor is None else str(base[donor]), "pred": str(pred), "valid": True,
                "correct": bool(pred == gold[h]), "changed": bool(pred != base[h]),
                "dlogp_gold": 0.0 if not slots or method == "self" else -abs(rng.normal(0.1, 0.05)),
                "kl": 0.0 if not slots or method == "self" else abs(rng.normal(0.1, 0.05)), "error": None,
            }
        )  # fmt: skip

    for h in range(n):
        add("baseline", (), "recompute", h, 0, None, base[h])
        add("noop", (), "recompute", h, 0, None, base[h])
        for slots in loss:
            add("self", slots, "recompute", h, 0, None, base[h])
    for method in methods:
        crossed, drawn = method in ("swap", "shuffle"), method in ("swap", "shuffle", "noise")
        for down in downstreams:
            for slots, chance in loss.items():
                share = 1.0 if down == "recompute" else direct
                for h in range(n):
                    p = min(max(chance + (tilt[h] if chance else 0.0), 0.0), 1.0) * share
                    for draw in range(d if drawn else 1):
                        donor = int(donors[h, draw]) if crossed else None
                        pred = base[h]
                        if rng.random() < p:
                            taken = donor is not None and rng.random() < adopt
                            pred = base[donor] if taken else base[h] + 1000
                        add(method, slots, down, h, draw, donor, int(pred))
    return pd.DataFrame(rows)
