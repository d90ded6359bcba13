"""Accuracy of a model as it is, with fewer or spoiled thoughts, and with its reasoning written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

import torch
from scipy.stats import binomtest
from tqdm import tqdm

from thoughtgraft.arguments import answers_for_calls, seed_of
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import answer_limit, encode, think_clean_runs
from thoughtgraft.engine.run import run
from thoughtgraft.errors import ModelError
from thoughtgraft.models.live import admitted
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, as_model, attention_implementation
from thoughtgraft.tasks.grading import OFFICIAL
from thoughtgraft.tasks.load import as_problems
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd

THOUGHTS, ANSWER, EXPLICIT = "thoughts", "answer", "explicit reasoning"
SPOILED = {"zero": "all thoughts zero", "mean": "all thoughts the mean", "swap": "all thoughts another problem's"}
_EXPLICIT_TOKENS = 128


@dataclass(frozen=True)
class Evaluation:
    """What one model answered right, problem by problem.

    Attributes:
        problems: P problems.
        thoughts: The model's clean run on them.
        main: What the clean run is called: `thoughts`, or `answer` for a model that is fed none.
        correct: By condition, whether each of the P answers is right, None where it failed and there is none; `main`
            comes first.
    """

    problems: ProblemSet
    thoughts: Thoughts
    main: str
    correct: Mapping[str, tuple[bool | None, ...]]

    @property
    def right(self) -> pd.Series[bool]:
        """Whether each plain answer is right, by problem id; null where it failed."""
        return self.answers()[self.main]

    def answers(self) -> pd.DataFrame:
        """One row per problem, by its id: `n_steps`, `operation`, and whether each condition's answer is right.

        What failed is null.
        """
        import pandas as pd

        known = {"n_steps": [len(p.steps) for p in self.problems], "operation": [p.operation for p in self.problems]}
        right = {name: pd.array(list(values), dtype="boolean") for name, values in self.correct.items()}
        return pd.DataFrame(known | right, index=pd.Index([p.id for p in self.problems], name="problem_id"))

    def table(self) -> pd.DataFrame:
        """Accuracies.

        Returns:
            One row per condition: `condition`, `n`, `correct`, `accuracy`, `ci_low`, `ci_high` (fractions; 95% Wilson),
            `failed`: problems without an answer, which are not among the `n`.
        """
        import pandas as pd

        right = self.correct[self.main]
        texts = self.thoughts.texts
        official = [OFFICIAL.same(OFFICIAL.parse(text), p.gold) for text, p in zip(texts, self.problems, strict=True)]
        agree = [a == b for a, b in zip(right, official, strict=True)]
        rows = [_row(self.main, right), _row(f"{self.main}, official grader", official)]
        rows.append(_row("the two graders agree", agree))
        rows += [_row(f"{self.main}, {name}", values) for name, values in self._groups()]
        rows += [_row(name, values) for name, values in self.correct.items() if name != self.main]
        return pd.DataFrame(rows)

    def _groups(self) -> list[tuple[str, list[bool | None]]]:
        """By number of steps, then by operation; problems whose steps are not known are a group of their own."""
        steps: dict[int, list[bool | None]] = {}
        operations: dict[str, list[bool | None]] = {}
        for problem, correct in zip(self.problems, self.correct[self.main], strict=True):
            steps.setdefault(len(problem.steps), []).append(correct)
            if problem.steps:
                operations.setdefault(problem.operation, []).append(correct)
        if len(steps) + len(operations) <= 2:  # they would say the same as all problems together
            return []
        unknown = steps.pop(0, None)
        named = [(f"{n} step{'s' * (n != 1)}", steps[n]) for n in sorted(steps)]
        return [*named, *([("steps unknown", unknown)] if unknown else []), *sorted(operations.items())]


@answers_for_calls(ModelError)
def evaluate(
    model: LatentReasoner,
    problems: ProblemSet,
    *,
    batch_size: int | str = "auto",
    max_new_tokens: int | None = None,
    progress: bool = True,
    seed: int = 0,
    identity: str | None = None,
) -> Evaluation:
    """Answer every problem under every condition that the model has.

    The conditions are:

    - the clean run;
    - fewer thoughts: the first 0, 1, ... K - 1 of them;
    - all thoughts zero, the mean, or another problem's. The last two need at least two problems;
    - the reasoning written out instead of thought. A model that always writes it has this as its clean run.

    A model that is fed no thoughts has the first and the last alone.

    Args:
        model: The model, at its trained number of thoughts.
        problems: P problems.
        batch_size: Rows at once, or `auto`.
        max_new_tokens: The longest answer, which counts where answers do not stop; None takes the model's.
        progress: Show progress bars.
        seed: Draws the donor of each problem for the swapped condition.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Raises:
        ModelError: The model is not as it was loaded and no name is given, or a question does not fit its context.
    """
    model, problems = admitted(as_model(model), identity), as_problems(problems)
    how = _How(batch_size, answer_limit(model, max_new_tokens), progress, seed_of(seed, ModelError))
    thoughts = think_clean_runs(model, problems, how.longest, batch_size=batch_size, progress=progress)
    main = THOUGHTS if model.num_latents else ANSWER
    correct: dict[str, tuple[bool | None, ...]] = {main: thoughts.correct}
    correct |= _with_other_thoughts(model, problems, thoughts, how)
    if not always_explicit(model):
        correct[EXPLICIT] = tuple(explicit_correct(model, problems, progress=progress))
    return Evaluation(problems, thoughts, main, correct)


@dataclass(frozen=True)
class _How:
    """How answers are written: rows at once, tokens at most, with a progress bar or not, and the seed of donors."""

    batch_size: int | str
    longest: int
    progress: bool
    seed: int


def dose(k: int) -> str:
    """The condition in which only the first `k` thoughts are fed."""
    return f"{k} thought{'s' * (k != 1)}"


def always_explicit(model: LatentReasoner) -> bool:
    """Whether the answer itself is read after written reasoning: nothing is fed, and there is one prompt only."""
    same = model.explicit_ids("1") == [*model.question_ids("1"), model.end_of_thought]
    return model.num_latents == 0 and same


def _row(condition: str, correct: Sequence[bool | None]) -> dict[str, object]:
    known = [right for right in correct if right is not None]
    n, right = len(known), sum(known)
    row: dict[str, object] = {"condition": condition, "n": n, "correct": right, "accuracy": right / n if n else nan}
    ends = binomtest(right, n).proportion_ci(0.95, "wilson") if n else None
    row |= {"ci_low": ends.low if ends else nan, "ci_high": ends.high if ends else nan}
    return row | {"failed": len(correct) - n}


def _with_other_thoughts(
    model: LatentReasoner, problems: ProblemSet, thoughts: Thoughts, how: _How
) -> dict[str, tuple[bool | None, ...]]:
    """Fewer thoughts, and spoiled ones: one rollout of all of them shares each question."""
    every = tuple(range(model.num_latents))
    arms = {dose(k): Arm("truncate", (k,)) for k in every}
    if every and len(problems) > 1:
        arms |= {name: Arm(method, every) for method, name in SPOILED.items()}
    if not arms:
        return {}
    plan = Plan(tuple(arms.values()), n_donors=1, seed=how.seed)
    records = run(
        model,
        problems,
        plan,
        thoughts=thoughts,
        batch_size=how.batch_size,
        max_new_tokens=how.longest,
        progress=how.progress,
    )
    names = zip(records["method"], records["slots"], records["problem_id"], strict=True)
    right = {
        name: None if error else bool(value)
        for name, value, error in zip(names, records["correct"], records["error"].notna(), strict=True)
    }
    return {
        name: tuple(right[arm.change.name, arm.slots, at] for at in thoughts.problem_ids) for name, arm in arms.items()
    }


@with_ieee_products
@torch.inference_mode()
def explicit_correct(
    model: LatentReasoner, problems: ProblemSet, *, batch_size: int = 128, progress: bool = True
) -> list[bool]:
    """Whether each answer is right when the model writes its reasoning out instead of thinking, as it was trained to.

    Generation is Hugging Face's own, greedy; a question that leaves less room than others gets what it leaves.

    Raises:
        ModelError: A question does not fit the model's context.
    """
    encode(model, problems)  # one that does not fit is named there
    prompts = [model.explicit_ids(p.question) for p in problems]
    longest, limit = _EXPLICIT_TOKENS, model.max_positions
    room = [longest if limit is None else min(longest, limit - len(prompt)) for prompt in prompts]
    texts: dict[int, str] = {}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    ample = [i for i in order if room[i] == longest]
    batches = [ample[i : i + batch_size] for i in range(0, len(ample), batch_size)]
    batches += [[i] for i in order if room[i] < longest]
    ends = model.decoding.ends
    with attention_implementation(model.lm, "sdpa"):
        for batch in tqdm(batches, desc="explicit reasoning", unit="batch", disable=not progress):
            width = max(len(prompts[i]) for i in batch)
            ids = torch.tensor([[model.pad_id] * (width - len(prompts[i])) + prompts[i] for i in batch])
            mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch])
            out = model.lm.generate(
                ids.to(model.device),
                attention_mask=mask.to(model.device),
                do_sample=False,
                max_new_tokens=room[batch[0]],
                eos_token_id=list(ends),
                pad_token_id=model.pad_id,
            )
            for i, row in zip(batch, out[:, width:].tolist(), strict=True):
                end = next((n for n, token in enumerate(row) if token in ends), len(row))
                texts[i] = model.text(row[:end])
    grader = problems.grader
    return [grader.same(grader.parse(texts[i]), p.gold) for i, p in enumerate(problems)]
