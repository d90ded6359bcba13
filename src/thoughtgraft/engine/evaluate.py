"""How well a model answers: from its thoughts, with fewer or spoiled thoughts, and with its reasoning written out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from scipy.stats import binomtest
from tqdm import tqdm

from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.run import run
from thoughtgraft.interventions.plan import Arm, Plan
from thoughtgraft.models.reasoner import LatentReasoner, attention_implementation
from thoughtgraft.problems import Problem, ProblemSet, grade

if TYPE_CHECKING:
    import pandas as pd

_EXPLICIT_TOKENS = 128


def evaluate(
    model: LatentReasoner, problems: ProblemSet, *, batch_size: int | str = "auto", progress: bool = True, seed: int = 0
) -> pd.DataFrame:
    """Accuracies of one model on one problem set.

    Args:
        model: The model, at its trained number of thoughts.
        problems: P problems.
        batch_size: Rows at once, or `auto`.
        progress: Show progress bars.
        seed: Draws the donor of each problem for the swapped condition.

    Returns:
        One row per condition: `condition`, `n`, `correct`, `accuracy`, `ci_low`, `ci_high` (fractions; 95% Wilson).
    """
    import pandas as pd

    thoughts = collect_thoughts(model, problems, batch_size=batch_size, progress=progress)
    right = list(thoughts.correct)
    rows = [_row("thoughts", right)]
    official = [grade(text, p.gold, "official") for text, p in zip(thoughts.texts, problems, strict=True)]
    rows.append(_row("thoughts, official grader", official))
    rows.append(_row("the two graders agree", [a == b for a, b in zip(right, official, strict=True)]))
    rows += [_row(f"thoughts, {name}", values) for name, values in _groups(problems, right)]
    rows += [
        _row(f"{k} thoughts", _with_latents(model, problems, k, batch_size, progress)) for k in range(model.num_latents)
    ]
    rows += _spoiled(model, problems, batch_size, progress, seed)
    rows.append(_row("explicit reasoning", explicit_correct(model, problems, progress=progress)))
    return pd.DataFrame(rows)


def _row(condition: str, correct: Sequence[bool]) -> dict[str, object]:
    interval = binomtest(sum(correct), len(correct)).proportion_ci(0.95, "wilson")
    return {
        "condition": condition,
        "n": len(correct),
        "correct": sum(correct),
        "accuracy": sum(correct) / len(correct),
        "ci_low": interval.low,
        "ci_high": interval.high,
    }


def _groups(problems: Iterable[Problem], right: Sequence[bool]) -> list[tuple[str, list[bool]]]:
    groups: dict[str, list[bool]] = {}
    for problem, correct in zip(problems, right, strict=True):
        steps = len(problem.steps)
        groups.setdefault(f"{steps} step{'s' * (steps != 1)}", []).append(correct)
        groups.setdefault(problem.operation, []).append(correct)
    return sorted(groups.items()) if len(groups) > 2 else []


def _with_latents(
    model: LatentReasoner, problems: ProblemSet, k: int, batch_size: int | str, progress: bool
) -> list[bool]:
    trained, model.num_latents = model.num_latents, k
    try:
        return list(collect_thoughts(model, problems, batch_size=batch_size, progress=progress).correct)
    finally:
        model.num_latents = trained


def _spoiled(
    model: LatentReasoner, problems: ProblemSet, batch_size: int | str, progress: bool, seed: int
) -> list[dict[str, object]]:
    if len(problems) < 2 or model.num_latents == 0:
        return []
    every = tuple(range(model.num_latents))
    plan = Plan(tuple(Arm(method, every) for method in ("zero", "mean", "swap")), n_donors=1, seed=seed)
    records = run(model, problems, plan, batch_size=batch_size, progress=progress)
    names = {"zero": "all thoughts zero", "mean": "all thoughts the mean", "swap": "all thoughts another problem's"}
    return [
        _row(name, list(records.loc[records["method"] == method, "correct"].astype(bool)))
        for method, name in names.items()
    ]


@torch.inference_mode()
def explicit_correct(
    model: LatentReasoner, problems: ProblemSet, *, batch_size: int = 128, progress: bool = True
) -> list[bool]:
    """Whether each answer is right when the model writes its reasoning out instead of thinking, as it was trained to.

    Generation is Hugging Face's own, greedy.
    """
    prompts = [model.explicit_ids(p.question) for p in problems]
    texts: dict[int, str] = {}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    with attention_implementation(model.lm, "sdpa"):
        for batch in tqdm(batches, desc="explicit reasoning", unit="batch", disable=not progress):
            width = max(len(prompts[i]) for i in batch)
            ids = torch.tensor([[model.pad_id] * (width - len(prompts[i])) + prompts[i] for i in batch])
            mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch])
            out = model.lm.generate(
                ids.to(model.device),
                attention_mask=mask.to(model.device),
                do_sample=False,
                max_new_tokens=min(_EXPLICIT_TOKENS, model.max_new_tokens),
                eos_token_id=list(model.eos_ids),
                pad_token_id=model.pad_id,
            )
            for i, row in zip(batch, out[:, width:].tolist(), strict=True):
                end = next((n for n, token in enumerate(row) if token in model.eos_ids), len(row))
                texts[i] = model.text(row[:end])
    return [grade(texts[i], p.gold) for i, p in enumerate(problems)]
