"""How often a thought decodes to a value of the problem's own reasoning, and how often to another problem's.

"The lens shows the intermediate result" means little alone: small numbers are common everywhere. Each hit rate stands
beside the rate at which the same tokens hit the values of other problems with as many steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from thoughtgraft.edits.site import slots_label
from thoughtgraft.errors import AnalysisError
from thoughtgraft.stats.clustered import Estimate, clustered_mean
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.problem import Problem

ANY = "any slot"
INTERMEDIATE, FINAL = "intermediate value", "final answer"
SCORES = ("target", "slots", "problem_id", "hit", "null")
COLUMNS = ("target", "label", "slots", "n", "rate", "null_rate", "excess", "ci_low", "ci_high", "p", "note")


def lens_scores(decoded: pd.DataFrame, problems: Sequence[Problem], *, top: int = 1) -> pd.DataFrame:
    """Hits problem by problem, and the chance of a hit on another problem's values.

    Args:
        decoded: `problem_id`, `slot` (0-based), `rank` (0-based), `token`, as the lens writes them.
        problems: The problems; those with no known step are left out, those with one step have no intermediate value.
        top: Ranks that count.

    Returns:
        One row per target, `slots` (each slot, and all of them: a hit at any) and problem: `hit` (0 or 1) and `null`,
        the share of the other problems with as many steps whose values the same tokens hit. A problem whose number of
        steps no other problem has is left out.

    Raises:
        AnalysisError: `top` is less than 1.
    """
    if top < 1:
        raise AnalysisError("top must count at least one rank", got=top, expected="1 or more")
    known = [problem for problem in problems if problem.steps]
    place = {problem.id: i for i, problem in enumerate(known)}
    numbers = sorted({step.result for problem in known for step in problem.steps})
    code = {number: i for i, number in enumerate(numbers)}
    shown = decoded[(decoded["rank"] < top) & decoded.problem_id.isin(place)]
    said: dict[tuple[int, ...], np.ndarray] = {}
    meant: dict[object, int | None] = {}
    for problem, slot, token in zip(shown.problem_id, shown.slot, shown.token, strict=True):
        if token not in meant:
            number = NUMBER.canonical(str(token))
            meant[token] = None if number is None else code.get(number)
        table = said.setdefault((int(slot),), np.zeros((len(known), len(numbers))))
        if (column := meant[token]) is not None:
            table[place[problem], column] = 1
    slots = sorted(said)
    if len(slots) > 1:
        said[tuple(k for (k,) in slots)] = np.maximum.reduce([said[one] for one in slots])
    order = dict.fromkeys([*slots, *said])
    parts = [_scores(target, one, said[one], known, code) for target in (INTERMEDIATE, FINAL) for one in order]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(SCORES))


def lens_hits(decoded: pd.DataFrame, problems: Sequence[Problem], *, top: int = 1) -> pd.DataFrame:
    """Hit rates per slot, against other problems' values; see `lens_scores`.

    Returns:
        One row per target and slot, and for a hit at any of several: `target`, `label`, `slots`, `n`, `rate`,
        `null_rate`, `excess` = rate - null_rate, `ci_low`, `ci_high` (fractions; 95% t interval over problems), `p`
        (two-sided), `note`. What is undefined is NaN, and the note says why.
    """
    rows = []
    scores = lens_scores(decoded, problems, top=top)
    for (target, slots), part in scores.groupby(["target", "slots"], sort=False):
        assert isinstance(slots, tuple)
        hit, null = part["hit"].to_numpy(float), part["null"].to_numpy(float)
        label = slots_label(slots) if len(slots) == 1 else ANY
        rows.append((target, label, slots, len(part), hit.mean(), null.mean(), *_figures(_over_problems(hit - null))))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of(scores: pd.DataFrame, target: str, slot: int | None) -> pd.DataFrame:
    most = scores.slots.map(len).max()
    wanted = [len(slots) == most if slot is None else slots == (slot,) for slots in scores.slots]
    return scores[(scores.target == target) & np.array(wanted, dtype=bool)]


def lens_excess(scores: pd.DataFrame, target: str, slot: int | None = None) -> Estimate:
    """Excess of one model's hits over other problems' values, as a fraction, with its t interval over problems.

    Args:
        scores: From `lens_scores`.
        target: `INTERMEDIATE` or `FINAL`.
        slot: A slot, or None for a hit at any.
    """
    own = _of(scores, target, slot)
    return _over_problems(own["hit"].to_numpy(float) - own["null"].to_numpy(float))


def lens_difference(first: pd.DataFrame, second: pd.DataFrame, target: str, slot: int | None = None) -> Estimate:
    """Excess of `first` over `second` on the problems that both have, as a fraction, with its paired t interval.

    Args:
        first: Scores of one model, from `lens_scores`.
        second: Scores of another model on the same problems.
        target: `INTERMEDIATE` or `FINAL`.
        slot: A slot, or None for a hit at any.
    """
    excess = []
    for table in (first, second):
        own = _of(table, target, slot).set_index("problem_id")
        excess.append(own["hit"].astype(float) - own["null"].astype(float))
    return _over_problems((excess[0] - excess[1]).dropna().to_numpy())


def _scores(
    target: str, slots: tuple[int, ...], said: np.ndarray, problems: Sequence[Problem], code: dict[str, int]
) -> pd.DataFrame:
    holds = np.zeros_like(said)
    groups: dict[int, list[int]] = {}
    for i, problem in enumerate(problems):
        steps = problem.steps[:-1] if target == INTERMEDIATE else problem.steps[-1:]
        holds[i, [code[step.result] for step in steps]] = 1
        if steps:
            groups.setdefault(len(problem.steps), []).append(i)
    rows: list[tuple[str, tuple[int, ...], str, float, float]] = []
    for group in groups.values():
        if len(group) < 2:
            continue
        meets = (said[group] @ holds[group].T > 0).astype(float)
        own = np.diagonal(meets)
        null = (meets.sum(1) - own) / (len(group) - 1)
        rows += [(target, slots, problems[i].id, h, n) for i, h, n in zip(group, own, null, strict=True)]
    return pd.DataFrame(rows, columns=list(SCORES))


def _over_problems(values: np.ndarray) -> Estimate:
    return clustered_mean(values, np.arange(len(values)), None, np.ones(len(values)))


def _figures(found: Estimate) -> tuple[float, float, float, float, str]:
    return found.value, found.low, found.high, found.p, found.note
