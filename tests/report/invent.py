"""Invented run folders with known effects, written through the real record store."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.records.spec import RunSpec
from thoughtgraft.records.store import RunStore

HOSTS, DONORS, SLOTS = 12, 4, 6
HOSTILE = 'Tom has <script>alert("x")</script> 3 & 4 | apples_ at $5 each. `How` many*?'
# What a thought is worth: the chance that a right answer turns wrong when it is replaced.
LOSS = {0: 0.0, 1: 0.05, 2: 0.1, 3: 0.7, 4: 0.4, 5: 0.0}
ALL = tuple(range(SLOTS))

Arm = tuple[str, tuple[int, ...], str, str]
FEW: tuple[Arm, ...] = (
    ("baseline", (), "recompute", ""),
    *(("swap", (k,), "recompute", "random") for k in range(SLOTS)),
    ("zero", ALL, "recompute", ""),
)
FULL: tuple[Arm, ...] = (
    *FEW,
    ("noop", (), "recompute", ""),
    *(("self", (k,), "recompute", "") for k in range(SLOTS)),
    *(
        (m, (k,), "recompute", "random" if m == "shuffle" else "")
        for m in ("mean", "zero", "skip", "noise", "shuffle")
        for k in ALL
    ),
    *(("swap", (k,), down, "random") for k in ALL for down in ("freeze_input", "freeze_kv")),
    *(("swap", (k,), "recompute", "operation") for k in ALL),
    *(("swap", tuple(range(k + 1)), "recompute", "random") for k in range(1, SLOTS)),
    *(("swap", tuple(range(k, SLOTS)), "recompute", "random") for k in range(1, SLOTS - 1)),
    *(("swap", ALL, down, "random") for down in ("freeze_input", "freeze_kv")),
)


def spec(n: int, d: int, cells: int, **changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "study": "resampling",
        "model": "tiny-codi",
        "model_hash": "0f1e2d3c",
        "protocol": "official",
        "num_latents": SLOTS,
        "problems": "arithmetic:test",
        "problem_hash": "ab12",
        "plan_hash": "cd34",
        "plan": {},
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "n_hosts": n,
        "n_donors": d,
        "n_cells": cells,
        "provenance": {"command": "thoughtgraft demo --seed 0", "python": "3.11"},
    }
    return RunSpec(**{**fields, **changes})


def rows_of(
    arms: Sequence[Arm], n: int, d: int, wrong_every: int = 10, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Rows by host: every `wrong_every`-th is wrong at baseline; losses as in `LOSS`, half of them adopted."""
    rng = np.random.default_rng(seed)
    gold = rng.permutation(np.arange(1, n + 1))
    base = np.where(np.arange(n) % wrong_every == wrong_every - 1, gold + 100, gold)
    lean = rng.normal(0, 0.15, n)
    donors = {
        s: [rng.permutation([j for j in range(n) if j != h])[:d] for h in range(n)] for s in ("random", "operation")
    }
    units: dict[str, list[dict[str, Any]]] = {}
    for h in range(n):
        rows = units.setdefault(f"p{h:03d}", [])
        for method, slots, down, stratum in arms:
            crossed = stratum != ""
            draws = d if crossed or method == "noise" else 1
            for draw in range(draws):
                donor = int(donors[stratum][h][draw]) if crossed else None
                live = 0.0 if method in ("baseline", "noop", "self") else 1.0
                keep = np.prod([1 - min(max(LOSS[k] + lean[h] * (LOSS[k] > 0), 0), 1) for k in slots])
                lost = rng.random() < live * (1 - keep) * (
                    0.5 if down == "freeze_kv" else 0.8 if down != "recompute" else 1
                )
                adopt = lost and donor is not None and rng.random() < 0.5
                pred = int(base[donor]) if adopt and donor is not None else int(base[h]) + (1000 if lost else 0)
                moved = live * float(abs(rng.normal(0.2, 0.05)))
                rows.append(
                    {
                        "run_id": "r", "cell": f"{h}-{method}-{slots}-{down}-{stratum}-{draw}", "arm": method,
                        "method": method, "slots": list(slots), "downstream": down, "protocol": "official",
                        "num_latents": SLOTS, "problem_id": f"p{h:03d}", "split": "test", "n_steps": 2,
                        "operation": "mixed", "gold": str(gold[h]), "base_pred": str(base[h]),
                        "base_correct": bool(base[h] == gold[h]),
                        "donor_id": None if donor is None else f"p{donor:03d}",
                        "donor_stratum": stratum or None, "donor_pred": None if donor is None else str(base[donor]),
                        "text": f"The answer is: {pred}", "pred": str(pred), "valid": True,
                        "correct": bool(pred == gold[h]), "changed": bool(pred != base[h]),
                        "adopted": bool(pred == base[donor]) if donor is not None else None,
                        "dlogp_gold": -moved, "kl": moved,
                        "seed": draw if method == "noise" else None,
                    }
                )  # fmt: skip
    return units


def make_run(
    path: Path,
    arms: Sequence[Arm],
    *,
    n: int = HOSTS,
    d: int = DONORS,
    certificate: dict[str, Any] | None = None,
    extras: bool = True,
    wrong_every: int = 10,
    certify: str = "off",
    **changes: Any,
) -> Path:
    """A run folder; `extras` adds problems and decoded thoughts, `certify` is what run.json says of the checks."""
    made = {"command": "thoughtgraft demo --seed 0", "python": "3.11", "certify": certify}
    changes = {"provenance": made} | changes
    units = rows_of(arms, n, d, wrong_every)
    with RunStore.create(path, spec(n, d, sum(map(len, units.values())), **changes)) as store:
        for unit, rows in units.items():
            store.write_unit(unit, rows)
        if certificate is not None:
            store.write_json("certificate.json", certificate)
        if extras:
            ids = list(units)
            texts = [
                HOSTILE if i % 2 == 0 else f"Ann buys {i} boxes of {i + 1} pens and gives 2 away. How many are left?"
                for i in range(n)
            ]
            columns = {"id": ids, "split": "test", "question": texts, "gold": [units[u][0]["gold"] for u in ids]}
            store.write_table(
                "problems.parquet",
                pd.DataFrame(columns | {"steps": json.dumps([]), "n_steps": 2, "operation": "mixed"}),
            )
            tokens = ["12", " <b>", "$x$", "\n", "你", " plus", "|", "7", "*"]
            decoded = [
                (u, k, r, tokens[(i + k + 2 * r) % len(tokens)], [0.82, 0.1, 0.03][r])
                for i, u in enumerate(ids)
                for k in range(SLOTS)
                for r in range(3)
            ]
            store.write_table(
                "decoded.parquet", pd.DataFrame(decoded, columns=["problem_id", "slot", "rank", "token", "prob"])
            )
    return path


def passing(passed: bool = True) -> dict[str, Any]:
    check = {
        "proves": "an empty edit changes nothing",
        "figure": 0.0,
        "threshold": 1e-9,
        "consequence": "no effect counts",
    }
    return {
        "passed": passed,
        "kind": "short",
        "checks": [check | {"name": "self-swap", "passed": True}, check | {"name": "transplant", "passed": passed}],
    }


def parse_table(markdown: str, title: str) -> list[dict[str, str]]:
    """The first Markdown table after a heading, as rows by column."""
    lines = markdown[markdown.index(title) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| "))
    rows = takewhile(lambda line: line.startswith("|"), lines[start:])
    cells = [[c.strip().replace("\\", "") for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
