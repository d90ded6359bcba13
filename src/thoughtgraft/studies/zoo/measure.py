"""What is measured of each model: answers with fewer and spoiled thoughts, resampling, lens, states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from scipy.stats import binomtest
from tqdm import tqdm

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import encode, think_clean_runs
from thoughtgraft.engine.run import run
from thoughtgraft.models.live import admitted
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, attention_implementation
from thoughtgraft.tasks.grading import OFFICIAL
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd

    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.studies.zoo.analysis import Measured
    from thoughtgraft.tasks.problem import ProblemSet


@dataclass(frozen=True)
class Job:
    """What every model is asked.

    Attributes:
        asked: Problems for accuracies, lens and probes.
        hosts: Problems of the resampling study; each is a host and may donate.
        donors: Donors of each host.
        seed: Of donors.
        device: Where to run.
        batch_size: Rows at once.
    """

    asked: ProblemSet
    hosts: ProblemSet
    donors: int
    seed: int
    device: str = "auto"
    batch_size: str = "auto"


def measure_zoo(names: Sequence[str], out: Path, job: Job) -> Path:
    """Measure the models one after another and write the page, its figures and its tables; returns the page."""
    from thoughtgraft.studies.zoo.analysis import analyse_zoo
    from thoughtgraft.studies.zoo.report import write_zoo
    from thoughtgraft.tasks.files import problem_table

    console, shown = Console(), display_names(names)
    measured = []
    for name, short in zip(names, shown, strict=True):
        console.print(f"{short}", markup=False, highlight=False)
        measured.append(measure_model(name, short, job))
    labels = problem_table(job.asked)
    labels["n_steps"] = labels["n_steps"].where(labels["n_steps"] > 0, None)
    with console.status("analysing and drawing"):
        result = analyse_zoo(measured, list(job.asked), labels, job.seed)
        facts = {
            "problems": f"{len(job.asked):,} of {job.asked.name}",
            "resampling": f"{len(job.hosts)} hosts x {job.donors} donors of {job.hosts.name}",
            "seed": str(job.seed),
        }
        return write_zoo(result, facts, out)


def display_names(names: Sequence[str]) -> list[str]:
    """What models are called: the last part of a path, or all of it where that is not enough."""
    short = [Path(name).name for name in names]
    return [name if short.count(part) > 1 else part for name, part in zip(names, short, strict=True)]


def measure_model(name: str, short: str, job: Job) -> Measured:
    """Measure one model."""
    from thoughtgraft.cli.reasoner import open_model
    from thoughtgraft.engine.run import run
    from thoughtgraft.models.names import model_folder
    from thoughtgraft.readouts.lens import decode_thoughts
    from thoughtgraft.studies.resampling.design import resampling_plan
    from thoughtgraft.studies.zoo.analysis import Measured
    from thoughtgraft.training.card import read_card

    card = read_card(model_folder(name))
    model = open_model(name, device=job.device)
    model.name = short
    found = measure(model, job.asked, batch_size=job.batch_size, seed=job.seed)
    records = decoded = None
    if model.num_latents:
        plan = resampling_plan(model.num_latents, job.donors, job.seed, full=False)
        records = run(model, job.hosts, plan, batch_size=job.batch_size)
        decoded = decode_thoughts(model, found.thoughts, top=1)
    return Measured(
        name=short,
        method=model.family,
        num_latents=model.num_latents,
        card=card | {"weight_hash": model.weight_hash, "assumed": model.origin["assumed"]},
        main=found.main,
        correct=correct_table(found),
        certificate=certify(model, job.asked),
        records=records,
        decoded=decoded,
        states=found.thoughts.hidden.float().numpy(),
        why_no_slots="" if model.num_latents else model.without_thoughts,
    )


def correct_table(found: Evaluation) -> pd.DataFrame:
    """One row per problem: which it is, and whether each condition's answer is right; null where it failed."""
    import pandas as pd

    known = {
        "problem_id": [p.id for p in found.problems],
        "n_steps": [len(p.steps) for p in found.problems],
        "operation": [p.operation for p in found.problems],
    }
    right = {name: pd.array(list(values), dtype="boolean") for name, values in found.correct.items()}
    return pd.DataFrame(known | right)


def certify(model: LatentReasoner, problems: ProblemSet) -> dict[str, Any] | None:
    """The model's certificate; None where its kind has none."""
    from thoughtgraft.engine.verify.suite import verify
    from thoughtgraft.errors import PlanError

    try:
        return verify(model, problems[:6]).to_json()
    except PlanError:
        return None


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


def evaluate(
    model: LatentReasoner,
    problems: ProblemSet,
    *,
    batch_size: int | str = "auto",
    progress: bool = True,
    seed: int = 0,
    identity: str | None = None,
) -> pd.DataFrame:
    """Accuracies of one model on one problem set; see `measure` and `Evaluation.table`."""
    return measure(model, problems, batch_size=batch_size, progress=progress, seed=seed, identity=identity).table()


def measure(
    model: LatentReasoner,
    problems: ProblemSet,
    *,
    batch_size: int | str = "auto",
    progress: bool = True,
    seed: int = 0,
    identity: str | None = None,
) -> Evaluation:
    """Answer every problem under every condition that the model has.

    The clean run; fewer thoughts, from none on; all thoughts zero, the mean or another problem's (these need thoughts,
    and the last two need two problems); and the reasoning written out, which a model that has no thoughts and always
    writes it has no second way to do.

    Args:
        model: The model, at its trained number of thoughts.
        problems: P problems.
        batch_size: Rows at once, or `auto`.
        progress: Show progress bars.
        seed: Draws the donor of each problem for the swapped condition.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Raises:
        ModelError: The model is not as it was loaded and no name is given, or a question does not fit its context.
    """
    model = admitted(model, identity)
    thoughts = think_clean_runs(model, problems, model.max_new_tokens, batch_size=batch_size, progress=progress)
    main = THOUGHTS if model.num_latents else ANSWER
    correct: dict[str, tuple[bool | None, ...]] = {main: thoughts.correct}
    correct |= _with_other_thoughts(model, problems, thoughts, batch_size, progress, seed)
    if not always_explicit(model):
        correct[EXPLICIT] = tuple(explicit_correct(model, problems, progress=progress))
    return Evaluation(problems, thoughts, main, correct)


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
    model: LatentReasoner,
    problems: ProblemSet,
    thoughts: Thoughts,
    batch_size: int | str,
    progress: bool,
    seed: int,
) -> dict[str, tuple[bool | None, ...]]:
    """Fewer thoughts, and spoiled ones: one rollout of all of them shares each question."""
    every = tuple(range(model.num_latents))
    arms = {dose(k): Arm("truncate", (k,)) for k in every}
    if every and len(problems) > 1:
        arms |= {name: Arm(method, every) for method, name in SPOILED.items()}
    if not arms:
        return {}
    plan = Plan(tuple(arms.values()), n_donors=1, seed=seed)
    records = run(model, problems, plan, thoughts=thoughts, batch_size=batch_size, progress=progress)
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
                eos_token_id=list(model.eos_ids),
                pad_token_id=model.pad_id,
            )
            for i, row in zip(batch, out[:, width:].tolist(), strict=True):
                end = next((n for n, token in enumerate(row) if token in model.eos_ids), len(row))
                texts[i] = model.text(row[:end])
    grader = problems.grader
    return [grader.same(grader.parse(texts[i]), p.gold) for i, p in enumerate(problems)]
