"""How often a thought decodes to a value of the problem's own reasoning, and how often to another problem's.

"The lens shows the intermediate result" means little alone: small numbers are common everywhere. Each hit rate stands
beside the rate at which the same tokens hit the values of other problems with as many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from scipy.stats import t

from thoughtgraft.problems import Problem, parse_number

INTERMEDIATE, FINAL = "intermediate value", "final answer"


def lens_hits(decoded: pd.DataFrame, problems: Sequence[Problem], *, top: int = 1) -> pd.DataFrame:
    """Hit rates per slot, against other problems' values.

    Args:
        decoded: `problem_id`, `slot`, `rank`, `token`, as the lens writes them.
        problems: The problems; those with no known step are left out, those with one step have no intermediate value.
        top: Ranks that count.

    Returns:
        One row per target and slot (0-based): `target`, `slot`, `n`, `rate`, `null_rate`, `excess`, `ci_low`,
        `ci_high` (fractions; 95% t interval over problems). Undefined (NaN) with fewer than two problems.
    """
    by_id = {problem.id: problem for problem in problems if problem.steps}
    shown = decoded[(decoded["rank"] < top) & decoded.problem_id.isin(by_id)]
    tokens: dict[tuple[str, int], set[Fraction]] = {}
    for problem_id, slot, token in zip(shown.problem_id, shown.slot, shown.token, strict=True):
        number = parse_number(str(token))
        tokens.setdefault((problem_id, int(slot)), set()).update([] if number is None else [number])
    slots = sorted({slot for _, slot in tokens})
    rows = []
    for target in (INTERMEDIATE, FINAL):
        values = {i: _values(p, target) for i, p in by_id.items()}
        groups: dict[int, list[str]] = {}
        for i, problem in by_id.items():
            if values[i]:
                groups.setdefault(len(problem.steps), []).append(i)
        for slot in slots:
            hits, nulls = [], []
            for group in groups.values():
                for i in group:
                    said = tokens.get((i, slot), set())
                    others = [bool(said & values[j]) for j in group if j != i]
                    if others:
                        hits.append(bool(said & values[i]))
                        nulls.append(float(np.mean(others)))
            rows.append({"target": target, "slot": slot} | _rates(np.array(hits, float), np.array(nulls)))
    columns = ["target", "slot", "n", "rate", "null_rate", "excess", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def _values(problem: Problem, target: str) -> set[Fraction]:
    return {s.value for s in problem.steps[:-1]} if target == INTERMEDIATE else {problem.steps[-1].value}


def _rates(hits: np.ndarray, nulls: np.ndarray) -> dict[str, float]:
    n = len(hits)
    if n < 2:
        return {"n": n} | dict.fromkeys(("rate", "null_rate", "excess", "ci_low", "ci_high"), np.nan)
    excess = hits - nulls
    half = float(t.ppf(0.975, n - 1) * excess.std(ddof=1) / np.sqrt(n))
    mean = float(excess.mean())
    return {
        "n": n,
        "rate": float(hits.mean()),
        "null_rate": float(nulls.mean()),
        "excess": mean,
        "ci_low": mean - half,
        "ci_high": mean + half,
    }
